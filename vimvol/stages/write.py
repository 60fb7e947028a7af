"""Stage write: the segmentation at full resolution, every block by itself."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from vimvol.geometry import Block
from vimvol.io.arrays import read_box, write_box
from vimvol.stages.fragments import read_fragments
from vimvol.stages.job import Job
from vimvol.stages.sizes import lookup_of


@dataclass(frozen=True)
class WriteBlock:
    """Looks up the segment of every fragment of a block and writes it."""

    job: Job

    def __call__(self, block: Block) -> dict[str, Any]:
        """Write one block of the segmentation."""
        job = self.job
        window = read_fragments(job, block)
        table = np.zeros(len(window.ids) + 1, np.uint64)
        for begin, end in _runs(window.ids):
            first = int(window.ids[begin])
            table[begin + 1 : end + 1] = read_box(lookup_of(job), Block((first,), (first + end - begin,)))
        write_box(f"{job.labels}/0", block, table[window.labels])
        return {}


def _runs(ids: np.ndarray[Any, np.dtype[np.uint64]]) -> list[tuple[int, int]]:
    """Return the half-open ranges of positions at which ids follow each other without a gap."""
    if not len(ids):
        return []
    cuts = np.flatnonzero(np.diff(ids) != 1) + 1
    edges = [0, *cuts.tolist(), len(ids)]
    return list(pairwise(edges))
