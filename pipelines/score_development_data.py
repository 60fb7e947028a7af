"""Segment and score the two annotated volumes that the shipped networks were developed on: the numbers of the README.

python pipelines/score_development_data.py ../shared/data [vimunet-nano]
"""

import json
from pathlib import Path
from typing import Annotated

import typer

from vimvol import SegmentConfig, load_config, score, segment_volume
from vimvol.cli import run_script
from vimvol.evaluate.protocol import score_slices, score_volume
from vimvol.geometry import Block
from vimvol.io import open_volume

VOLUMES = {"vnc_stack1_z00-14.h5": ("2d", 12), "fib25_sample2_z000-149.h5": ("3d", 112)}
"""Mode, and the first slice that was not trained on."""


def main(folder: Path, model: Annotated[str, typer.Argument()] = "vimunet-nano") -> None:
    """Segment both volumes; score all slices, and those that were not trained on."""
    results = {}
    for name, (mode, first) in VOLUMES.items():
        source = folder / name
        truth = f"{source}:volumes/labels/neuron_ids"
        out = f"runs/{model}-{source.stem}.zarr"
        config = load_config(SegmentConfig, None, {"segment.mode": mode, "predict.model": model})
        done = segment_volume(f"{source}:volumes/raw", out, config, overwrite=True)
        volumes = open_volume(out, prefer="labels"), open_volume(truth, prefer="labels")
        shape = volumes[0].shape
        unseen = [volume.read(Block((first, 0, 0), shape)) for volume in volumes]
        held = score_slices(*unseen) if mode == "2d" else score_volume(*unseen, band=2)
        results[name] = {"seconds": done.seconds, "all": score(out, truth)["scores"], "not trained on": held}
        print(json.dumps({name: results[name]}, indent=2))
    Path(f"runs/{model}-scores.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    run_script(main, __doc__)
