"""The edges of a region adjacency graph as a table with exact integer statistics.

An edge joins two fragments that share voxel faces; its statistics run over those voxel pairs, the pairs within a slice
apart from those across slices: of anisotropic data they tell different things. All sums are integers, so tables of
blocks merge to the table of the whole volume, bit for bit, in any order and for any blocks.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from vimvol.pairs import Pairs

GRAPH_FORMAT = 5
"""Version of the tables of the graph and of what they measure; part of the keys of their stage and of those that
follow, and written into files of learned costs, which mean nothing for other features."""

WITHIN, ACROSS = 0, 1
"""First index of a statistic: of pairs within a slice (neighbours along y or x), or across slices (along z)."""

BINS = 16
"""Bins of a histogram, each 32 steps of a pair's 0..510 wide."""

HIGHEST = 510
"""Largest sum of two voxels' boundaries."""

_DTYPES = {
    "u": np.uint64,
    "v": np.uint64,
    "counts": np.int64,
    "totals": np.int64,
    "squares": np.int64,
    "minima": np.uint16,
    "maxima": np.uint16,
    "histograms": np.uint32,
}


@dataclass(frozen=True, slots=True, eq=False)
class EdgeTable:
    """Edges between fragments, sorted by (u, v), each once.

    The value of a voxel pair is the sum of the two boundaries, 0..510 for a probability of 0..1, and 0 where both tiles
    see one fragment on both sides of the face between them (`vimvol.segment.faces`). The first axis of a
    statistic is `WITHIN` or `ACROSS`, the last axis the edge.

    Attributes
    ----------
    u, v
        (E,) uint64, the fragments; ``0 < u < v``.
    counts
        (2, E) int64, number of pairs. With fragments of single slices, those across slices are the area by which two
        fragments overlap.
    totals, squares
        (2, E) int64, sums over the pairs of their values, and of the squares of these.
    minima, maxima
        (2, E) uint16, extremes of the values; 510 and 0 where there is no pair.
    histograms
        (2, BINS, E) uint32, pairs by value, 32 values a bin.
    """

    u: NDArray[np.uint64]
    v: NDArray[np.uint64]
    counts: NDArray[np.int64]
    totals: NDArray[np.int64]
    squares: NDArray[np.int64]
    minima: NDArray[np.uint16]
    maxima: NDArray[np.uint16]
    histograms: NDArray[np.uint32]

    def __len__(self) -> int:
        return len(self.u)

    @property
    def uv(self) -> NDArray[np.uint64]:
        """(E, 2) uint64, the two fragments of every edge."""
        return np.stack([self.u, self.v], axis=1)

    @property
    def count(self) -> NDArray[np.int64]:
        """(E,) int64, number of voxel pairs, at least 1."""
        return np.asarray(self.counts.sum(axis=0))

    def mean(self) -> NDArray[np.float64]:
        """Return the mean boundary probability of every edge, in [0, 1]."""
        return np.asarray(self.totals.sum(axis=0) / (HIGHEST * self.count))

    def columns(self) -> dict[str, NDArray[np.generic]]:
        """Return the columns by name, to be stored."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def renumbered(self, ids: NDArray[np.uint64]) -> EdgeTable:
        """Return the table with fragment ``i`` called ``ids[i - 1]``; ``ids`` ascend, so edges stay in order."""
        return EdgeTable.from_columns({**self.columns(), "u": ids[self.u - 1], "v": ids[self.v - 1]})

    @classmethod
    def from_columns(cls, columns: Mapping[str, NDArray[np.generic]]) -> EdgeTable:
        """Return the table of stored columns; the inverse of `columns`.

        Raises
        ------
        ValueError
            If a column is missing or the lengths differ.
        """
        missing = [name for name in _DTYPES if name not in columns]
        if missing:
            raise ValueError(f"edge table has no column {missing[0]!r}; it holds {', '.join(columns) or 'none'}")
        if len({columns[name].shape[-1] for name in _DTYPES}) > 1:
            raise ValueError("the columns of the edge table have different lengths")
        return cls(**{name: np.asarray(columns[name], dtype) for name, dtype in _DTYPES.items()})

    @classmethod
    def empty(cls) -> EdgeTable:
        """Return a table without edges."""
        leading: dict[str, tuple[int, ...]] = {"u": (), "v": (), "histograms": (2, BINS)}
        return cls.from_columns({name: np.empty((*leading.get(name, (2,)), 0), d) for name, d in _DTYPES.items()})


def merge(tables: Iterable[EdgeTable]) -> EdgeTable:
    """Merge tables of disjoint blocks, or of merged blocks, into one; exact, whatever their order."""
    parts = [table for table in tables if len(table)]
    if not parts:
        return EdgeTable.empty()
    pairs = Pairs.of(np.concatenate([part.u for part in parts]), np.concatenate([part.v for part in parts]))
    by = dict.fromkeys(("counts", "totals", "squares", "histograms"), np.add)
    columns: dict[str, NDArray[np.generic]] = {"u": pairs.u, "v": pairs.v}
    for name, reduce in {**by, "minima": np.minimum, "maxima": np.maximum}.items():
        columns[name] = pairs.merged(np.concatenate([getattr(part, name) for part in parts], axis=-1), reduce)
    return EdgeTable.from_columns(columns)
