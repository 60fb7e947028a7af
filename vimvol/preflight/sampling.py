"""The timed sample of a run: which blocks it takes, how they are handed out, and what of them the run keeps.

One block for each worker goes through all stages, in a folder beside the output, see `vimvol.preflight.probe`. The
boundaries of a block do not depend on others: they are kept, and the run goes on with them.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from vimvol.engine.missing import Missing
from vimvol.engine.pace import Pace
from vimvol.engine.plan import StagePlan
from vimvol.engine.pool import Pool, Resource
from vimvol.geometry import Block
from vimvol.io.arrays import read_box, write_box
from vimvol.outputs.output import create_arrays
from vimvol.preflight.forecast import LOOKS
from vimvol.preflight.overhead import seconds_besides_blocks
from vimvol.preflight.probe import Probe, probe_others, probe_prediction
from vimvol.preflight.scratch import Scratch
from vimvol.preflight.survey import spread
from vimvol.stages.fragments import fragments_stage
from vimvol.stages.job import Job
from vimvol.stages.predict import predict_stage
from vimvol.stages.region import wanted_voxels

MOST_SAMPLED = 32
"""Blocks that are sampled at most, one for each worker, as workers slow each other down."""
BLOCKS_OF_CALL = 20
"""Stages that a call of the sample goes through at the most, with a single voxel before."""
SECONDS_OF_PATIENCE = 1.0
"""Time between two looks for calls that hang."""


def blocks_to_sample(job: Job, slots_for: Callable[[Resource | None], int], *, fresh: bool) -> tuple[list[Block], bool]:
    """Return blocks to sample, one for each worker, spread over what is to be done.

    Of those looked at, they are the ones with most voxels in the region of interest. Of what is predicted already,
    blocks are sampled whose fragments are missing; the second value tells that.
    """
    for stage in (predict_stage(job), fragments_stage(job)):
        count = min(slots_for(stage.resource), MOST_SAMPLED)
        missing = None if fresh else stage.ledger.missing(stage.plan.blocks)
        found = list(itertools.islice(_spread_blocks(job, stage.plan, missing), 4 * count))
        if found:
            return sorted(found, key=lambda block: -stage.plan.wanted_of(block))[:count], stage.kind != "predict"
    return [], False


def _spread_blocks(job: Job, plan: StagePlan, missing: Missing | None) -> Iterator[Block]:
    for number in spread(len(plan), LOOKS):
        block = plan[number]
        if (missing is None or missing(block) == [block]) and wanted_voxels(job.roi, job.mask, block).any():
            yield block


def take_probes(job: Job, blocks: Sequence[Block], scratch: Scratch, pool: Pool, *, predicted: bool) -> list[Probe]:
    """Run the sample of every block, all at once, as blocks run later.

    Parameters
    ----------
    job
        The job.
    blocks
        Blocks of the prediction, one for each worker.
    scratch
        Where to write.
    pool
        The workers.
    predicted
        Whether the boundaries of the blocks are there, and are to be copied instead.

    Raises
    ------
    Exception
        What the block raised.
    """
    permit = scratch.open()
    tasks = []
    for number, block in enumerate(blocks):
        region = block if job.roi is None else block.intersect(job.roi)
        tasks.append(replace(job, out=f"{scratch.folder}/{number}", roi=region))
        create_arrays(tasks[-1])
    deadline = job.config.run.deadline
    if deadline is not None:  # that of a block of one stage, and a call has those of all
        deadline *= BLOCKS_OF_CALL * max(len(fragments_stage(own).plan) for own in tasks)
    voxels = max(block.size for block in blocks)
    try:
        if predicted:
            for own, block in zip(tasks, blocks, strict=True):
                _copy(job, own, block)
            first = [Probe(own, block, {}) for own, block in zip(tasks, blocks, strict=True)]
        else:
            first = _all(
                pool,
                predict_stage(job).resource,
                probe_prediction,
                [(own, block, permit) for own, block in zip(tasks, blocks, strict=True)],
                deadline,
                voxels,
            )
        found = _all(pool, "CPU", probe_others, [(probe, job.roi, permit) for probe in first], deadline, voxels)
        besides = seconds_besides_blocks(f"{scratch.folder}/ledger", pool)
        return [replace(probe, besides=besides) for probe in found]
    finally:
        pool.cancel()


def adopt(job: Job, probes: Sequence[Probe]) -> None:
    """Take the boundaries of samples over into the output, as blocks of the prediction that are done."""
    stage = predict_stage(job)
    ledger = stage.ledger
    ledger.begin(stage.plan.blocks)
    for probe in probes:
        if probe.result is not None:
            _copy(probe.job, job, probe.block)
            ledger.record(probe.block, {"seconds": round(probe.stages["predict"].seconds, 3), **probe.result})


def _copy(source: Job, target: Job, block: Block) -> None:
    box = Block((0, *block.begin), (source.network.channels, *block.end))
    write_box(target.boundaries, box, read_box(source.boundaries, box))


def _all(
    pool: Pool,
    resource: Resource | None,
    function: Any,  # noqa: ANN401
    calls: Sequence[tuple[Any, ...]],
    deadline: float | None,
    voxels: int = 0,
) -> list[Any]:
    """Compute calls; return their results in order, or raise what one raised, once none is running any more.

    A call that hangs is ended as in a run, a block of ``voxels`` each; ``deadline`` is that of a call.
    """
    pace = Pace(deadline)
    begin = time.monotonic()
    tickets = [pool.submit(function, *call, resource=resource) for call in calls]
    results: dict[int, Any] = {}
    while len(results) < len(tickets):
        if arrived := pool.next_within(SECONDS_OF_PATIENCE):
            ticket, results[ticket] = arrived
            pace.learn(time.monotonic() - begin)
        pool.end_overdue(lambda _: pace.allowed(1, voxels=voxels))
    for outcome in results.values():
        if isinstance(outcome, Exception):
            raise outcome
    return [results[ticket] for ticket in tickets]
