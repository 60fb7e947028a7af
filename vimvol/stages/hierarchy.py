"""Out-of-core multicut: level by level, one subproblem a task, every task with its own tables only.

The array code is `vimvol.segment.multicut.division`; this module says where its tables lie and in which order the
tasks run. A level has three stages: *decide* solves a subproblem for every cell, *contract* joins what all of them
agree on, *reduce* writes the tables of the next level's cells, 2 x 2 x 2 of this level's. The cells are anchored to
the volume and know nothing of the blocks of other stages, so neither the blocks nor the number of workers change the
result.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from vimvol.engine.ledger import Ledger, block_name, content_key
from vimvol.engine.objects import Objects
from vimvol.engine.plan import StagePlan
from vimvol.engine.run import Execution, run_stage
from vimvol.geometry import Block, Grid, Index
from vimvol.io.arrays import read_box
from vimvol.io.tables import read_table, write_table
from vimvol.segment.multicut.division import (
    UNIT,
    CostTable,
    Groups,
    contract,
    decide,
    merge_costs,
    reduce,
    split_rim,
)

Ids = npt.NDArray[np.uint64]


@dataclass(frozen=True)
class Places:
    """Finds the cell of a fragment.

    Attributes
    ----------
    tiles
        The tiles of the watershed; a fragment lies in one.
    cells
        The cells; unions of tiles.
    first
        Flat number of the first tile that is known.
    offsets
        (n + 1,) uint64, fragments in all tiles before each known tile, and before the one after the last.
    """

    tiles: Grid
    cells: Grid
    first: int
    offsets: Ids

    def cells_of(self, ids: Ids) -> npt.NDArray[np.int64]:
        """Return the flat number of the cell of every fragment; -1 where its tile is not known."""
        known = np.searchsorted(self.offsets, ids - np.uint64(1), side="right") - 1
        outside = (known < 0) | (known >= len(self.offsets) - 1)
        tile = np.unravel_index(np.where(outside, 0, known + self.first), self.tiles.counts)
        ratio = [c // t for c, t in zip(self.cells.cell, self.tiles.cell, strict=True)]
        cell = np.ravel_multi_index([t // r for t, r in zip(tile, ratio, strict=True)], self.cells.counts)
        return np.where(outside, np.int64(-1), cell.astype(np.int64))


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
    """

    folder: str
    source: str
    blocks: StagePlan
    tiles: Grid
    offsets: str
    cell: Index
    margin: int
    solver: str

    def cells(self, level: int) -> Grid:
        """Return the cells of a level."""
        extent = zip(self.tiles.shape, self.cell, strict=True)
        return Grid(self.tiles.shape, tuple(_doubled(s, c, level) for s, c in extent))

    def plan(self, stage: str, level: int) -> StagePlan:
        """Return the tasks of a stage, one a cell."""
        cells = self.cells(level)
        return StagePlan(f"{stage} {level}", cells, cells.cell)

    def places(self, level: int, box: Block) -> Places:
        """Return what finds the cells of fragments in a box."""
        indices = list(self.tiles.overlapping(box))
        first, last = self.tiles.flat(indices[0]), self.tiles.flat(indices[-1])
        return Places(self.tiles, self.cells(level), first, read_box(self.offsets, Block((first,), (last + 2,))))

    def read(self, what: str, level: int, cell: int) -> dict[str, npt.NDArray[Any]]:
        """Read a table of a cell."""
        return read_table(f"{self.folder}/{level}/{what}", str(cell))

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

    def own_edges(self, level: int) -> Iterable[CostTable]:
        """Yield all edges of a level, each once, cell by cell."""
        cells = self.cells(level)
        for index in cells:
            cell, box = cells.flat(index), cells.block(index)
            edges = self.edges(level, cell, whole=True)
            yield edges.where(self.places(level, box).cells_of(edges.u) == cell)


@dataclass(frozen=True)
class Collect:
    """Gathers the edges of a cell of the lowest level."""

    hierarchy: Hierarchy

    def __call__(self, block: Block) -> dict[str, Any]:
        """Read the tables of the blocks that the cell touches, write those of the cell."""
        hierarchy, cells = self.hierarchy, self.hierarchy.cells(0)
        cell = _flat(cells, block)
        places = hierarchy.places(0, block)
        found = []
        for name in _touching(hierarchy.blocks, block):
            edges = CostTable.from_columns(read_table(hierarchy.source, block_name(name)))
            found.append(edges.where((places.cells_of(edges.u) == cell) | (places.cells_of(edges.v) == cell)))
        return hierarchy.store(0, cell, merge_costs(found), places)


@dataclass(frozen=True)
class Decide:
    """Solves the subproblem of a cell."""

    hierarchy: Hierarchy
    level: int

    def __call__(self, block: Block) -> dict[str, Any]:
        """Write what the subproblem says of the edges in the cell and around it."""
        hierarchy, level = self.hierarchy, self.level
        cells = hierarchy.cells(level)
        cell = _flat(cells, block)
        around = _around(cells, block)
        tables = [hierarchy.edges(level, other, whole=other == cell) for other in around]
        edges = merge_costs(tables)
        places = hierarchy.places(level, _box(cells, around))
        u_cell, v_cell = (_only(places.cells_of(ends), around) for ends in (edges.u, edges.v))
        decisions = decide(edges, u_cell, v_cell, cell, hierarchy.margin, hierarchy.solver)
        hierarchy.write("joined", level, cell, {"uv": decisions.joined})
        hierarchy.write(
            "parted", level, cell, {"uv": decisions.parted, "cell": places.cells_of(decisions.parted[:, 0])}
        )
        return {"edges": len(edges)}


@dataclass(frozen=True)
class Contract:
    """Joins the nodes of a cell that all subproblems agree on."""

    hierarchy: Hierarchy
    level: int

    def __call__(self, block: Block) -> dict[str, Any]:
        """Write the groups of the cell."""
        hierarchy, level = self.hierarchy, self.level
        cells = hierarchy.cells(level)
        cell = _flat(cells, block)
        vetoes = []
        for other in _around(cells, block):
            table = hierarchy.read("parted", level, other)
            vetoes.append(table["uv"][table["cell"] == cell])
        groups = contract(hierarchy.read("joined", level, cell)["uv"], np.concatenate(vetoes))
        hierarchy.write("groups", level, cell, {"node": groups.node, "group": groups.group})
        return {"joined": len(groups.node)}


@dataclass(frozen=True)
class Reduce:
    """Makes the edges of a cell from those of the cells of the level below."""

    hierarchy: Hierarchy
    level: int

    def __call__(self, block: Block) -> dict[str, Any]:
        """Write the tables of the cell, a level higher than those read."""
        hierarchy, below = self.hierarchy, self.level - 1
        children = hierarchy.cells(below)
        own = [children.flat(index) for index in children.overlapping(block)]
        edges = merge_costs([hierarchy.edges(below, child, whole=True) for child in own])
        groups = hierarchy.groups(below, _around(children, block))
        cells = hierarchy.cells(self.level)
        return hierarchy.store(
            self.level, _flat(cells, block), reduce(edges, groups), hierarchy.places(self.level, block)
        )


@dataclass(frozen=True)
class LevelReport:
    """What is left at a level.

    Attributes
    ----------
    level
        Number of times that the graph was divided and reduced.
    edges
        Edges that are left.
    energy
        Summed costs of these edges: the energy if all of them were cut.
    """

    level: int
    edges: int
    energy: float


def climb(
    hierarchy: Hierarchy, key: str, ledgers: Objects, capacity: int, levels: int | None, execution: Execution
) -> list[LevelReport]:
    """Reduce the graph until few enough edges are left, or no further.

    Parameters
    ----------
    hierarchy
        The graph.
    key
        Digest of all that determines the tables of edges; see `vimvol.engine.ledger`.
    ledgers
        Where all ledgers are kept.
    capacity
        Edges that may be left.
    levels
        Levels to take whatever is left; none: as many as are needed.
    execution
        How tasks are run.

    Returns
    -------
    list of LevelReport
        One a level, the whole graph first; the last is that whose edges are left.
    """
    collected = content_key(key, hierarchy.tiles.cell, hierarchy.cell, hierarchy.margin)
    solved = content_key(collected, hierarchy.solver)

    def run(name: str, level: int, task: Collect | Decide | Contract | Reduce) -> Ledger:
        plan = hierarchy.plan(name, level)
        ledger = Ledger(ledgers, plan.name, collected if name == "collect" else solved)
        run_stage(plan, task, ledger, execution)
        return ledger

    reports = [_report(0, run("collect", 0, Collect(hierarchy)))]
    while len(reports) - 1 < levels if levels is not None else reports[-1].edges > capacity:
        level = len(reports) - 1
        if (level or levels is None) and len(hierarchy.cells(level)) == 1:
            break
        run("decide", level, Decide(hierarchy, level))
        run("contract", level, Contract(hierarchy, level))
        reports.append(_report(level + 1, run("reduce", level + 1, Reduce(hierarchy, level + 1))))
    return reports


def _report(level: int, ledger: Ledger) -> LevelReport:
    results = ledger.results().values()
    return LevelReport(level, sum(r["edges"] for r in results), sum(r["cost"] for r in results) * UNIT)


def _doubled(extent: int, cell: int, level: int) -> int:
    """Return the cell of a level along an axis; once it spans the volume it does not grow."""
    for _ in range(level):
        if cell >= extent:
            break
        cell *= 2
    return cell


def _flat(cells: Grid, block: Block) -> int:
    """Return the number of the cell that a block is."""
    return cells.flat([b // c for b, c in zip(block.begin, cells.cell, strict=True)])


def _around(cells: Grid, block: Block) -> list[int]:
    """Return the numbers of the cells in a block and of those that touch it, ascending."""
    return [cells.flat(index) for index in cells.overlapping(block.grow(cells.cell))]


def _box(cells: Grid, numbers: list[int]) -> Block:
    """Return the box of all these cells, the first and the last of which are its corners."""
    return Block(cells.block(cells.index(numbers[0])).begin, cells.block(cells.index(numbers[-1])).end)


def _only(cells: npt.NDArray[np.int64], wanted: list[int]) -> npt.NDArray[np.int64]:
    """Return the cells, with -1 in place of those that are not wanted."""
    return np.where(np.isin(cells, wanted), cells, np.int64(-1))


def _touching(blocks: StagePlan, box: Block) -> list[Block]:
    """Return the blocks that own edges of fragments in a box: those in it, and those before a face of it."""
    axes = len(box.shape)
    steps = [tuple(int(a == axis) for a in range(axes)) for axis in range(axes)]
    found = set(blocks.meeting(box))
    found |= set(itertools.chain.from_iterable(blocks.meeting(box.grow(step, (0,) * axes)) for step in steps))
    return sorted(found)
