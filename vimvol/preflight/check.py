"""Before a run: what it will take, by a timed sample where that is worth it, and whether it fits."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from vimvol.config.cluster import ClusterConfig, read_cluster
from vimvol.engine.pool import Pool, SerialPool, WorkerLostError, WorkersBrokenError
from vimvol.engine.usage import memory_of_process
from vimvol.errors import DiskFullError, IncompleteRunError, InputError
from vimvol.geometry import Block
from vimvol.outputs.expected import Forecast
from vimvol.preflight.announce import more_memory_text
from vimvol.preflight.disk import existing_parent, replaced_bytes
from vimvol.preflight.forecast import forecast
from vimvol.preflight.probe import Probe
from vimvol.preflight.room import ENDED_AT
from vimvol.preflight.sampling import adopt, blocks_to_sample, take_probes
from vimvol.preflight.scratch import Scratch
from vimvol.report.amounts import clock_text, count_text, disk_text, memory_text
from vimvol.segment.multicut.division import bytes_per_edge
from vimvol.stages.job import Job
from vimvol.stages.order import stages_of
from vimvol.stages.solve import solver_of

WORTH = 1 << 23
"""Voxels of the region left to predict from which on a run is preceded by a sample: less takes seconds."""
FEW = 3
"""Times as many blocks as are sampled have to be left of a run that goes on: a sample of most of them would tell what
is over by then, and run after run that is stopped in the meantime would lose it."""
TOO_MUCH = 1.3
"""A run is refused whose forecast is this many times what is free on the disk: up to 1.25 times as much was forecast as
was written then, and a run that fits is not to be refused. A full disk ends a run, which goes on with more space."""
TOO_MANY = 1.2
"""The same of edges: those of single blocks were up to 1.1 times the mean. A solver that lacks memory ends a run, too,
which goes on with more."""


@dataclass(frozen=True)
class Preflight:
    """What is known before a run.

    Attributes
    ----------
    job
        The job.
    forecast
        What the run will take.
    probes
        The sample.
    seconds
        Wall time of the sample.
    starting
        Seconds before that, in which the network was loaded and the workers started; 0 where they are not told.
    finished
        Where all is there, so that nothing would be computed: when the run ended that made the last of it, ISO 8601.
    failure
        Why there is no sample though there should be one; empty if nothing went wrong.
    """

    job: Job
    forecast: Forecast
    probes: tuple[Probe, ...] = ()
    seconds: float = 0.0
    failure: str = ""
    starting: float = 0.0
    finished: str = ""

    @property
    def slowest(self) -> float:
        """Seconds of the slowest prediction of a block; 0 where none was predicted."""
        return max((probe.stages["predict"].seconds for probe in self.probes if "predict" in probe.stages), default=0.0)

    def adopt(self, pool: Pool) -> Forecast:
        """Take over what the sample has made, and return what the rest of the run will take."""
        if not self.probes:
            return self.forecast
        adopt(self.job, self.probes)
        return forecast(self.job, self.probes, pool, fresh=False)


@contextlib.contextmanager
def preflight(
    job: Job,
    pool: Pool,
    scratch: Scratch,
    *,
    fresh: bool,
    worth: int | None = None,
    tell: Callable[[str], None] = lambda _: None,
) -> Iterator[Preflight]:
    """Look ahead at a run; what the sample has written is there until this context is left.

    Parameters
    ----------
    job
        The job.
    pool
        The workers of the run.
    scratch
        Where the sample is taken.
    fresh
        Whether nothing in the output counts as done, since it is laid out anew.
    worth
        Voxels left to compute from which on a sample is taken; none: `WORTH`.
    tell
        Told that this takes a while.

    Raises
    ------
    InputError
        If not even the sample fits memory or disk.
    """
    counted = forecast(job, (), None, fresh=fresh)
    left = max(stage.voxels for stage in counted.stages[:2])
    least = max(1, WORTH if worth is None else worth)
    # of replaced sections it is known only later what else has to be done
    worthwhile = left >= least and not job.replaced
    blocks, predicted = blocks_to_sample(job, pool.slots_for, fresh=fresh) if worthwhile else ([], False)
    first = counted.stages[0]
    almost_done = worth is None and first.left < min(first.blocks, FEW * len(blocks))
    if almost_done or not blocks:
        yield Preflight(job, counted)
        return
    start = time.perf_counter()
    tell(f"plan: a sample of {len(blocks)} of {counted.stages[0].left} blocks")
    try:
        try:
            probes, failure = _sampled(job, blocks, scratch, pool, predicted=predicted)
        except BaseException as error:
            if not isinstance(error, Exception):  # whoever stopped it would take what was computed for kept
                tell("the sample was broken off: nothing of it is kept, and the next run takes it anew")
            raise
        seconds = time.perf_counter() - start
        ahead = counted
        if probes:
            # the sample itself is gone by then
            ahead = replace(forecast(job, probes, pool, fresh=fresh), free=counted.free)
            if ahead.free is not None and (ahead.disk or 0) > ahead.free:
                ahead = replace(ahead, replaced=replaced_bytes(job, ahead, fresh=fresh))
        yield Preflight(job, ahead, tuple(probes), seconds, failure)
    finally:
        scratch.remove()


def _sampled(
    job: Job, blocks: Sequence[Block], scratch: Scratch, pool: Pool, *, predicted: bool
) -> tuple[list[Probe], str]:
    """Take the sample; return it, or why there is none."""
    try:
        return take_probes(job, blocks, scratch, pool, predicted=predicted), ""
    except WorkersBrokenError as error:
        return [], str(error)
    except WorkerLostError as error:
        raise InputError(f"a block of {blocks[0].shape} voxels (z, y, x) does not fit: {error}") from None
    except DiskFullError as error:
        raise InputError(f"the disk of {job.out} holds not even a sample ({error}); free space first") from None
    except (InputError, IncompleteRunError):
        raise
    except Exception as error:  # of one block, which the run would try again or set aside
        return [], f"{type(error).__name__}: {error}"


def check_fits(job: Job, found: Forecast, cluster: str | ClusterConfig = "local") -> None:
    """Refuse what cannot fit.

    Parameters
    ----------
    job
        The job.
    found
        What it will take.
    cluster
        On which it runs, as `segment_volume` takes it.

    Raises
    ------
    InputError
        If the disk, the memory of a worker, or that of the solver would not do; in one line each, with the figures.
    """
    disk, room = found.disk or 0, (found.free or 0) + found.replaced
    if found.free is not None and disk > TOO_MUCH * room:
        there = f", with {disk_text(found.replaced)} that will be replaced" if found.replaced else ""
        raise InputError(
            f"{job.out} takes about {disk_text(disk)}, and {disk_text(room)} are free at "
            f"{existing_parent(job.out)}{there}, so the disk would be full before the end; free "
            f"{disk_text(disk - room)} more, choose another place, or confine the run by input.roi"
        )
    stage = found.largest
    if stage.memory_limit and (stage.peak or 0) > ENDED_AT * stage.memory_limit:
        settings = read_cluster(cluster) if isinstance(cluster, str) else cluster
        wanted = {each.name: each.resource for each in stages_of(job)}
        more = more_memory_text(settings, wanted.get(stage.name) or "CPU")  # large graphs have levels besides
        raise InputError(
            f"stage {stage.name} takes about {memory_text(stage.peak or 0)} of a worker, and a worker is ended at "
            f"{memory_text(int(ENDED_AT * stage.memory_limit))}, so no block would be finished; give a worker more "
            f"memory by {more}, or make run.block or output.shard = {job.shard} smaller"
        )
    needed = bytes_per_edge(solver_of(job)) * (found.edges or 0)
    if needed > TOO_MANY * found.solver_limit and not found.divisible and job.config.agglomerate.levels is None:
        raise InputError(
            f"solver {job.config.agglomerate.solver!r} takes the whole graph of about {found.edges} edges, which needs "
            f"agglomerate.memory = {needed}, and it is {found.solver_limit}; give that, or choose kernighan-lin"
        )
    own = SerialPool().room_for(None).memory
    if (found.solver or 0) + memory_of_process() > own:
        raise InputError(
            f"the last solve takes about {memory_text(found.solver or 0)} of this process, and the machine has "
            f"{memory_text(own)}; set agglomerate.memory below that, or run on a machine with more"
        )


def short_text(found: Preflight) -> str:
    """Return a line to tell before a run; empty where there was nothing to sample."""
    ahead = found.forecast
    if not ahead.sampled:
        return f"plan: no sample could be taken ({found.failure})" if found.failure else ""
    return (
        f"plan: about {clock_text(ahead.seconds)} with {count_text(ahead.workers, 'block')} at once; memory "
        f"{worker_text(ahead)} a worker, {memory_text(ahead.solver or 0)} to solve "
        f"{ahead.edges:,} edges; {disk_text(ahead.disk or 0)} to store, {free_text(ahead)}"
    )


def worker_text(found: Forecast) -> str:
    """Return the memory that a worker takes, of how much."""
    stage = found.largest
    limit = f" of {memory_text(stage.memory_limit)}" if stage.memory_limit else ""
    return f"{memory_text(stage.peak or 0)}{limit}"


def free_text(found: Forecast) -> str:
    """Return how much is free where the output is stored."""
    if found.free is None:
        return "in an object store"
    short = (found.disk or 0) > found.free + found.replaced
    return f"{disk_text(found.free)} free" + (", which may be too little" if short else "")


def nothing_to_sample(job: Job, *, fresh: bool) -> Preflight | None:
    """Return what is known before a run of which no block could be sampled, so that no worker is needed; else none."""
    if blocks_to_sample(job, lambda _: 1, fresh=fresh)[0]:
        return None
    return Preflight(job, forecast(job, (), None, fresh=fresh))
