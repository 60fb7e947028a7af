"""Stage graph: which fragments touch, and what lies between them; one table a block.

The tables are the edges of the region adjacency graph with sums over their voxel pairs; in 2d mode only pairs within a
slice count. A block owns the pairs whose first voxel lies in it, so that every pair of the volume counts once. The
blocks of this stage are unions of whole watershed tiles, as it writes no shards: two fragments of different blocks then
touch in one plane, all of whose pairs the lower block owns. So every edge and every fragment stands, complete, in
exactly one table, and nobody has to merge tables. In the tables fragments go by their places (see `FragmentWindow`), so
that a table stays right when other tiles change; who reads one gets ids. Where fragments are whole components already
(see `Job.stitched`), the tables are the pairs of fragments that continue each other across the faces of watershed
tiles.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt

from vimvol.engine.ledger import block_name
from vimvol.engine.plan import StagePlan, plan_stage
from vimvol.geometry import Block, round_up
from vimvol.io.tables import read_table, write_table
from vimvol.segment.edges import EdgeTable
from vimvol.segment.graph import edge_table
from vimvol.segment.nodes import NodeTable, merge_nodes, node_table
from vimvol.segment.profiles import Profiles, join_profiles
from vimvol.segment.stitch import face_pairs, unique_pairs
from vimvol.stages.fragments import ids_at, read_boundaries, read_fragments, read_links
from vimvol.stages.job import Job
from vimvol.stages.stage import Stage

FORWARD = (1, 1, 1)


@dataclass(frozen=True)
class GraphBlock:
    """Measures and stores the edges that one block owns."""

    job: Job

    def __call__(self, block: Block) -> dict[str, Any]:
        """Return the number of edges."""
        job = self.job
        box = block.grow((0, 0, 0), FORWARD).clip(job.shape)
        window = read_fragments(job, box, with_faces=not job.stitched)
        own = block.within(box)
        if job.stitched:
            pairs = self._continued(block, box, window.labels)
            columns: dict[str, npt.NDArray[Any]] = {name: window.places[pairs[:, i] - 1] for i, name in enumerate("uv")}
        else:
            boundaries = read_boundaries(job, box)
            table = edge_table(window.labels, boundaries, own, across=not job.flat, faces=window.faces)
            columns = table.renumbered(window.places).columns()
        write_table(edges_of(job), block_name(block), columns)
        nodes = node_table(window.labels, own, window.places, box.begin, job.shape)
        write_table(nodes_of(job), block_name(block), nodes.columns())
        return {"edges": len(columns["u"])}

    def _continued(self, block: Block, box: Block, labels: npt.NDArray[np.int64]) -> npt.NDArray[np.uint64]:
        """Return the fragments of a box, in pairs, that go on across the faces of tiles."""
        job = self.job
        if job.network.cells is not None:
            voxels = read_links(job, block) - np.array(box.begin)
            first, second = (labels[tuple(voxels[:, side].T)].astype(np.uint64) for side in (0, 1))
            both = (first > 0) & (second > 0)
            return unique_pairs(first[both], second[both])
        return face_pairs(
            labels, read_boundaries(job, box), box, block, job.fragment_tiles, job.fragments_config.threshold
        )


def graph_stage(job: Job) -> Stage:
    """Return the stage graph."""
    return Stage(job, plan_of_tiles(job, "graph"), GraphBlock(job), tables=(edges_of(job), nodes_of(job)))


def plan_of_tiles(job: Job, name: str) -> StagePlan:
    """Return blocks of whole watershed tiles, as few more than a block of the other stages as possible."""
    tile, block = job.fragment_tiles.cell, job.config.run.block or job.shard
    return plan_stage(name, job.shape, tile, [round_up(b, t) for b, t in zip(block, tile, strict=True)], job.roi)


def edges_of(job: Job) -> str:
    """Return the group of the tables of edges: columns of `EdgeTable`, or pairs ``u``, ``v`` if `Job.stitched`."""
    return f"{job.work}/edges"


def nodes_of(job: Job) -> str:
    """Return the group of the tables of fragments: columns of `NodeTable`."""
    return f"{job.work}/nodes"


def read_edges(job: Job, block: Block) -> EdgeTable:
    """Read the edges that a block of the stage owns, between fragments by their ids; not if `Job.stitched`."""
    columns = read_table(edges_of(job), block_name(block))
    u, v = ids_at(job, columns["u"], columns["v"])
    return EdgeTable.from_columns({**columns, "u": u, "v": v})


def read_continued(job: Job, block: Block) -> npt.NDArray[np.uint64]:
    """Read the pairs (N, 2) of fragments, by their ids, that continue each other, if `Job.stitched`."""
    columns = read_table(edges_of(job), block_name(block))
    return np.stack(ids_at(job, columns["u"], columns["v"]), axis=1)


def read_nodes(job: Job, block: Block) -> NodeTable:
    """Read the fragments of a block of the stage, by their ids."""
    columns = read_table(nodes_of(job), block_name(block))
    return NodeTable.from_columns({**columns, "fragment": ids_at(job, columns["fragment"])[0]})


def nodes_of_edges(job: Job, block: Block) -> NodeTable:
    """Read the fragments at the ends of the edges of a block: its own, and those of the next blocks along each axis."""
    return merge_nodes(read_nodes(job, near) for near in _beside(job, block))


def profiles_of_edges(job: Job, block: Block, table: EdgeTable) -> Profiles:
    """Return the fragments at the ends of the edges of a block, and their profiles, if `Job.sectioned`.

    Edges across sections lead from the last section of a block to the first one of the next, whose profiles are joined
    here again.
    """
    near = _beside(job, block)
    nodes = [read_table(nodes_of(job), block_name(one)) for one in near]
    places = np.concatenate([columns["fragment"] for columns in nodes])
    voxels = np.concatenate([columns["voxels"] for columns in nodes])
    layer = int(np.prod(job.fragment_tiles.counts[1:]))
    tiles = (places >> np.uint64(32)).astype(np.int64)
    # ids ascend with places, and every fragment stands in one table
    order = np.argsort(places)
    order = order[tiles[order] // layer <= block.end[0] // job.fragment_tiles.cell[0]]
    (ids,) = ids_at(job, places[order])
    config = job.config.agglomerate
    below = (read_edges(job, one) for one in near if one.begin[0] == block.end[0] and config.beta_profiles < 1)
    return join_profiles(
        ids, voxels[order], tiles[order], chain([table], below), config.beta_profiles, config.size_weighting
    )


def _beside(job: Job, block: Block) -> list[Block]:
    """Return the blocks that fragments at the ends of a block's edges lie in: itself, and the next along each axis."""
    plan = graph_stage(job).plan
    # the first blocks of these are the block itself; no edge leads diagonally
    boxes = (block.grow((0, 0, 0), tuple(int(a == axis) for a in range(3))).clip(job.shape) for axis in range(3))
    return list(dict.fromkeys(near for box in boxes for near in plan.meeting(box)))
