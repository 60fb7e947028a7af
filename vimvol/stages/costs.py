"""Stage costs: what every edge costs, one small table a block.

Another prior or another weighting makes these tables again from those of the graph; what was measured stays.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from vimvol.engine.ledger import block_name
from vimvol.geometry import Block
from vimvol.io.tables import write_table
from vimvol.segment.costs import edge_costs, weights_across
from vimvol.segment.edges import ACROSS, EdgeTable
from vimvol.segment.features import edge_features
from vimvol.segment.multicut.division import CostTable
from vimvol.segment.nodes import NodeTable
from vimvol.segment.profiles import Profiles, section_costs
from vimvol.stages.graph import nodes_of_edges, plan_of_tiles, profiles_of_edges, read_continued, read_edges
from vimvol.stages.job import Job
from vimvol.stages.learned import forest_of
from vimvol.stages.stage import Stage


@dataclass(frozen=True)
class CostsBlock:
    """Turns the edges that a block owns into costs."""

    job: Job

    def __call__(self, block: Block) -> dict[str, Any]:
        """Return the number of edges, and the sum of their costs."""
        table = self._stitched(block) if self.job.stitched else self._multicut(block)
        write_table(costs_of(self.job), block_name(block), table.columns())
        return {"edges": len(table), "cost": int(table.cost.sum())}

    def _multicut(self, block: Block) -> CostTable:
        table = read_edges(self.job, block)
        nodes = profiles = None
        if self.job.learned is not None:
            nodes = nodes_of_edges(self.job, block)
        elif self.job.sectioned:
            profiles = profiles_of_edges(self.job, block, table)
        return CostTable.from_costs(table.uv, costs_of_edges(self.job, table, nodes, profiles))

    def _stitched(self, block: Block) -> CostTable:
        """Let every pair that continues across a face attract."""
        uv = read_continued(self.job, block)
        return CostTable.from_costs(uv, np.ones(len(uv)))


def costs_of_edges(
    job: Job, table: EdgeTable, nodes: NodeTable | None = None, profiles: Profiles | None = None
) -> npt.NDArray[np.float64]:
    """Return the costs (E,) of measured edges, as the job is configured; positive attracts.

    Parameters
    ----------
    job
        The job.
    table
        E edges.
    nodes
        Fragments, among them both of every edge; needed by learned costs, and by no others.
    profiles
        Of both fragments of every edge; needed if `Job.sectioned`, but by learned costs.
    """
    config = job.config.agglomerate
    if job.learned is not None:
        assert nodes is not None, "learned costs look at fragments"
        # fragments of single sections touch either within one or across
        across = job.sectioned & (table.counts[ACROSS] > 0)
        weights = np.where(across, weights_across(table.count), table.count)
        cut = forest_of(job.learned).probability(edge_features(table, nodes))
        return edge_costs(cut, weights, config.beta_learned, config.size_weighting)
    if job.sectioned:
        assert profiles is not None, "sections are held against each other by profiles"
        return section_costs(table, profiles, config.beta, config.beta_across, config.size_weighting)
    return edge_costs(table.mean(), table.count, config.beta, config.size_weighting)


def costs_stage(job: Job) -> Stage:
    """Return the stage costs; its blocks are those of the graph."""
    return Stage(job, plan_of_tiles(job, "costs"), CostsBlock(job), tables=(costs_of(job),), own=True)


def costs_of(job: Job) -> str:
    """Return the group of the tables of costs, columns of `CostTable`; every edge stands in one of them."""
    return f"{job.results}/costs"
