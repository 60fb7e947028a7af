"""Stage graph: which fragments touch, and what lies between them; one table a block.

The tables are the edges of the region adjacency graph with sums over their voxel pairs; in 2d mode only pairs within a
slice count. A block owns the pairs whose first voxel lies in it, so that every pair of the volume counts once. Where
fragments are whole components already (see `Job.stitched`), the tables are the pairs of fragments that continue each
other across the faces of watershed tiles.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from vimvol.engine.ledger import block_name
from vimvol.geometry import Block
from vimvol.io.tables import write_table
from vimvol.segment.graph import EdgeTable, edge_table, merge
from vimvol.segment.stitch import face_pairs
from vimvol.stages.fragments import read_boundaries, read_fragments
from vimvol.stages.job import Job

FORWARD = (1, 1, 1)


@dataclass(frozen=True)
class GraphBlock:
    """Measures and stores the edges that one block owns."""

    job: Job

    def __call__(self, block: Block) -> dict[str, Any]:
        """Return the number of edges."""
        job = self.job
        box = block.grow((0, 0, 0), FORWARD).clip(job.shape)
        window = read_fragments(job, box)
        boundaries = read_boundaries(job, box)
        own = block.within(box)
        if job.stitched:
            pairs = face_pairs(
                window.labels, boundaries, box, block, job.fragment_tiles, job.fragments_config.threshold
            )
            columns: dict[str, npt.NDArray[Any]] = {"u": window.ids[pairs[:, 0] - 1], "v": window.ids[pairs[:, 1] - 1]}
        elif job.flat:
            columns = _to_global(_edges_in_slices(window.labels, boundaries, own), window.ids).columns()
        else:
            columns = _to_global(edge_table(window.labels, boundaries, own), window.ids).columns()
        write_table(edges_of(job), block_name(block), columns)
        write_table(sizes_of(job), block_name(block), _sizes(window.labels[own.slices], window.ids))
        return {"edges": len(columns["u"])}


def _edges_in_slices(labels: npt.NDArray[np.int64], boundaries: npt.NDArray[np.uint8], own: Block) -> EdgeTable:
    """Collect the edges between fragments of one slice; no fragment reaches from one slice to the next."""
    plane = Block((0, *own.begin[1:]), (1, *own.end[1:]))
    slices = range(own.begin[0], own.end[0])
    return merge(edge_table(labels[z : z + 1], boundaries[z : z + 1], plane) for z in slices)


def _sizes(labels: npt.NDArray[np.int64], ids: npt.NDArray[np.uint64]) -> dict[str, npt.NDArray[Any]]:
    """Return the fragments of a block and their voxels in it."""
    voxels = np.bincount(labels.ravel(), minlength=len(ids) + 1)[1:]
    there = voxels > 0
    return {"fragment": ids[there], "voxels": voxels[there].astype(np.int64)}


def _to_global(table: EdgeTable, ids: npt.NDArray[np.uint64]) -> EdgeTable:
    columns = table.columns()
    return EdgeTable.from_columns({**columns, "u": ids[columns["u"] - 1], "v": ids[columns["v"] - 1]})


def edges_of(job: Job) -> str:
    """Return the group of the tables of edges."""
    return f"{job.work}/edges"


def sizes_of(job: Job) -> str:
    """Return the group of the tables of fragment sizes."""
    return f"{job.work}/sizes"
