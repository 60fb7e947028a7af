"""The table that all metrics are computed from: how many voxels each pair of labels shares.

Tables of disjoint blocks merge to the table of the whole volume exactly, in any order, so a segmentation
can be scored without being in memory at once.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vimvol.pairs import Pairs


@dataclass(frozen=True, slots=True, eq=False)
class Contingency:
    """Numbers of voxels that a segment and a ground-truth object share, sorted by (seg, gt), each pair once.

    Attributes
    ----------
    seg, gt
        (N,) uint64, labels of the segmentation and of the ground truth.
    count
        (N,) int64, voxels; at least 1.
    """

    seg: NDArray[np.uint64]
    gt: NDArray[np.uint64]
    count: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.count)

    @property
    def total(self) -> int:
        """Number of voxels."""
        return int(self.count.sum())

    @classmethod
    def from_arrays(
        cls, seg: NDArray[np.integer], gt: NDArray[np.integer], ignore_gt: Collection[int] = (0,)
    ) -> Contingency:
        """Count the voxels of two label arrays.

        Parameters
        ----------
        seg, gt
            Non-negative integers of one shape, any number of axes.
        ignore_gt
            Labels of the ground truth whose voxels are left out.

        Raises
        ------
        ValueError
            If the shapes differ or an array holds no integers.
        """
        if seg.shape != gt.shape:
            raise ValueError(f"segmentation of shape {seg.shape} and ground truth of shape {gt.shape} do not match")
        if not (np.issubdtype(seg.dtype, np.integer) and np.issubdtype(gt.dtype, np.integer)):
            raise ValueError(f"labels of dtype {seg.dtype} and {gt.dtype} are no integers")
        a, b = seg.ravel(), gt.ravel()
        if a.size == 0:
            return cls.merge([])
        # neighbours along x mostly agree, so runs of equal pairs are counted first: a tenth of the voxels is sorted
        first = np.ones(a.size, bool)
        first[1:] = (a[1:] != a[:-1]) | (b[1:] != b[:-1])
        starts = np.flatnonzero(first)
        length = np.diff(starts, append=a.size)
        segments, objects = a[starts].astype(np.uint64), b[starts].astype(np.uint64)
        if ignore_gt:
            counted = ~np.isin(objects, np.array(sorted(ignore_gt), np.uint64))
            segments, objects, length = segments[counted], objects[counted], length[counted]
        return _collect(segments, objects, length)

    @classmethod
    def merge(cls, tables: Iterable[Contingency]) -> Contingency:
        """Merge tables of disjoint blocks into one; exact, whatever their order."""
        parts = list(tables)
        return _collect(
            np.concatenate([np.empty(0, np.uint64), *(part.seg for part in parts)]),
            np.concatenate([np.empty(0, np.uint64), *(part.gt for part in parts)]),
            np.concatenate([np.empty(0, np.int64), *(part.count for part in parts)]),
        )

    def seg_sizes(self) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
        """Return the segments, ascending, and their voxels."""
        return _sizes(self.seg, self.count)

    def gt_sizes(self) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
        """Return the ground-truth objects, ascending, and their voxels."""
        return _sizes(self.gt, self.count)

    def without_small(self, min_size: int) -> Contingency:
        """Drop the voxels of small ground-truth objects, then call small segments background (0).

        Parameters
        ----------
        min_size
            Voxels below which an object or segment is small; a segment is measured in the voxels that remain.
        """
        objects, sizes = self.gt_sizes()
        large = np.isin(self.gt, objects[sizes >= min_size])
        seg, gt, count = self.seg[large], self.gt[large], self.count[large]
        segments, sizes = _sizes(seg, count)
        seg = np.where(np.isin(seg, segments[sizes >= min_size]), seg, np.uint64(0))
        return _collect(seg, gt, count)


def _collect(seg: NDArray[np.uint64], gt: NDArray[np.uint64], count: NDArray[np.integer]) -> Contingency:
    """Sort pairs and add up the counts of equal ones."""
    pairs = Pairs.of(seg, gt)
    return Contingency(pairs.u, pairs.v, pairs.merged(count.astype(np.int64)))


def _sizes(labels: NDArray[np.uint64], count: NDArray[np.int64]) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    ids, inverse = np.unique(labels, return_inverse=True)
    sizes = np.zeros(len(ids), np.int64)
    np.add.at(sizes, inverse, count)
    return ids, sizes
