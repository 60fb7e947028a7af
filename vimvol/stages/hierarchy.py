"""A graph in tables on the disk, divided into cells at every level of an out-of-core multicut.

The cells are anchored to the volume and know nothing of the blocks of other stages, so neither the blocks nor the
number of workers change the result. Which tasks run over them: `vimvol.stages.levels`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from vimvol.engine.plan import StagePlan
from vimvol.geometry import Block, Grid, Index
from vimvol.io.arrays import read_box
from vimvol.io.recent import Recent
from vimvol.io.tables import read_table, write_table
from vimvol.segment.multicut.division import CostTable, Groups, merge_costs, split_rim

Ids = npt.NDArray[np.uint64]

FEW_TILES = 1 << 16
"""Tiles whose offsets are read at once, half a megabyte; a box of more tiles may be a small part of them."""


@dataclass(frozen=True)
class Places:
    """Finds the cell of a fragment.

    Attributes
    ----------
    offsets
        (n + 1,) uint64, ascending, fragments in all tiles before each known tile, and before the one after the last.
    cells
        (n + 2,) int64, the flat number of the cell of each known tile; -1 before the first and after the last.
    """

    offsets: Ids
    cells: npt.NDArray[np.int64]

    def cells_of(self, ids: Ids) -> npt.NDArray[np.int64]:
        """Return the flat number of the cell of every fragment; -1 where its tile is not known."""
        return self.cells[np.searchsorted(self.offsets, ids - np.uint64(1), side="right")]


@dataclass(frozen=True)
class Hierarchy:
    """A graph in tables, and how it is divided.

    Attributes
    ----------
    folder
        Group of the tables of all levels.
    source
        Group of the tables of all edges with their costs; every edge stands in one of them.
    blocks
        The boxes that these tables are named by. An edge stands in a box that holds its first or its second fragment,
        or a part of them.
    tiles
        The tiles of the watershed.
    offsets
        Array of the fragments in all tiles before a tile.
    cell
        Voxels (z, y, x) of a cell of the lowest level, whole tiles.
    margin
        Edges between a cell and the farthest nodes of its subproblem.
    solver
        Solver of the subproblems.
    least
        Edges that cells which are not empty hold on the mean, below which their level is not solved.
    recent
        Tables that neighbouring cells read, too.
    """

    folder: str
    source: str
    blocks: StagePlan
    tiles: Grid
    offsets: str
    cell: Index
    margin: int
    solver: str
    least: int = 0
    recent: Recent = field(default_factory=Recent, repr=False, compare=False)

    def cells(self, level: int) -> Grid:
        """Return the cells of a level."""
        extent = zip(self.tiles.shape, self.cell, strict=True)
        return Grid(self.tiles.shape, tuple(_doubled(s, c, level) for s, c in extent))

    def filled(self, blocks: Iterable[Block]) -> npt.NDArray[np.bool_]:
        """Tell in which cells of level 0 some blocks lie, an array of their counts."""
        cells = self.cells(0)
        found = np.zeros(cells.counts, bool)
        for block in blocks:
            begin = (b // c for b, c in zip(block.begin, cells.cell, strict=True))
            end = (-(-e // c) for e, c in zip(block.end, cells.cell, strict=True))
            found[tuple(map(slice, begin, end))] = True
        return found

    def lowest(self, edges: int, filled: npt.NDArray[np.bool_]) -> int:
        """Return the lowest level that is worth a solve of each cell, for so many edges in the filled cells.

        A subproblem is its cell and a margin. Where a cell holds a few thousand edges, the margin is larger than it,
        and all subproblems take longer than the whole graph.
        """
        level = 0
        while edges < self.least * filled.sum() and (wider := _halved(filled)).sum() > 1:
            filled, level = wider, level + 1
        return level

    def plan(self, stage: str, level: int) -> StagePlan:
        """Return the tasks of a stage, one a cell."""
        cells = self.cells(level)
        return StagePlan(f"{stage} {level}", cells, cells.cell)

    def places(self, level: int, box: Block) -> Places:
        """Return what finds the cells of fragments in a box."""
        indices = list(self.tiles.overlapping(box))
        first, last = self.tiles.flat(indices[0]), self.tiles.flat(indices[-1])
        cells = self.cells(level)
        ratio = [c // t for c, t in zip(cells.cell, self.tiles.cell, strict=True)]
        tiles = np.unravel_index(np.arange(first, last + 1), self.tiles.counts)
        found = np.ravel_multi_index([tile // r for tile, r in zip(tiles, ratio, strict=True)], cells.counts)
        return Places(self._offsets(first, last + 2), np.concatenate([[-1], found, [-1]]))

    def read(self, what: str, level: int, cell: int) -> dict[str, npt.NDArray[Any]]:
        """Read a table of a cell."""
        folder, name = f"{self.folder}/{level}/{what}", str(cell)
        return self.recent.get(f"{folder}/{name}", lambda: read_table(folder, name))

    def write(self, what: str, level: int, cell: int, columns: dict[str, npt.NDArray[Any]]) -> None:
        """Write a table of a cell."""
        write_table(f"{self.folder}/{level}/{what}", str(cell), columns)

    def edges(self, level: int, cell: int, *, whole: bool) -> CostTable:
        """Read the edges of a cell: its rim, or the whole of them."""
        rim = CostTable.from_columns(self.read("rim", level, cell))
        if not whole:
            return rim
        return merge_costs([rim, CostTable.from_columns(self.read("interior", level, cell))])

    def groups(self, level: int, cells: Iterable[int]) -> Groups:
        """Read what was joined in cells of a level."""
        tables = [self.read("groups", level, cell) for cell in cells]
        node = np.concatenate([table["node"] for table in tables])
        group = np.concatenate([table["group"] for table in tables])
        order = np.argsort(node)
        return Groups(node[order], group[order])

    def store(self, level: int, cell: int, edges: CostTable, places: Places) -> dict[str, Any]:
        """Write the edges of a cell; return how many it owns, and the sum of their costs."""
        inside = [places.cells_of(ends) == cell for ends in (edges.u, edges.v)]
        rim, interior = split_rim(edges, inside[0], inside[1], self.margin)
        self.write("rim", level, cell, rim.columns())
        self.write("interior", level, cell, interior.columns())
        own = inside[0]
        return {"edges": int(own.sum()), "cost": int(edges.cost[own].sum()), "rim": len(rim)}

    def _offsets(self, begin: int, end: int) -> Ids:
        """Return the offsets of some tiles; where there are few tiles, from all of them, read once."""
        if (total := len(self.tiles) + 1) > FEW_TILES:
            return read_box(self.offsets, Block((begin,), (end,)))
        whole = self.recent.get(self.offsets, lambda: {"": read_box(self.offsets, Block((0,), (total,)))})
        return whole[""][begin:end]

    def own_edges(self, level: int) -> Iterable[CostTable]:
        """Yield all edges of a level, each once, cell by cell."""
        cells = self.cells(level)
        for index in cells:
            cell, box = cells.flat(index), cells.block(index)
            edges = self.edges(level, cell, whole=True)
            yield edges.where(self.places(level, box).cells_of(edges.u) == cell)


def _halved(filled: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Return which cells of the next level hold one that is filled."""
    for axis, count in enumerate(filled.shape):
        filled = np.logical_or.reduceat(filled, np.arange(0, count, 2), axis=axis)
    return filled


def _doubled(extent: int, cell: int, level: int) -> int:
    """Return the cell of a level along an axis; once it spans the volume it does not grow."""
    for _ in range(level):
        if cell >= extent:
            break
        cell *= 2
    return cell
