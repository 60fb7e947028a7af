"""Seams: whether more segments end at the planes where blocks meet than elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

SMALLEST = 16
"""Voxels of a plane that a segment must have there to count: slivers come and go everywhere."""
SIGNIFICANCE = 0.01
"""Probability of a false alarm, over all planes that are tested together."""
RELEVANCE = 0.02
"""Part of the segments by which endings at a seam must exceed those elsewhere; less is not seen in a segmentation."""


@dataclass(frozen=True, slots=True)
class Endings:
    """Segments that touch a plane, on both sides of it.

    Attributes
    ----------
    ended
        Those that nowhere go on across it.
    total
        All of them.
    """

    ended: int
    total: int

    @property
    def rate(self) -> float:
        """Part of the segments that end; 0 without any."""
        return self.ended / self.total if self.total else 0.0

    def __add__(self, other: Endings) -> Endings:
        return Endings(self.ended + other.ended, self.total + other.total)


def endings(low: NDArray[np.integer], high: NDArray[np.integer], smallest: int = SMALLEST) -> Endings:
    """Count the segments that end at the plane between two slices.

    Parameters
    ----------
    low, high
        (N, M) labels of the voxels right before and behind the plane; 0 is background.
    smallest
        Voxels that a segment must have in its slice to count.

    Raises
    ------
    ValueError
        If the shapes differ.
    """
    if low.shape != high.shape:
        raise ValueError(f"slices of shapes {low.shape} and {high.shape} are not the two sides of a plane")
    across = np.unique(low[(low == high) & (low > 0)])
    found = Endings(0, 0)
    for side in (low, high):
        ids, voxels = np.unique(side, return_counts=True)
        ids = ids[(ids > 0) & (voxels >= smallest)]
        found += Endings(int((~np.isin(ids, across)).sum()), len(ids))
    return found


@dataclass(frozen=True, slots=True)
class Verdict:
    """The comparison of a family of planes with planes between them.

    Attributes
    ----------
    seam, interior
        Segments at the planes, and on the average of the planes between them that they are compared with.
    p
        Probability of so many endings at the planes if they were no seams (Fisher's exact test, one-sided).
    passed
        Whether there is no seam: the excess is not significant, or too small to be seen.
    """

    seam: Endings
    interior: Endings
    p: float
    passed: bool


def judge(seams: Sequence[Endings], interiors: Sequence[Endings], planes: int, tests: int) -> Verdict:
    """Tell whether more segments end at a family of planes than between them.

    Parameters
    ----------
    seams
        Endings at places of the planes.
    interiors
        Endings at planes near these places.
    planes
        Planes that ``interiors`` hold for each one of ``seams``. Neighbouring planes meet the same segments, so that
        they count as one.
    tests
        Families that are tested together; the significance is divided among them.
    """
    seam, interior = sum(seams, Endings(0, 0)), sum(interiors, Endings(0, 0))
    once = Endings(round(interior.ended / max(planes, 1)), round(interior.total / max(planes, 1)))
    table = [[seam.ended, seam.total - seam.ended], [once.ended, once.total - once.ended]]
    p = float(stats.fisher_exact(table, alternative="greater").pvalue) if seam.total and once.total else 1.0
    passed = p > SIGNIFICANCE / max(tests, 1) or seam.rate - interior.rate < RELEVANCE
    return Verdict(seam, once, p, passed)
