"""Learned costs beside those of boundary means, on slabs that neither was trained on: the tables of docs.

Every slab is segmented by itself (``input.roi``), so nothing of one reaches another. Writes runs/edges/study.json and
prints the tables.

    python pipelines/study_edges.py ../shared/data [vimunet-nano]
"""

import json
from pathlib import Path
from typing import Annotated

import typer

from vimvol import SegmentConfig, load_config, segment_volume
from vimvol.cli import run_script
from vimvol.commands.agglomerate import agglomerate
from vimvol.commands.edges import train_edges
from vimvol.evaluate.protocol import score_slices, score_volume
from vimvol.geometry import Block
from vimvol.io import open_volume

BETAS = (0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
FOLDS = {
    "fib25_sample2_z000-149.h5": ("3d", ((0, 112), (112, 150)), ((38, 150), (0, 38))),
    "vnc_stack1_z00-14.h5": ("2d", ((0, 12), (12, 15)), ((3, 15), (0, 3))),
}
"""Mode, and pairs of a slab to learn from and a slab to score."""

SHOWN = {"2d": "mean_segmentation_accuracy", "3d": "cremi"}


def main(folder: Path, model: Annotated[str, typer.Argument()] = "vimunet-nano") -> None:
    """Train and score every fold with both kinds of costs and all priors."""
    here = Path("runs/edges")
    here.mkdir(parents=True, exist_ok=True)
    results = []
    for name, (mode, *folds) in FOLDS.items():
        address = f"{folder / name}:volumes/labels/neuron_ids"
        truth = open_volume(address, prefer="labels")
        for learn, judge in folds:
            outs = {}
            for slab in (learn, judge):
                outs[slab] = str(here / f"{Path(name).stem}-{slab[0]}-{slab[1]}.zarr")
                roi = [[slab[0], 0, 0], [slab[1], *truth.shape[1:]]]
                settings = {"segment.mode": mode, "predict.model": model, "input.roi": roi}
                config = load_config(SegmentConfig, None, settings)
                segment_volume(f"{folder / name}:volumes/raw", outs[slab], config, overwrite=True)
            file = str(here / f"{Path(name).stem}-{learn[0]}-{learn[1]}.safetensors")
            train_edges([(outs[learn], address)], file)
            box = Block((judge[0], 0, 0), (judge[1], *truth.shape[1:]))
            for costs in ("boundary", file):
                prior = "beta" if costs == "boundary" else "beta_learned"
                for beta in BETAS:
                    wanted = [f"agglomerate.costs={costs}", f"agglomerate.{prior}={beta}"]
                    done = agglomerate(outs[judge], wanted, name="study", workers=0)
                    found = open_volume(done.labels, prefer="labels").read(box)
                    scores = (
                        score_slices(found, truth.read(box))
                        if mode == "2d"
                        else score_volume(found, truth.read(box), 2)
                    )
                    kind = "boundary" if costs == "boundary" else "learned"
                    results.append(
                        {"volume": name, "learn": learn, "judge": judge, "costs": kind, "beta": beta, **scores}
                    )
            _show(results[-2 * len(BETAS) :], SHOWN[mode])
    (here / "study.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


def _show(rows: list[dict], metric: str) -> None:
    """Print the rows of one fold as a table in Markdown."""
    first = rows[0]
    print(f"\n{first['volume']}, learned from {first['learn']}, scored on {first['judge']}: {metric}\n")
    print("| beta | " + " | ".join(f"{beta:g}" for beta in BETAS) + " |")
    print("|---" * (len(BETAS) + 1) + "|")
    for kind in ("boundary", "learned"):
        print(f"| {kind} | " + " | ".join(f"{row[metric]:.3f}" for row in rows if row["costs"] == kind) + " |")


if __name__ == "__main__":
    run_script(main, __doc__)
