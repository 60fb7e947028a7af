"""Stage solve: from the costs of all edges to a partition of the fragments.

A graph of up to a million edges is solved as a whole. A larger one is first reduced out of core, level by level
(`vimvol.stages.levels`), until so much is left, or what the configured memory holds. This process holds the graph
that is left and, at the end, `BYTES_PER_FRAGMENT`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from vimvol.engine.ledger import block_name
from vimvol.engine.plan import plan_stage
from vimvol.engine.run import Execution
from vimvol.errors import ConfigError
from vimvol.geometry import Block, round_up
from vimvol.io.arrays import create_array, read_box, write_box
from vimvol.io.tables import read_table
from vimvol.segment.multicut import is_divisible
from vimvol.segment.multicut.division import CostTable, bytes_per_edge, merge_costs, solve_table
from vimvol.stages.costs import costs_of, costs_stage
from vimvol.stages.fragments import offsets_of
from vimvol.stages.graph import graph_stage, read_nodes
from vimvol.stages.hierarchy import Hierarchy
from vimvol.stages.job import Job
from vimvol.stages.levels import LevelReport, climb, levels_reduced, report_of
from vimvol.stages.stage import Stage

LOOKUP_CHUNK = 1 << 16
CELL = (64, 1024, 1024)
"""Voxels (z, y, x) of a subproblem at least: about a million edges with fragments of slices."""

LEAST_EDGES = 10**4
"""Edges of a cell on the mean, below which its sides are doubled: most of a subproblem would be its margin."""

AT_ONCE = 10**6
"""Edges that are solved in one process though more would fit: this one step cannot be shared out. A few seconds."""

BYTES_PER_FRAGMENT = 26
"""Memory of this process for the lookup table while it is made, here and in `vimvol.stages.sizes`."""

Ids = npt.NDArray[np.uint64]


@dataclass(frozen=True)
class Solve:
    """Partitions what is left of the graph, in the process that calls it, and writes what it finds.

    Attributes
    ----------
    job
        The job.
    reports
        The levels, the whole graph first. Where there is only one, the graph is read block by block.
    """

    job: Job
    reports: tuple[LevelReport, ...]

    def __call__(self, block: Block) -> dict[str, Any]:  # noqa: ARG002 - the one block is the whole volume
        """Write the partition; return the numbers of fragments and edges, and the energies."""
        job, hierarchy = self.job, hierarchy_of(self.job)
        levels = levels_reduced([report.level for report in self.reports])
        last = int(read_box(offsets_of(job), Block((len(job.fragment_tiles),), (len(job.fragment_tiles) + 1,)))[0])
        tables = hierarchy.own_edges(levels.stop) if levels else all_costs(job)
        left = merge_costs(tables)
        groups, energy = solve_table(left, solver_of(job))
        lookup = np.arange(last + 1, dtype=np.uint64)
        lookup[groups.node] = groups.group
        for level in reversed(levels):
            for cell in range(len(hierarchy.cells(level))):
                groups = hierarchy.groups(level, [cell])
                lookup[groups.node] = lookup[groups.group]
        url = partition_of(job)
        create_array(url, (2, len(lookup)), "uint64", chunk=(1, min(len(lookup), LOOKUP_CHUNK)))
        write_box(url, Block((0, 0), (1, len(lookup))), lookup[None])
        write_box(url, Block((1, 0), (2, len(lookup))), _voxels(job, lookup)[lookup].astype(np.uint64)[None])
        return {
            "fragments": last,
            "edges": self.reports[0].edges,
            "levels": [asdict(report) for report in self.reports],
            "energy": energy,
        }


@dataclass(frozen=True)
class _SolveStage(Stage):
    """The stage, before which a large graph is reduced."""

    def run(self, execution: Execution) -> dict[str, Any]:
        """Partition the fragments.

        Returns
        -------
        dict
            Numbers of ``fragments`` and ``edges``; ``levels``, one a `LevelReport`; the final ``energy``.

        Raises
        ------
        ConfigError
            If the graph that is left does not fit ``agglomerate.memory``.
        """
        reports = _reduced(self.job, execution.on("CPU"))
        return Stage.run(replace(self, task=Solve(self.job, reports)), execution)


def solve_stage(job: Job) -> Stage:
    """Return the stage solve; what levels its task finds is known only when it is run."""
    plan = plan_stage("solve", job.shape, job.shape, region=job.roi)
    return _SolveStage(job, plan, Solve(job, ()), resource=None, own=True)


def _reduced(job: Job, execution: Execution) -> tuple[LevelReport, ...]:
    """Reduce the graph until it can be solved in one process; return its levels, the whole graph first."""
    stage = costs_stage(job)
    costs = stage.ledger
    reports = [report_of(0, costs, stage.plan)]
    edges, needed = reports[0].edges, bytes_per_edge(solver_of(job))
    levels, capacity = job.config.agglomerate.levels, job.config.agglomerate.memory // needed
    divisible = is_divisible(solver_of(job)) or job.stitched
    if levels or (levels is None and edges > (min(capacity, AT_ONCE) if divisible else capacity)):
        _check_divisible(job, edges)
        most = min(capacity, AT_ONCE)
        hierarchy = hierarchy_of(job)
        filled = hierarchy.filled(block for block, found in costs.entries() if found["edges"])
        lowest = hierarchy.lowest(edges, filled)
        reports = climb(hierarchy, reports[0], lowest, costs.key, costs.objects, most, levels, execution)
        if levels is not None and (taken := len(reports) - 1) < levels:
            execution.progress.note(_fewer_text(hierarchy, taken, levels, lowest, edges / max(1, filled.sum())))
    if levels is None and reports[-1].edges > capacity:
        raise ConfigError(
            f"agglomerate.memory = {job.config.agglomerate.memory} holds {capacity} edges, and {reports[-1].edges} are "
            f"left, so they are not solved; give {reports[-1].edges * needed} or more, what is done is kept"
        )
    return tuple(reports)


def _fewer_text(hierarchy: Hierarchy, taken: int, wanted: int, lowest: int, mean: float) -> str:
    """Return why a graph was reduced less often than it was to be; ``mean``: edges that a cell of level 0 holds."""
    cell = " x ".join(map(str, hierarchy.cell))
    if lowest:
        why = (
            f"cells of {cell} voxels (z, y, x) hold {mean:,.0f} edges on the mean, fewer than {hierarchy.least:,}, and "
            "were doubled until they held enough or one spanned the volume; see agglomerate.cell"
        )
    else:
        why = f"after that one cell, first of {cell} voxels (z, y, x), spans the volume"
    return f"levels: {taken} of agglomerate.levels = {wanted}, as {why}"


def hierarchy_of(job: Job) -> Hierarchy:
    """Return the graph of a job and how it is divided where it has to be."""
    wanted = job.config.agglomerate.cell or CELL
    cell = tuple(round_up(min(w, s), t) for w, s, t in zip(wanted, job.shape, job.fragment_tiles.cell, strict=True))
    return Hierarchy(
        folder=f"{job.results}/levels",
        source=costs_of(job),
        blocks=costs_stage(job).plan,
        tiles=job.fragment_tiles,
        offsets=offsets_of(job),
        cell=cell,
        margin=job.config.agglomerate.margin,
        solver=solver_of(job),
        least=LEAST_EDGES,
    )


def solver_of(job: Job) -> str:
    """Return the solver: what continues across tiles needs no more than the connected components."""
    return "components" if job.stitched else job.config.agglomerate.solver


def partition_of(job: Job) -> str:
    """Return the array of the partition, (2, N + 1) uint64: the smallest fragment, and the voxels, of i's segment."""
    return f"{job.results}/partition"


def _check_divisible(job: Job, edges: int) -> None:
    solver = solver_of(job)
    # of pairs that continue each other none repels, and connected components may be taken in any order
    if not (is_divisible(solver) or job.stitched):
        raise ConfigError(
            f"solver {solver!r} takes the whole graph, whose {edges} edges need agglomerate.memory = "
            f"{edges * bytes_per_edge(solver)}, and no agglomerate.levels; give that, or choose kernighan-lin"
        )


def all_costs(job: Job) -> Iterable[CostTable]:
    """Return the tables of all edges, block by block."""
    return (CostTable.from_columns(read_table(costs_of(job), block_name(block))) for block in costs_stage(job).plan)


def _voxels(job: Job, first: Ids) -> npt.NDArray[np.int64]:
    """Return the voxels of every segment at its smallest fragment, (N + 1,)."""
    voxels = np.zeros(len(first), np.int64)
    for block in graph_stage(job).plan:
        nodes = read_nodes(job, block)
        np.add.at(voxels, first[nodes.fragment], nodes.voxels)
    return voxels
