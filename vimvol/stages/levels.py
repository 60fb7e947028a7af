"""Out-of-core multicut: level by level, one subproblem a task, every task with its own tables only.

The array code is `vimvol.segment.multicut.division`, and `vimvol.stages.hierarchy` says where its tables lie; this
module says in which order the tasks run. A level has three stages: *decide* solves a subproblem for every cell,
*contract* joins what all of them agree on, *reduce* writes the tables of the next level's cells, 2 x 2 x 2 of this
level's.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from vimvol.engine.ledger import Ledger, block_name, content_key
from vimvol.engine.objects import Objects
from vimvol.engine.plan import StagePlan
from vimvol.engine.run import Execution, run_stage
from vimvol.geometry import Block, Grid
from vimvol.io.tables import read_table
from vimvol.segment.multicut.division import UNIT, CostTable, contract, decide, merge_costs, reduce
from vimvol.stages.hierarchy import Hierarchy
from vimvol.stages.keys import SOLVE_FORMAT

AT_EVERY_LEVEL = frozenset({"rim", "interior"})
"""Tables that there are also at the level that is solved in one process; the others tell what follows from a level."""

SAME_TABLES = {"collect": "reduce", "reduce": "collect"}
"""Stages that write the tables of a level: one where it is the lowest, the other where it is not."""


def stages_of_levels(levels: range) -> list[str]:
    """Return the names of the stages that reduce a graph at these levels, as `climb` runs them."""
    if not levels:
        return []
    steps = [(f"decide {level}", f"contract {level}", f"reduce {level + 1}") for level in levels]
    return [f"collect {levels.start}", *itertools.chain.from_iterable(steps)]


@dataclass(frozen=True)
class Collect:
    """Gathers the edges of a cell of the lowest level that is solved."""

    hierarchy: Hierarchy
    level: int

    def __call__(self, block: Block) -> dict[str, Any]:
        """Read the tables of the blocks that the cell touches, write those of the cell."""
        hierarchy, cells = self.hierarchy, self.hierarchy.cells(self.level)
        cell = _flat(cells, block)
        places = hierarchy.places(self.level, block)
        found = []
        for name in _touching(hierarchy.blocks, block):
            edges = CostTable.from_columns(read_table(hierarchy.source, block_name(name)))
            found.append(edges.where((places.cells_of(edges.u) == cell) | (places.cells_of(edges.v) == cell)))
        return hierarchy.store(self.level, cell, merge_costs(found), places)


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
        Level of these edges: 0 for all of the graph; the first that is reduced may be higher, see `Hierarchy.lowest`.
    edges
        Edges that are left.
    energy
        Summed costs of these edges: the energy if all of them were cut.
    """

    level: int
    edges: int
    energy: float


def climb(
    hierarchy: Hierarchy,
    whole: LevelReport,
    lowest: int,
    key: str,
    ledgers: Objects,
    capacity: int,
    levels: int | None,
    execution: Execution,
) -> list[LevelReport]:
    """Reduce the graph until few enough edges are left, or no further.

    Parameters
    ----------
    hierarchy, whole
        The graph, and what is known of it.
    lowest
        The first level whose cells are solved, see `Hierarchy.lowest`.
    key
        Digest of all that determines the tables of edges; see `vimvol.engine.ledger`.
    ledgers
        Where all ledgers are kept.
    capacity
        Edges that may be left.
    levels
        Times to reduce whatever is left; none: as often as is needed.
    execution
        How tasks are run.

    Returns
    -------
    list of LevelReport
        The whole graph, and one a level; the last is that whose edges are left.
    """
    reports, level = [whole], lowest
    above = [level] if level else []  # a level that is not the lowest has what was joined below
    collected = content_key(key, hierarchy.tiles.cell, hierarchy.cell, hierarchy.margin, *above)
    solved = content_key(collected, hierarchy.solver, SOLVE_FORMAT)

    def run(name: str, level: int, task: Collect | Decide | Contract | Reduce) -> tuple[Ledger, StagePlan]:
        plan = hierarchy.plan(name, level)
        if name in SAME_TABLES:
            ledgers.remove(f"{SAME_TABLES[name]} {level}")  # what it has left is overwritten
        ledger = Ledger(ledgers, plan.name, collected if name == "collect" else solved)
        run_stage(plan, task, ledger, execution)
        return ledger, plan

    run("collect", level, Collect(hierarchy, level))
    while len(reports) - 1 < levels if levels is not None else reports[-1].edges > capacity:
        if (len(reports) > 1 or levels is None) and len(hierarchy.cells(level)) == 1:
            break
        run("decide", level, Decide(hierarchy, level))
        run("contract", level, Contract(hierarchy, level))
        level += 1
        reports.append(report_of(level, *run("reduce", level, Reduce(hierarchy, level))))
    return reports


def levels_reduced(reports: Sequence[int]) -> range:
    """Return the levels that were reduced, by those that are reported, the whole graph first; empty if none was."""
    return range(reports[1] - 1, reports[-1]) if len(reports) > 1 else range(0)


def left_out_text(reports: Sequence[int], least: int) -> str:
    """Return which levels were left out and why, by those that are reported; empty if none was.

    Parameters
    ----------
    reports
        Levels, the whole graph first.
    least
        Edges that cells hold on the mean, below which their level is left out.
    """
    levels = levels_reduced(reports)
    if not levels.start:
        return ""
    which = "1 is" if levels.start == 1 else f"1 to {levels.start} are"
    return (
        f"{which} left out, as cells of agglomerate.cell hold fewer than {least:,} edges on the mean; those of level "
        f"{levels.start + 1} are {2**levels.start} times as wide"
    )


def report_of(level: int, ledger: Ledger, plan: StagePlan) -> LevelReport:
    """Return what is left at a level, from what its blocks recorded of the edges that they own."""
    sums = ledger.sums(plan.blocks, ("edges", "cost"))
    return LevelReport(level, sums["edges"], sums["cost"] * UNIT)


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
