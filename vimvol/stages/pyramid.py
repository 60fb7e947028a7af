"""Stage pyramid: coarser levels of the boundaries and of the segmentation, each made from the one below."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from vimvol.engine.plan import plan_stage
from vimvol.geometry import Block, Index
from vimvol.io.arrays import read_box, write_box
from vimvol.io.downsample import mean_downsample, mode_downsample
from vimvol.stages.job import Job
from vimvol.stages.stage import Stage, boundaries_at, labels_at


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

    @property
    def factor(self) -> Index:
        """Voxels (z, y, x) of the level below that become one."""
        below, here = self.job.levels[self.level - 1], self.job.levels[self.level]
        return tuple(h // b for h, b in zip(here.factor, below.factor, strict=True))

    def __call__(self, block: Block) -> dict[str, Any]:
        """Read the block's voxels one level below, downsample, write."""
        factor = self.factor
        source = Block(
            tuple(v * f for v, f in zip(block.begin, factor, strict=True)),
            tuple(v * f for v, f in zip(block.end, factor, strict=True)),
        ).clip(self.job.levels[self.level - 1].shape)
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


def pyramid_stages(job: Job, *, labels: bool) -> Iterator[Stage]:
    """Yield the stage of every coarser level of the segmentation or of the boundaries, the finest first."""
    for number, level in enumerate(job.levels[1:], start=1):
        array = labels_at(job, number) if labels else boundaries_at(job, number)
        region = None if job.roi is None else job.roi.coarser(level.factor)
        plan = plan_stage(f"{'label-' if labels else ''}pyramid {number}", level.shape, array.shard[-3:], region=region)
        yield Stage(job, plan, PyramidBlock(job, number, labels), array=array, own=labels)
