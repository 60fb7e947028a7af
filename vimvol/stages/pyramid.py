"""Stage pyramid: coarser levels of the boundaries and of the segmentation, each made from the one below."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from vimvol.engine.ledger import Ledger
from vimvol.engine.plan import StagePlan
from vimvol.engine.run import Execution, run_stage
from vimvol.geometry import Block, Index
from vimvol.io import storage_shapes
from vimvol.io.arrays import read_box, write_box
from vimvol.io.downsample import mean_downsample, mode_downsample
from vimvol.stages.job import Job


@dataclass(frozen=True)
class PyramidBlock:
    """Makes one block of one level.

    Attributes
    ----------
    job
        The job.
    level
        Number of the level, from 1.
    labels
        Whether it is the segmentation (mode of the voxels) or the boundaries (mean).
    """

    job: Job
    level: int
    labels: bool

    def __call__(self, block: Block) -> dict[str, Any]:
        """Read the block's voxels one level below, downsample, write."""
        below, here = self.job.levels[self.level - 1], self.job.levels[self.level]
        factor = tuple(h // b for h, b in zip(here.factor, below.factor, strict=True))
        source = Block(
            tuple(v * f for v, f in zip(block.begin, factor, strict=True)),
            tuple(v * f for v, f in zip(block.end, factor, strict=True)),
        ).clip(below.shape)
        if self.labels:
            data = read_box(f"{self.job.labels}/{self.level - 1}", source)
            write_box(f"{self.job.labels}/{self.level}", block, mode_downsample(data, factor))
        else:
            self._mean(source, block, factor)
        return {}

    def _mean(self, source: Block, block: Block, factor: Index) -> None:
        channels = self.job.network.channels
        data = read_box(f"{self.job.out}/{self.level - 1}", Block((0, *source.begin), (channels, *source.end)))
        mean = np.stack([mean_downsample(channel, factor) for channel in data])
        write_box(f"{self.job.out}/{self.level}", Block((0, *block.begin), (channels, *block.end)), mean)


def pyramid_stages(job: Job, *, labels: bool) -> Iterator[tuple[int, StagePlan, Ledger]]:
    """Yield number, blocks and ledger of every coarser level."""
    name = "label-pyramid" if labels else "pyramid"
    for number, level in enumerate(job.levels[1:], start=1):
        _, shard = storage_shapes(level.shape, job.chunk, job.shard)
        stage = f"{name} {number}"
        yield number, job.plan(stage, level, shard), job.ledger(stage, shard)


def run_pyramid(job: Job, execution: Execution, *, labels: bool) -> None:
    """Make all coarser levels, one after the other."""
    for number, plan, ledger in pyramid_stages(job, labels=labels):
        run_stage(plan, PyramidBlock(job, number, labels), ledger, execution)
