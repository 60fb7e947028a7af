"""Tables by pairs of ids: their rows in the order of pairs, and those of equal pairs made one.

Edges and their costs, contacts of segments, voxels that two labels share: each is a table of pairs (u, v) with columns
of numbers, and the tables of blocks become that of the volume where rows of equal pairs are merged.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Number = TypeVar("Number", bound=np.generic)


@dataclass(frozen=True, slots=True, eq=False)
class Pairs:
    """The pairs of N rows, sorted by (u, v), each once.

    Attributes
    ----------
    u, v
        (P,) uint64, the pairs.
    order
        (N,) the rows by pair; those of equal pairs stay in their order.
    starts
        (P,) where in this order the rows of each pair begin.
    """

    u: NDArray[np.uint64]
    v: NDArray[np.uint64]
    order: NDArray[np.intp]
    starts: NDArray[np.intp]

    @classmethod
    def of(cls, u: NDArray[np.uint64], v: NDArray[np.uint64]) -> Pairs:
        """Return the pairs of rows in any order, in which a pair may stand several times."""
        order = pair_order(u, v)
        u, v = u[order], v[order]
        first = np.ones(len(u), bool)
        first[1:] = (u[1:] != u[:-1]) | (v[1:] != v[:-1])
        starts = np.flatnonzero(first)
        return cls(u[starts], v[starts], order, starts)

    def merged(self, column: NDArray[Number], by: np.ufunc = np.add) -> NDArray[Number]:
        """Return a column (..., N) with one number a pair, (..., P) of the same type: its rows' by a function."""
        rows = np.take(column, self.order, axis=-1)
        return np.asarray(by.reduceat(rows, self.starts, axis=-1, dtype=column.dtype))

    def first(self, column: NDArray[Number]) -> NDArray[Number]:
        """Return a column (N,) with one number a pair, (P,): that of its first row."""
        return column[self.order[self.starts]]


def pair_order(u: NDArray[np.uint64], v: NDArray[np.uint64]) -> NDArray[np.intp]:
    """Return the order that sorts pairs by (u, v); equal pairs keep theirs."""
    if len(u) and max(int(u.max()), int(v.max())) < 2**32:
        # one key is sorted several times as fast as two, and tables in a row, each sorted, ten times as fast by merging
        return np.argsort((u << np.uint64(32)) | v, kind="stable")
    return np.lexsort((v, u))
