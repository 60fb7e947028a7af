"""Segment and score a volume of CREMI, from download to score and picture, with a shipped or an own network.

python pipelines/segment_cremi.py data/cremi --sample A
"""

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from vimvol import SegmentConfig, load_config, score, segment_volume
from vimvol.cli import run_script
from vimvol.commands.picture import draw_overview
from vimvol.report.progress import make_progress
from vimvol.report.transfer import Transfers
from vimvol.train.download import download


def main(
    folder: Annotated[Path, typer.Argument(help="Where the volume is, or goes to.")],
    sample: Annotated[str, typer.Option(help="A, B or C.")] = "A",
    mode: Annotated[Literal["3d", "2d"], typer.Option(help="Neurons, or the instances of every section.")] = "3d",
    model: Annotated[str, typer.Option(help="Name or file of a network.")] = "vimunet-nano",
) -> None:
    """Fetch the volume unless it is there, segment it, score it, draw its middle."""
    with Transfers() as told:
        [volume] = download("cremi", str(folder), told, only=[f"sample_{sample}_20160501.hdf"])
    source, truth = f"{volume}:volumes/raw", f"{volume}:volumes/labels/neuron_ids"
    out = f"runs/cremi-{sample}-{mode}-{Path(model).stem}.zarr"
    config = load_config(SegmentConfig, None, {"segment.mode": mode, "predict.model": model})
    with make_progress() as progress:
        done = segment_volume(source, out, config, progress=progress)
    found = {"segments": done.segments, "seconds": round(done.seconds, 1), **score(out, truth)["scores"]}
    Path(out).with_suffix(".json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(found, indent=2))
    print(draw_overview(source, out, config, truth))


if __name__ == "__main__":
    run_script(main, __doc__)
