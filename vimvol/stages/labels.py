"""What a volume of labels looks like, by a sample: whether its objects go on from slice to slice."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vimvol.geometry import Block
from vimvol.io import Volume

PAIRS = 8
"""Pairs of neighbouring slices that are looked at, evenly over a region, in its middle."""
WIDTH = 512
"""Voxels (y, x) of them at most."""
LINKED = 0.4
"""Part of the voxels below which objects end with their slice. Of neurons that keep their label through sections of
50 nm it is above 0.8; of objects that are numbered anew in every slice, from 1, chance makes it 0.3 and less."""


@dataclass(frozen=True)
class Look:
    """What a sample of a volume shows.

    Attributes
    ----------
    linked
        Part of the voxels that have the label of their neighbour in the next slice, where both have one; none: no such
        neighbours were seen.
    """

    linked: float | None


def look_at(volume: Volume, region: Block) -> Look:
    """Look at a few pairs of slices of a volume of labels, as it is stored.

    Raises
    ------
    InputError
        If a label is negative.
    StorageError
        If it cannot be read.
    """
    middle = [(b + max(0, e - b - WIDTH) // 2, e) for b, e in zip(region.begin[1:], region.end[1:], strict=True)]
    plane = [(begin, min(begin + WIDTH, end)) for begin, end in middle]
    first, last = region.begin[0], region.end[0] - 2
    both = same = 0
    for z in sorted(set(np.linspace(first, last, PAIRS).round().astype(int).tolist())) if last >= first else ():
        (y, y_end), (x, x_end) = plane
        here, there = volume.read_labels(Block((z, y, x), (z + 2, y_end, x_end)))
        labelled = (here > 0) & (there > 0)
        both += int(labelled.sum())
        same += int((labelled & (here == there)).sum())
    return Look(same / both if both else None)


def sliced_text(truth: Volume, look: Look) -> str:
    """Return a line that warns of a ground truth in which every slice was labelled by itself; empty where none is."""
    if look.linked is None or look.linked >= LINKED:
        return ""
    return (
        f"objects of {truth.address} end with their slice ({look.linked:.0%} of the voxels have the label of the next "
        "slice), so every neuron that goes on counts as a merge and scores in 3d mean nothing; give --mode 2d, or a "
        "ground truth whose neurons keep their label through the slices"
    )
