"""What profiles and the prior of edges across sections are worth: neurons from fragments of single slices.

FIB-25 is thinned to every third to sixth slice, as if it had been cut, and every slice is shifted at random, as if
sections had been aligned badly; its bodies stay known in 3D. Of the ventral nerve cord only the instances of every
section are known: there the score of the slices tells what was merged within them by way of other sections, and the
share of instances that go on in the next section whether they were joined at all. Prints the tables of
docs/agglomeration-quality.md.

    python pipelines/study_sections.py ../shared/data [vimunet-nano]
"""

import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated

import h5py
import numpy as np
import typer
from numpy.typing import NDArray

from vimvol import SegmentConfig, load_config, segment_volume
from vimvol.cli import run_script
from vimvol.commands.agglomerate import agglomerate
from vimvol.evaluate.protocol import score_slices, score_volume
from vimvol.geometry import Block
from vimvol.io import open_volume

BODIES, SECTIONS = "fib25_sample2_z000-149.h5", "vnc_stack1_z00-14.h5"
THINNED = (
    *((4, 0, 0, 0), (4, 4, 0, 0), (6, 4, 0, 0)),
    *((3, 3, 0, 1), (4, 2, 1, 2), (4, 6, 2, 3), (5, 0, 0, 4), (5, 4, 2, 5), (6, 0, 3, 6), (6, 2, 1, 7), (5, 6, 4, 8)),
)
"""Every how many slices one is kept, voxels by which it may be shifted along y and x, the first slice, and the seed."""
PROFILES = (0.5, 1.0)
"""`agglomerate.beta_profiles`; 1 joins no fragments to profiles."""
BETAS = (0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.6)


def main(folder: Path, model: Annotated[str, typer.Argument()] = "vimunet-nano") -> None:
    """Segment once and agglomerate at every prior, with and without profiles."""
    here = Path("runs/sections")
    here.mkdir(parents=True, exist_ok=True)
    head = ["profiles", "volume", *(f"{beta:g}" for beta in BETAS)]
    print("| " + " | ".join(head) + " |\n" + "|---" * len(head) + "|")
    scores: dict[float, list[list[float]]] = {profiles: [] for profiles in PROFILES}
    for step, shift, first, seed in THINNED:
        path = thinned(folder / BODIES, here, step, shift, first, seed)
        for profiles, found in results(f"{path}:raw", f"{path}:truth", path.with_suffix(".zarr"), model):
            scores[profiles].append([score_volume(labels, truth, band=2)["cremi"] for labels, truth in found])
            cells = [f"{score:.3f}" for score in scores[profiles][-1]]
            show(profiles, f"every {step}th slice from {first} on, shifted by up to {shift}", cells)
    for profiles in PROFILES:
        show(profiles, f"mean of {len(THINNED)}", [f"{score:.3f}" for score in np.mean(scores[profiles], axis=0)])
    address = f"{folder / SECTIONS}:volumes"
    for profiles, found in results(f"{address}/raw", f"{address}/labels/neuron_ids", here / "vnc.zarr", model):
        cells = [
            f"{score_slices(labels, truth)['mean_segmentation_accuracy']:.3f}, {going_on(labels):.0%}"
            for labels, truth in found
        ]
        show(profiles, "nerve cord, mSA of slices and share that go on", cells)


def show(profiles: float, name: str, cells: Iterable[str]) -> None:
    """Print a row of the table."""
    print(f"| {profiles:g} | {name} | " + " | ".join(cells) + " |", flush=True)


def thinned(source: Path, here: Path, step: int, shift: int, first: int, seed: int) -> Path:
    """Write raw and truth of FIB-25 with every ``step``-th slice, shifted by up to ``shift`` voxels."""
    path = here / f"every{step}-shifted{shift}-from{first}.h5"
    raw = open_volume(f"{source}:volumes/raw")
    truth = open_volume(f"{source}:volumes/labels/neuron_ids", prefer="labels")
    with h5py.File(path, "w") as thin:
        size = np.array(raw.voxel_size) * np.array([step, 1, 1])
        for name, volume in (("raw", raw), ("truth", truth)):
            slices = volume.read(Block.whole(volume.shape))[first::step]
            by = np.random.default_rng(seed).integers(-shift, shift + 1, (len(slices), 2))
            moved = np.stack([np.roll(plane, tuple(s), (0, 1)) for plane, s in zip(slices, by, strict=True)])
            inside = slice(shift, slices.shape[1] - shift)
            thin[name] = moved[:, inside, inside]
            thin[name].attrs["resolution"] = size
    return path


def results(
    source: str, truth: str, out: Path, model: str
) -> Iterator[tuple[float, Iterator[tuple[NDArray[np.integer], NDArray[np.integer]]]]]:
    """Segment a volume; yield every prior of profiles, and with it labels and ground truth at every prior across."""
    # what differs is the agglomeration: these slices are shown as they are
    settings = {"predict.model": model, "predict.rescale": "none"}
    segment_volume(source, str(out), load_config(SegmentConfig, None, settings), overwrite=True)
    known = open_volume(truth, prefer="labels")
    whole = Block.whole(known.shape)

    def across(profiles: float) -> Iterator[tuple[NDArray[np.integer], NDArray[np.integer]]]:
        for beta in BETAS:
            wanted = [f"agglomerate.beta_across={beta}", f"agglomerate.beta_profiles={profiles}"]
            done = agglomerate(str(out), wanted, name="study", workers=0)
            yield open_volume(done.labels, prefer="labels").read(whole), known.read(whole)

    for profiles in PROFILES:
        yield profiles, across(profiles)


def going_on(labels: NDArray[np.integer], smallest: int = 100) -> float:
    """Return the share of instances of a slice, of at least so many voxels, that are in the next slice, too."""
    shares = []
    for here, behind in itertools.pairwise(labels):
        ids, voxels = np.unique(here, return_counts=True)
        shares.append(np.isin(ids[(ids > 0) & (voxels >= smallest)], behind).mean())
    return float(np.mean(shares))


if __name__ == "__main__":
    run_script(main, __doc__)
