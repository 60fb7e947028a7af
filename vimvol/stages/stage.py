"""What a stage of a segmentation is: its blocks, what they do and write, the worker that they want, their records.

Every stage is described once, beside its task, by a function of a job. Who runs, forecasts, samples or carries over
stages, or looks at what they wrote, takes it from there; `vimvol.stages.order` lists them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from vimvol.engine.blocks import BlockTask
from vimvol.engine.ledger import Ledger
from vimvol.engine.plan import StagePlan
from vimvol.engine.pool import Resource, SerialPool
from vimvol.engine.run import Execution, run_stage
from vimvol.geometry import Index
from vimvol.io import storage_shapes
from vimvol.io.objects import open_objects
from vimvol.stages.job import Job


class StoredArray(NamedTuple):
    """An array of the output, as `vimvol.io.arrays.has_layout` asks for it; axes (z, y, x) or (c, z, y, x)."""

    url: str
    shape: Index
    dtype: str
    chunk: Index
    shard: Index


@dataclass(frozen=True)
class Stage:
    """A stage of a job.

    Attributes
    ----------
    job
        The job.
    plan
        Name and blocks. The first word of the name is the name of the key; the level of a pyramid follows.
    task
        Computes and writes a block.
    array
        The array whose shards the blocks fill; none: every block leaves tables that are named after it, or there is
        only one.
    tables
        Groups of these tables.
    resource
        What the blocks want of a worker; none: the one block is computed by the process of the run.
    held
        Bytes a voxel that a block reads and writes, where a worker reads one and writes another while it computes; 0:
        it does one after the other.
    own
        Whether the result belongs to one segmentation, see `Job.results`; what others make serves several.
    """

    job: Job
    plan: StagePlan
    task: BlockTask
    array: StoredArray | None = None
    tables: tuple[str, ...] = ()
    resource: Resource | None = "CPU"
    held: int = 0
    own: bool = False

    @property
    def name(self) -> str:
        """Name, unique in a run."""
        return self.plan.name

    @property
    def kind(self) -> str:
        """Name of the key, which the levels of a pyramid have in common."""
        return self.name.split(" ")[0]

    @property
    def written(self) -> tuple[str, ...]:
        """Array or tables that the blocks write."""
        return self.tables if self.array is None else (self.array.url,)

    @property
    def ledger(self) -> Ledger:
        """The records of blocks; of an array, each vouches for its shards, else for exactly its block."""
        folder = f"{self.job.results if self.own else self.job.work}/ledger"
        unit = None if self.array is None else self.plan.unit
        return Ledger(open_objects(folder), self.name, self.job.keys[self.kind], unit)

    def run(self, execution: Execution) -> dict[str, Any]:
        """Run the blocks that are not done yet.

        Returns
        -------
        dict
            What the block of the process of the run found; nothing of blocks of workers.
        """
        execution, ledger = execution.on(self.resource, ahead=self.held > 0), self.ledger
        if self.resource is not None:
            run_stage(self.plan, self.task, ledger, execution)
            return {}
        run_stage(self.plan, self.task, ledger, replace(execution, pool=SerialPool(), retries=0))
        return {name: value for name, value in ledger.only().items() if name != "seconds"}


def boundaries_at(job: Job, level: int) -> StoredArray:
    """Return the boundaries at a level of the pyramid, (c, z, y, x) uint8."""
    shape, channels = job.levels[level].shape, job.network.channels
    chunk, shard = storage_shapes(shape, job.chunk, job.shard)
    return StoredArray(f"{job.out}/{level}", (channels, *shape), "uint8", (1, *chunk), (channels, *shard))


def labels_at(job: Job, level: int) -> StoredArray:
    """Return the segmentation at a level of the pyramid, (z, y, x) uint64."""
    shape = job.levels[level].shape
    return StoredArray(f"{job.labels}/{level}", shape, "uint64", *storage_shapes(shape, job.chunk, job.shard))
