"""Which objects a segmentation splits, and which of its segments merge objects, and where: a list to work through."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from vimvol.evaluate.contingency import Contingency

COLUMNS = (
    "kind",
    "id",
    "voxels",
    "parts",
    "bits",
    "largest",
    "largest_voxels",
    "second",
    "second_voxels",
    "z",
    "y",
    "x",
)
"""Columns of the rows of `largest_errors`."""


@dataclass(frozen=True, slots=True, eq=False)
class Places:
    """A voxel well inside every pair of segment and object: the middle of the pair's longest run along x.

    Attributes
    ----------
    seg, gt
        (N,) uint64, sorted by (seg, gt), each pair once.
    length
        (N,) int64, voxels of the run.
    voxel
        (N, 3) int64, its middle, (z, y, x) in the volume.
    """

    seg: NDArray[np.uint64]
    gt: NDArray[np.uint64]
    length: NDArray[np.int64]
    voxel: NDArray[np.int64]

    @classmethod
    def from_arrays(
        cls,
        seg: NDArray[np.integer],
        gt: NDArray[np.integer],
        begin: tuple[int, ...] = (0, 0, 0),
        ignore_gt: Collection[int] = (0,),
    ) -> Places:
        """Find the places of a block.

        Parameters
        ----------
        seg, gt
            (Z, Y, X) non-negative integers.
        begin
            First voxel of the block in the volume.
        ignore_gt
            Labels of the ground truth whose voxels count for nothing.
        """
        first = np.ones(seg.shape, bool)
        first[..., 1:] = (seg[..., 1:] != seg[..., :-1]) | (gt[..., 1:] != gt[..., :-1])
        starts = np.flatnonzero(first)
        length = np.diff(starts, append=seg.size)
        segments, objects = (a.ravel()[starts].astype(np.uint64) for a in (seg, gt))
        counted = ~np.isin(objects, np.array(sorted(ignore_gt), np.uint64))
        middle = (starts + length // 2)[counted]
        voxel = np.stack(np.unravel_index(middle, seg.shape), axis=1) + np.array(begin)
        return _longest(segments[counted], objects[counted], length[counted], voxel.astype(np.int64))

    @classmethod
    def merge(cls, places: Iterable[Places]) -> Places:
        """Keep the longest run of every pair; of runs of one length, the first in the volume."""
        parts = list(places)
        none = np.empty(0, np.int64)
        return _longest(
            np.concatenate([none.astype(np.uint64), *(p.seg for p in parts)]),
            np.concatenate([none.astype(np.uint64), *(p.gt for p in parts)]),
            np.concatenate([none, *(p.length for p in parts)]),
            np.concatenate([none.reshape(0, 3), *(p.voxel for p in parts)]),
        )

    def of(self, seg: int, gt: int) -> tuple[int, ...]:
        """Return the voxel (z, y, x) of a pair that is there."""
        begin, end = np.searchsorted(self.seg, np.array([seg, seg], np.uint64) + np.array([0, 1], np.uint64))
        row = begin + np.searchsorted(self.gt[begin:end], np.uint64(gt))
        return tuple(int(i) for i in self.voxel[row])


def largest_errors(table: Contingency, places: Places, limit: int = 1000) -> list[dict[str, Any]]:
    """List the objects that are split and the segments that merge objects, the costliest first.

    Parameters
    ----------
    table
        Voxels of every pair, without those that are not judged.
    places
        Of at least the same pairs.
    limit
        Most rows of each kind.

    Returns
    -------
    list of dict
        The keys of `COLUMNS`. ``bits`` is what the object or segment adds to ``voi_split`` or ``voi_merge``: over all
        rows they add up to the metric. ``largest`` and ``second`` are the largest of its ``parts``, and (z, y, x) is a
        voxel inside the second: the place to look at.
    """
    return [*_errors(table, places, "split", limit), *_errors(table, places, "merge", limit)]


def _errors(table: Contingency, places: Places, kind: Literal["split", "merge"], limit: int) -> list[dict[str, Any]]:
    whole, part = (table.gt, table.seg) if kind == "split" else (table.seg, table.gt)
    order = np.lexsort((part, -table.count, whole))
    whole, part, count = whole[order], part[order], table.count[order]
    starts = np.flatnonzero(np.concatenate([np.ones(min(1, len(whole)), bool), whole[1:] != whole[:-1]]))
    if not len(starts):
        return []
    parts = np.diff(starts, append=len(whole))
    voxels = np.add.reduceat(count, starts)
    share = count / np.repeat(voxels, parts)
    bits = np.add.reduceat(-count * np.log2(share), starts) / count.sum()
    wrong = np.flatnonzero(parts > 1)
    rows = []
    for i in wrong[np.argsort(-bits[wrong], kind="stable")][:limit]:
        at = starts[i]
        pair = (part[at + 1], whole[at]) if kind == "split" else (whole[at], part[at + 1])
        values = (kind, whole[at], voxels[i], parts[i], bits[i], part[at], count[at], part[at + 1], count[at + 1])
        plain = [v.item() if isinstance(v, np.generic) else v for v in values]
        rows.append(dict(zip(COLUMNS, [*plain, *places.of(*pair)], strict=True)))
    return rows


def _longest(
    seg: NDArray[np.uint64], gt: NDArray[np.uint64], length: NDArray[np.int64], voxel: NDArray[np.int64]
) -> Places:
    order = np.lexsort((voxel[:, 2], voxel[:, 1], voxel[:, 0], -length, gt, seg))
    seg, gt = seg[order], gt[order]
    first = np.ones(len(seg), bool)
    first[1:] = (seg[1:] != seg[:-1]) | (gt[1:] != gt[:-1])
    kept = order[first]
    return Places(seg[first], gt[first], length[kept], voxel[kept])
