"""The region adjacency graph as a table of edges with exact integer statistics.

An edge joins two fragments that share voxel faces; its statistics run over those voxel pairs. Every pair
belongs to the block that holds its voxel nearer to the origin. All sums are integers, so tables of
blocks merge to the table of the whole volume, bit for bit, in any order and for any blocks.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields

import bioimage_cpp as bic
import numpy as np
from numpy.typing import NDArray

from vimvol.geometry import Block

# The library averages in float64, one pair after the other. A mean of n values up to 255 is then off by less than
# 255 n 2^-53, twice n times the mean by less than 255 n^2 2^-52, and rounding gives the integer sum as long as that is
# below 1/2: up to 2.9 million pairs.
_EXACT_PAIRS = 2_900_000

_DTYPES = {
    "u": np.uint64,
    "v": np.uint64,
    "count": np.int64,
    "total": np.int64,
    "minimum": np.uint16,
    "maximum": np.uint16,
}


@dataclass(frozen=True, slots=True, eq=False)
class EdgeTable:
    """Edges between fragments, sorted by (u, v), each once.

    Attributes
    ----------
    u, v
        (E,) uint64, the fragments; ``0 < u < v``.
    count
        (E,) int64, number of voxel pairs.
    total
        (E,) int64, sum over the pairs of the two voxels' boundaries, each pair 0..510.
    minimum, maximum
        (E,) uint16, extremes of a pair's sum, 0..510.
    """

    u: NDArray[np.uint64]
    v: NDArray[np.uint64]
    count: NDArray[np.int64]
    total: NDArray[np.int64]
    minimum: NDArray[np.uint16]
    maximum: NDArray[np.uint16]

    def __len__(self) -> int:
        return len(self.u)

    @property
    def uv(self) -> NDArray[np.uint64]:
        """(E, 2) uint64, the two fragments of every edge."""
        return np.stack([self.u, self.v], axis=1)

    def mean(self) -> NDArray[np.float64]:
        """Return the mean boundary probability of every edge, in [0, 1]."""
        return self.total / (510 * self.count)

    def columns(self) -> dict[str, NDArray[np.generic]]:
        """Return the columns by name, to be stored."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

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
        if len({len(columns[name]) for name in _DTYPES}) > 1:
            raise ValueError("the columns of the edge table have different lengths")
        return cls(**{name: np.asarray(columns[name], dtype) for name, dtype in _DTYPES.items()})

    @classmethod
    def empty(cls) -> EdgeTable:
        """Return a table without edges."""
        return cls.from_columns({name: np.empty(0, dtype) for name, dtype in _DTYPES.items()})


def edge_table(labels: NDArray[np.uint64] | NDArray[np.int64], boundaries: NDArray[np.uint8], own: Block) -> EdgeTable:
    """Collect the edges of a block.

    Parameters
    ----------
    labels
        (Z, Y, X) or (Y, X) uint64 or int64, fragments by global id, 0 outside: the block and a halo of one voxel away
        from the origin along every axis, unless the volume ends there.
    boundaries
        uint8, the same shape.
    own
        The block in coordinates of ``labels``. It owns the pairs whose voxel nearer to the origin lies inside.

    Raises
    ------
    ValueError
        If the shapes differ, ``boundaries`` are not uint8 or the block lies outside.
    """
    if labels.shape != boundaries.shape or boundaries.dtype != np.uint8:
        raise ValueError(
            f"labels {labels.shape} and boundaries {boundaries.shape} {boundaries.dtype} are not one window with uint8"
        )
    if not Block.whole(labels.shape).contains(own):
        raise ValueError(f"block {own} lies outside a window of shape {labels.shape}")
    if own.size == 0:
        return EdgeTable.empty()
    edges, stats = bic.graph.distributed.block_edge_map_stats(
        labels, boundaries, own.begin, own.shape, number_of_threads=1
    )
    if len(stats) and stats[:, 0].max() > _EXACT_PAIRS:
        return merge([edge_table(labels, boundaries, half) for half in _halves(own)])
    inside = edges[:, 0] > 0
    edges, stats = edges[inside], stats[inside]
    count, mean, _, minimum, maximum = stats.T
    return EdgeTable.from_columns(
        {
            "u": np.ascontiguousarray(edges[:, 0]),
            "v": np.ascontiguousarray(edges[:, 1]),
            "count": count.astype(np.int64),
            "total": np.rint(2 * mean * count).astype(np.int64),
            "minimum": np.rint(2 * minimum).astype(np.uint16),
            "maximum": np.rint(2 * maximum).astype(np.uint16),
        }
    )


def merge(tables: Iterable[EdgeTable]) -> EdgeTable:
    """Merge tables of disjoint blocks, or of merged blocks, into one; exact, whatever their order."""
    parts = [table for table in tables if len(table)]
    if not parts:
        return EdgeTable.empty()
    u = np.concatenate([part.u for part in parts])
    v = np.concatenate([part.v for part in parts])
    order = pair_order(u, v)
    u, v = u[order], v[order]
    first = np.ones(len(u), bool)
    first[1:] = (u[1:] != u[:-1]) | (v[1:] != v[:-1])
    starts = np.flatnonzero(first)

    def reduce(by: np.ufunc, name: str) -> NDArray[np.generic]:
        column = np.concatenate([getattr(part, name) for part in parts])[order]
        return np.asarray(by.reduceat(column, starts))

    return EdgeTable.from_columns(
        {
            "u": u[starts],
            "v": v[starts],
            "count": reduce(np.add, "count"),
            "total": reduce(np.add, "total"),
            "minimum": reduce(np.minimum, "minimum"),
            "maximum": reduce(np.maximum, "maximum"),
        }
    )


def pair_order(u: NDArray[np.uint64], v: NDArray[np.uint64]) -> NDArray[np.intp]:
    """Return the order that sorts pairs by (u, v); equal pairs stay in no particular order."""
    if len(u) and max(int(u.max()), int(v.max())) < 2**32:
        # one key is sorted several times as fast as two
        return np.argsort((u << np.uint64(32)) | v)
    return np.lexsort((v, u))


def _halves(block: Block) -> tuple[Block, Block]:
    """Cut a block in the middle of its longest axis."""
    axis = int(np.argmax(block.shape))
    middle = block.begin[axis] + block.shape[axis] // 2
    end = tuple(middle if a == axis else e for a, e in enumerate(block.end))
    begin = tuple(middle if a == axis else b for a, b in enumerate(block.begin))
    return Block(block.begin, end), Block(begin, block.end)
