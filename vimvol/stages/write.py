"""Stage write: the segmentation at full resolution, every block by itself."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from vimvol.engine.plan import plan_stage
from vimvol.geometry import Block
from vimvol.io.arrays import read_box, write_box
from vimvol.stages.fragments import read_fragments
from vimvol.stages.job import Job
from vimvol.stages.sizes import lookup_of
from vimvol.stages.solve import LOOKUP_CHUNK
from vimvol.stages.stage import Stage, labels_at

SPAN = 16 * LOOKUP_CHUNK
"""Fragments whose segments are read at once at most, 8 MiB."""


@dataclass(frozen=True)
class WriteBlock:
    """Looks up the segment of every fragment of a block and writes it."""

    job: Job

    def __call__(self, block: Block) -> dict[str, Any]:
        """Write one block of the segmentation."""
        job = self.job
        window = read_fragments(job, block)
        table = np.zeros(len(window.ids) + 1, np.uint64)
        for begin, end in _spans(window.ids):
            ids = window.ids[begin:end]
            first, last = int(ids[0]), int(ids[-1])
            segments = read_box(lookup_of(job), Block((first,), (last + 1,)))
            table[begin + 1 : end + 1] = segments[ids - np.uint64(first)]
        write_box(f"{job.labels}/0", block, table[window.labels])
        return {}


def write_stage(job: Job) -> Stage:
    """Return the stage write."""
    plan = plan_stage("write", job.shape, job.shard, job.config.run.block, job.roi)
    return Stage(job, plan, WriteBlock(job), array=labels_at(job, 0), own=True)


def _spans(ids: np.ndarray[Any, np.dtype[np.uint64]]) -> list[tuple[int, int]]:
    """Return the half-open ranges of positions whose segments are read at once.

    Those of a tile follow each other, and between two tiles of a block there are those of its neighbours. A gap of less
    than a chunk is read with what is around it: a request takes longer than that, and the chunk is read anyway.
    """
    if not len(ids):
        return []
    far = np.diff(ids) > LOOKUP_CHUNK
    # as much as ever is held of the lookup table
    piece = (ids - ids[0]) // np.uint64(SPAN)
    cuts = np.flatnonzero(far | (np.diff(piece) > 0)) + 1
    edges = [0, *cuts.tolist(), len(ids)]
    return list(pairwise(edges))
