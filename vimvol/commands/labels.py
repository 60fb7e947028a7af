"""What a volume of labels looks like, by a sample: whether it holds any, and whether they go on from slice to slice."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vimvol.errors import InputError
from vimvol.geometry import Block, Grid
from vimvol.io import Volume

PAIRS = 8
"""Pairs of neighbouring slices that are looked at, evenly over a region, in its middle."""
WIDTH = 512
"""Voxels (y, x) of them at most."""
LINKED = 0.4
"""Part of the voxels below which objects end with their slice. Of neurons that keep their label through sections of
50 nm it is above 0.8; of objects that are numbered anew in every slice, from 1, chance makes it 0.3 and less."""
ALIKE = 0.5
"""Part of the voxels below which the next along x has another label so often that they are intensities: of EM it is
below 0.05, of neurons, cells and classes of organelles above 0.95."""
BOX = (32, 1024, 1024)
"""Voxels (z, y, x) that are looked through at once for a label."""
FEWEST = 1000
"""Voxels that are needed to tell so."""
SHARED = 0.1
"""Part of the labelled voxels below which slices do not meet. Of a single neuron of `vimvol.sample` it is above 0.8; of
a stack with every second slice annotated it is what strays into the slices between."""

SAME_SIZE, SAME_PLACE = 0.01, 0.5
"""Part of a voxel by which sizes of voxels, and places of the first, may differ: tools round."""


@dataclass(frozen=True)
class Look:
    """What a sample of a volume shows.

    Attributes
    ----------
    linked
        Part of the voxels that have the label of their neighbour in the next slice, where both have one; none: hardly
        any such neighbours were seen, or few for the voxels that have a label.
    alike
        Part of the voxels that have the label of their neighbour along x, where both have one; none: hardly any such
        neighbours were seen.
    """

    linked: float | None
    alike: float | None


def look_at(volume: Volume, region: Block) -> Look:
    """Look at a few pairs of slices of a volume of labels, or at its only one.

    Raises
    ------
    InputError
        If a label is negative.
    StorageError
        If it cannot be read.
    """
    if not region.size:
        return Look(None, None)
    middle = [(b + max(0, e - b - WIDTH) // 2, e) for b, e in zip(region.begin[1:], region.end[1:], strict=True)]
    plane = [(begin, min(begin + WIDTH, end)) for begin, end in middle]
    (y, y_end), (x, x_end) = plane
    depth = min(2, region.shape[0])
    starts = np.linspace(region.begin[0], region.end[0] - depth, PAIRS).round().astype(int)
    through, along, labelled = [0, 0], [0, 0], 0
    for z in sorted(set(starts.tolist())):
        labels = volume.read_labels(Block((z, y, x), (z + depth, y_end, x_end)))
        if depth > 1:
            labelled += int(((labels[0] > 0) | (labels[1] > 0)).sum())
        for counts, axis in ((through, 0), (along, 2)):
            a, b = (np.moveaxis(labels, axis, 0)[part] for part in (slice(None, -1), slice(1, None)))
            both = (a > 0) & (b > 0)
            counts[0] += int(both.sum())
            counts[1] += int((both & (a == b)).sum())
    needed = max(FEWEST, SHARED * labelled)
    linked, alike = (
        same / both if both >= least else None for (both, same), least in ((through, needed), (along, FEWEST))
    )
    return Look(linked, alike)


def check_labels(volume: Volume, look: Look) -> None:
    """Make sure that what was given as labels does not look like intensities.

    Raises
    ------
    InputError
        If it does.
    """
    intense = volume.dtype in ("uint8", "uint16")  # a noisy segmentation in more bits is one all the same
    if intense and look.alike is not None and look.alike < ALIKE:
        raise InputError(
            f"{volume.address} ({volume.dtype}) looks like intensities: only {look.alike:.0%} of neighbouring voxels "
            "are equal, so nothing can be compared with it; give labels, an integer for each object, e.g. "
            "volume.h5:volumes/labels/neuron_ids"
        )


def apart_text(found: Volume, truth: Volume) -> str:
    """Return a line that warns of two volumes whose metadata put the same voxel elsewhere; empty where they do not."""
    if not (found.voxel_size_known and truth.voxel_size_known):
        return ""
    axes = list(zip(found.voxel_size, truth.voxel_size, found.offset, truth.offset, strict=True))
    if all(abs(a - b) < SAME_SIZE * b and abs(p - q) < SAME_PLACE * b for a, b, p, q in axes):
        return ""
    places = [
        f"{' x '.join(f'{size:g}' for size in each.voxel_size)} nm from {', '.join(f'{nm:g}' for nm in each.offset)}"
        for each in (found, truth)
    ]
    return (
        f"by their metadata the voxels (z, y, x) of {found.address} are of {places[0]}, those of {truth.address} of "
        f"{places[1]}; if that is so, voxels of one index are not the same place, and the scores mean nothing"
    )


def check_truth(truth: Volume, region: Block, *, linked: bool) -> None:
    """Make sure that something can be learned from a ground truth.

    Parameters
    ----------
    truth, region
        As `look_at` takes them.
    linked
        Whether it is to tell which objects go on from slice to slice.

    Raises
    ------
    InputError
        If it holds intensities, or does not tell what it is to.
    """
    look = look_at(truth, region)
    check_labels(truth, look)
    boxes = Grid(region.shape, BOX) if region.size else None
    if boxes and not any(truth.read_labels(boxes.block(index).moved(region.begin)).any() for index in boxes):
        raise InputError(f"{truth.address} is 0 everywhere in {region}, so nothing is annotated there; give labels")
    if linked and (reason := _sliced(truth, look)):
        raise InputError(
            f"{reason}, so it would teach to cut every neuron between slices; give one whose neurons keep their label "
            "through the slices, or give --set segment.mode=2d"
        )


def sliced_text(truth: Volume, look: Look) -> str:
    """Return a line that warns of a ground truth in which every slice was labelled by itself; empty where none is."""
    reason = _sliced(truth, look)
    return reason and (
        f"{reason}, so every neuron that goes on counts as a merge and scores in 3d mean nothing; give --mode 2d, or a "
        "ground truth whose neurons keep their label through the slices"
    )


def _sliced(truth: Volume, look: Look) -> str:
    """Return by what the objects of a ground truth seem to end with their slice; empty where they do not."""
    if look.linked is None or look.linked >= LINKED:
        return ""
    return (
        f"objects of {truth.address} end with their slice ({look.linked:.0%} of the voxels have the label of the next "
        "slice)"
    )
