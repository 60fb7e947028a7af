"""What a run is expected to take, stage by stage, as it is shown and recorded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class StageForecast:
    """What a stage will take.

    Attributes
    ----------
    name
        Name of the stage; ``levels`` stands for all that reduces a graph too large for one solve.
    blocks, left
        Blocks in all, and those not done yet.
    voxels
        Voxels of those not done yet, in the region of interest.
    seconds
        Wall time.
    cpu
        Seconds of processors, of all workers together: a measure that a busy machine does not change.
    peak
        Bytes of memory of one process.
    read, written
        Bytes that files give and take. None, like all but the numbers of blocks and voxels: there was no sample.
    memory_limit
        Bytes of memory that a worker process may take which runs its blocks; 0 where nothing limits it, or no worker
        runs them but the process of the run.
    """

    name: str
    blocks: int
    left: int
    voxels: int
    seconds: float | None = None
    cpu: float | None = None
    peak: int | None = None
    read: int | None = None
    written: int | None = None
    memory_limit: int = 0


@dataclass(frozen=True)
class Forecast:
    """What a run will take.

    Attributes
    ----------
    stages
        In the order in which they run.
    workers
        Blocks that run at once; 0 without a sample, for which alone workers are asked.
    sampled
        Blocks that were timed.
    edges
        Of the graph; none without a sample.
    solver
        Bytes of memory that the last solve takes beside what its process has already; none without a sample.
    solver_limit
        What it may take, ``agglomerate.memory``.
    divisible
        Whether a graph that is too large can be reduced first.
    disk
        Bytes that will be taken on the disk, in whole blocks of the file system; none without a sample.
    free
        Bytes free on the disk of the output; none for an object store.
    replaced
        Bytes there that the run will replace; counted only where the free ones are too few.
    """

    stages: tuple[StageForecast, ...]
    workers: int
    sampled: int
    edges: int | None
    solver: int | None
    solver_limit: int
    divisible: bool
    disk: int | None
    free: int | None
    replaced: int = 0

    @property
    def seconds(self) -> float:
        """Wall time of all stages."""
        return sum(stage.seconds or 0.0 for stage in self.stages)

    @property
    def written(self) -> int:
        """Bytes that all stages write; nothing of it is removed while a run goes on."""
        return sum(stage.written or 0 for stage in self.stages)

    @property
    def read(self) -> int:
        """Bytes that all stages read."""
        return sum(stage.read or 0 for stage in self.stages)

    @property
    def largest(self) -> StageForecast:
        """The stage that takes most memory of a worker, where that is limited, most of what it may take."""
        of_workers = (stage for stage in self.stages if stage.name not in ("solve", "sizes"))
        return max(of_workers, key=lambda s: ((s.peak or 0) / s.memory_limit if s.memory_limit else 0, s.peak or 0))


def as_json(found: Forecast) -> dict[str, Any]:
    """Return a forecast as JSON-serialisable values, with its sums."""
    stages = [{name: _rounded(value) for name, value in vars(stage).items()} for stage in found.stages]
    sums = {"seconds": _rounded(found.seconds), "read": found.read, "written": found.written}
    return {**vars(found), "stages": stages, **(sums if found.sampled else {})}


def _rounded(value: object) -> object:
    return round(value, 3) if isinstance(value, float) else value
