"""What each choice of the way from slices to neurons is worth on the isotropic development volume, FIB-25.

Boundary means, learned costs or lifted multicut, slices across z or across all three axes, at all priors; slices across
one axis and three of synthetic neurites that run across the slices and along them; and how much the heights of the
watershed are smoothed. Writes runs/agglomeration/study.json and prints the tables of docs/agglomeration-quality.md. One
more choice is one more line in CHOICES. With --quick it takes a corner of the slices at two priors: whether all of it
runs, in a few minutes, and no numbers for the docs.

    python pipelines/study_agglomeration.py ../shared/data [vimunet-nano] [--quick]
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
import zarr
from numpy.typing import NDArray

from vimvol import SegmentConfig, load_config, segment_volume
from vimvol.cli import run_script
from vimvol.commands.agglomerate import agglomerate
from vimvol.commands.edges import train_edges
from vimvol.evaluate.protocol import score_volume
from vimvol.geometry import Block
from vimvol.io import open_volume
from vimvol.sample import SampleSpec, generate

VOLUME = "fib25_sample2_z000-149.h5"
CHOICES = {
    "boundary means": ("z", {}),
    "learned costs": ("z", {"costs": "learned"}),
    "lifted multicut": ("z", {"solver": "lifted"}),
    "boundary means, three axes": ("zyx", {}),
    "learned costs, three axes": ("zyx", {"costs": "learned"}),
    "lifted multicut, three axes": ("zyx", {"solver": "lifted"}),
}
"""`predict.axes`, and settings of the section `agglomerate`; costs that are learned come from a file."""

SMOOTHINGS = (0.0, 0.5, 0.7, 1.0)
HEIGHTS = {"fragments.sigma_weights": SMOOTHINGS[-1]}
"""Of all tables but that of the smoothings."""

BETAS = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.7)
REGIONS = (
    ((112, 150), (112, 150), (0, 112)),
    ((0, 38), (0, 38), (38, 150)),
    ((0, 150), (112, 150), (0, 112)),
    ((0, 150), (0, 150), None),
)
"""Slices that are segmented at once, that are scored, and that costs are learned from; none: costs are not learned."""


CORNER, QUICK_BETAS, QUICK_SMOOTHINGS = 64, (0.2, 0.5), (0.0, 1.0)
"""Voxels along y and x, priors and smoothings of a quick run, which starts no workers."""


def main(
    folder: Path,
    model: Annotated[str, typer.Argument()] = "vimunet-nano",
    quick: Annotated[bool, typer.Option(help="a corner at two priors, to see that all of it runs")] = False,
) -> None:
    """Segment every region across one axis and three; score every choice at every prior."""
    here = Path("runs/agglomeration-quick" if quick else "runs/agglomeration")
    here.mkdir(parents=True, exist_ok=True)
    address = f"{folder / VOLUME}:volumes/labels/neuron_ids"
    truth = open_volume(address, prefer="labels")
    plane = (CORNER, CORNER) if quick else truth.shape[1:]
    betas, smoothings = (QUICK_BETAS, QUICK_SMOOTHINGS) if quick else (BETAS, SMOOTHINGS)
    common = {"predict.model": model} | ({"run.workers": 0} if quick else {})
    all_slices = REGIONS[-1][0]

    def out(axes: str, slab: tuple[int, int]) -> str:
        return str(here / f"{axes}-{slab[0]}-{slab[1]}.zarr")

    for axes in ("z", "zyx"):
        for slab in sorted({segmented for segmented, _, _ in REGIONS}):
            roi = [[slab[0], 0, 0], [slab[1], *plane]]
            settings = common | {"predict.axes": axes, "input.roi": roi} | HEIGHTS
            config = load_config(SegmentConfig, None, settings)
            done = segment_volume(f"{folder / VOLUME}:volumes/raw", out(axes, slab), config, overwrite=True)
            print(f"slices {slab}, across {axes}: {done.seconds:.0f} s", flush=True)
    results = _synthetic(here, common, CORNER if quick else 144, betas)
    for segmented, judged, learned in REGIONS:
        box = Block((judged[0], 0, 0), (judged[1], *plane))
        for name, (axes, settings) in CHOICES.items():
            wanted = dict(settings)
            if wanted.get("costs") == "learned":
                if learned is None:
                    continue
                wanted["costs"] = str(here / f"{axes}-{learned[0]}-{learned[1]}.safetensors")
                train_edges([(out(axes, all_slices), address)], wanted["costs"], slab=learned)
            prior = "beta_learned" if "costs" in wanted else "beta"
            for beta in betas:
                changes = [f"agglomerate.{key}={value}" for key, value in {**wanted, prior: beta}.items()]
                done = agglomerate(out(axes, segmented), changes, name="study", workers=0)
                scores = _scores(done.labels, truth.read(box), box)
                results.append({"segmented": segmented, "judged": judged, "choice": name, "beta": beta, **scores})
        rows = [row for row in results if (row.get("segmented"), row.get("judged")) == (segmented, judged)]
        _show(f"slices {judged}, segmented with {segmented}", rows, betas)
        (here / "study.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    whole = Block((0, 0, 0), (truth.shape[0], *plane))
    _smoothings(
        f"{folder / VOLUME}:volumes/raw", truth.read(whole), str(here / "heights.zarr"), common, smoothings, betas
    )


def _smoothings(
    source: str, truth: NDArray[np.integer], out: str, common: dict, smoothings: Sequence[float], betas: Sequence[float]
) -> None:
    """Print scores of all slices and of those that were not trained on, for every smoothing of the heights."""
    print("\nsmoothing of the heights: CREMI score of all slices, and of those not trained on\n")
    print("| smoothing | " + " | ".join(f"{beta:g}" for beta in betas) + " |\n|---" + "|---" * len(betas) + "|")
    for smoothing in smoothings:
        settings = common | {"fragments.sigma_weights": smoothing, "input.roi": [[0, 0, 0], list(truth.shape)]}
        segment_volume(source, out, load_config(SegmentConfig, None, settings), overwrite=True)
        cells = []
        for beta in betas:
            done = agglomerate(out, [f"agglomerate.beta={beta}"], name="study", workers=0)
            boxes = [Block((first, 0, 0), truth.shape) for first in (0, REGIONS[0][0][0])]
            cells.append(", ".join(f"{_scores(done.labels, truth[box.slices], box)['cremi']:.3f}" for box in boxes))
        print(f"| {smoothing} | " + " | ".join(cells) + " |", flush=True)


def _synthetic(here: Path, common: dict, side: int, betas: Sequence[float]) -> list[dict]:
    """Score one axis and three on neurites that run along z, across the slices, and on the same ones along y."""
    raw, truth = generate(SampleSpec(shape=(side, side, side), voxel_size=(8.0, 8.0, 8.0)))
    results = []
    for along, order in (("z", (0, 1, 2)), ("y", (1, 0, 2))):
        source = str(here / f"along-{along}.zarr")
        zarr.create_array(source, data=raw.transpose(order), overwrite=True).attrs["resolution"] = [8.0, 8.0, 8.0]
        for axes in ("z", "zyx"):
            out = str(here / f"along-{along}-{axes}.zarr")
            # these voxels of 8 nm are shown as they are
            settings = common | {"predict.axes": axes, "predict.rescale": "none"} | HEIGHTS
            config = load_config(SegmentConfig, None, settings)
            segment_volume(source, out, config, overwrite=True)
            for beta in betas:
                done = agglomerate(out, [f"agglomerate.beta={beta}"], name="study", workers=0)
                turned = truth.transpose(order)
                scores = _scores(done.labels, turned, Block.whole(turned.shape))
                choice = "boundary means" + (", three axes" if axes == "zyx" else "")
                results.append({"synthetic": along, "choice": choice, "beta": beta, **scores})
        _show(f"synthetic neurites along {along}", [row for row in results if row["synthetic"] == along], betas)
    return results


def _scores(labels: str, truth: NDArray[np.integer], box: Block) -> dict[str, float]:
    """Score a box (z, y, x) of a segmentation, voxels within 2 of a boundary of the truth left out."""
    scores = score_volume(open_volume(labels, prefer="labels").read(box), np.ascontiguousarray(truth), band=2)
    return {key: scores[key] for key in ("cremi", "voi_split", "voi_merge")}


def _show(title: str, rows: list[dict], betas: Sequence[float]) -> None:
    """Print rows as a table in Markdown."""
    print(f"\n{title}: CREMI score; VOI at the best prior\n")
    print("| choice | " + " | ".join(f"{beta:g}" for beta in betas) + " | best: split + merge, bits |")
    print("|---" * (len(betas) + 2) + "|")
    for name in CHOICES:
        of = [row for row in rows if row["choice"] == name]
        if of:
            best = min(of, key=lambda row: row["cremi"])
            voi = f"{best['voi_split']:.2f} + {best['voi_merge']:.2f}"
            print(f"| {name} | " + " | ".join(f"{row['cremi']:.3f}" for row in of) + f" | {voi} |", flush=True)


if __name__ == "__main__":
    run_script(main, __doc__)
