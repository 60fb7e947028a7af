"""Stage solve: from the tables of all blocks to one lookup table, fragment to segment."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from vimvol.engine.ledger import block_name
from vimvol.engine.plan import plan_stage
from vimvol.engine.pool import SerialPool
from vimvol.engine.run import Execution, run_stage
from vimvol.geometry import Block
from vimvol.io.arrays import create_array, read_box, write_box
from vimvol.io.tables import read_table
from vimvol.segment.costs import edge_costs
from vimvol.segment.graph import EdgeTable, merge
from vimvol.segment.multicut import solve
from vimvol.segment.relabel import lookup_table
from vimvol.segment.stitch import union
from vimvol.stages.fragments import offsets_of
from vimvol.stages.graph import edges_of, nodes_of
from vimvol.stages.job import Job

LOOKUP_CHUNK = 1 << 16
TABLES_AT_ONCE = 64
"""Tables merged in one go: edges that several blocks share are folded early, so memory follows the whole graph."""


@dataclass(frozen=True)
class Solve:
    """Partitions the fragments of the whole volume, in the process that calls it."""

    job: Job

    def __call__(self, block: Block) -> dict[str, Any]:  # noqa: ARG002 - the one block is the whole volume
        """Write the lookup table; return the numbers of fragments, edges and segments."""
        job = self.job
        total = int(read_box(offsets_of(job), Block((len(job.fragment_tiles),), (len(job.fragment_tiles) + 1,)))[0])
        nodes, edges = _stitched(job, total) if job.stitched else _multicut(job, total)
        # Node i is fragment i + 1; the table wants an entry for the background before them.
        nodes = np.concatenate([np.zeros(1, np.uint64), nodes])
        table = lookup_table(nodes, _sizes(job, total), job.config.segment.min_size)
        url = lookup_of(job)
        create_array(url, table.shape, "uint64", chunk=(min(len(table), LOOKUP_CHUNK),))
        write_box(url, Block((0,), table.shape), table)
        return {"fragments": total, "edges": edges, "segments": int(table.max(initial=0))}


def run_solve(job: Job, execution: Execution) -> dict[str, int]:
    """Partition the fragments; return the numbers of ``fragments``, ``edges`` and ``segments``."""
    plan, ledger = plan_stage("solve", job.shape, job.shape), job.ledger("solve")
    run_stage(plan, Solve(job), ledger, replace(execution, pool=SerialPool(), retries=0))
    (result,) = ledger.results().values()
    return {name: int(result[name]) for name in ("fragments", "edges", "segments")}


def lookup_of(job: Job) -> str:
    """Return the array of segments: element i is the segment of fragment i, and 0 of background."""
    return f"{job.work}/segments"


def _multicut(job: Job, total: int) -> tuple[npt.NDArray[np.uint64], int]:
    """Return a partition (total,) of all fragments by multicut, and the number of edges."""
    merged: list[EdgeTable] = []
    for block in job.plan("graph"):
        merged.append(EdgeTable.from_columns(read_table(edges_of(job), block_name(block))))
        if len(merged) == TABLES_AT_ONCE:
            merged = [merge(merged)]
    table = merge(merged)
    config = job.config.agglomerate
    costs = edge_costs(table.mean(), table.count, config.beta, config.size_weighting)
    pairs = np.stack([table.u, table.v], axis=1) - np.uint64(1)
    return solve(total, pairs, costs, config.solver), len(pairs)


def _stitched(job: Job, total: int) -> tuple[npt.NDArray[np.uint64], int]:
    """Return a partition (total,) that joins what continues across tiles, and the number of pairs."""
    pairs = []
    for block in job.plan("graph"):
        columns = read_table(edges_of(job), block_name(block))
        pairs.append(np.stack([columns["u"], columns["v"]], axis=1).astype(np.uint64))
    joined = np.concatenate(pairs)
    return union(total, joined - np.uint64(1)), len(joined)


def _sizes(job: Job, total: int) -> npt.NDArray[np.int64]:
    """Return the voxels of every fragment, (total + 1,), the background first with 0."""
    sizes = np.zeros(total + 1, np.int64)
    for block in job.plan("graph"):
        columns = read_table(nodes_of(job), block_name(block))
        sizes[columns["fragment"]] += columns["voxels"]
    return sizes
