"""Runs the blocks of a stage: a sliding window of calls, retries, and a ledger of what is done."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol

from vimvol.engine.ledger import Ledger, block_name
from vimvol.engine.plan import StagePlan
from vimvol.engine.pool import Pool, Resource
from vimvol.errors import DiskFullError, IncompleteRunError, InputError
from vimvol.geometry import Block

BlockTask = Callable[[Block], dict[str, Any]]
"""Computes and writes one block; picklable; returns a small JSON-serialisable result for the ledger."""

CALLS_PER_SLOT = 4
"""Calls in flight for every call that can run: enough that no worker waits, few enough to keep the scheduler small."""


class Progress(Protocol):
    """What a run tells of its progress."""

    def stage(self, name: str, total_blocks: int, done_blocks: int, voxels: int) -> None:
        """Begin a stage of ``total_blocks``, ``done_blocks`` of which an earlier run finished; ``voxels`` in all."""

    def advance(self, blocks: int, voxels: int) -> None:
        """Report blocks finished since the last call."""

    def retry(self) -> None:
        """Report that a block failed and is tried again."""

    def finish(self) -> None:
        """End the stage."""


@dataclass(frozen=True)
class Execution:
    """How the blocks of every stage are run.

    Attributes
    ----------
    pool
        Where they are computed.
    progress
        Who is told.
    window
        Blocks in flight; none: `CALLS_PER_SLOT` for each slot of the pool.
    retries
        Times that a failed block is tried again before it is set aside.
    resource
        What the blocks want of a worker; none: any worker will do.
    """

    pool: Pool
    progress: Progress
    window: int | None = None
    retries: int = 2
    resource: Resource | None = None

    def on(self, resource: Resource | None) -> Execution:
        """Return the same for blocks that want this resource."""
        return replace(self, resource=resource)


def compute_block(task: BlockTask, ledger: Ledger, block: Block) -> None:
    """Compute one block and record it: what every pool runs, on the machine that has the block."""
    start = time.perf_counter()
    result = task(block)
    ledger.record(block, {"seconds": round(time.perf_counter() - start, 3), **result})


def run_stage(plan: StagePlan, task: BlockTask, ledger: Ledger, execution: Execution) -> None:
    """Run every block of a stage that the ledger does not list yet.

    A constant number of blocks is in flight. A block that fails is tried again, and set aside after
    ``execution.retries`` more failures while the others go on.

    Raises
    ------
    InputError, DiskFullError
        At once, if a block raises it: no other block would fare better.
    IncompleteRunError
        At the end, if blocks failed for good; the message names the first.
    """
    ledger.begin()
    done = ledger.done()
    left = (block for block in plan if block_name(block) not in done)
    pool, progress = execution.pool, execution.progress
    finished = sum(block_name(block) in done for block in plan)
    progress.stage(plan.name, len(plan), finished, plan.blocks.voxels)
    window = execution.window or CALLS_PER_SLOT * pool.slots_for(execution.resource)

    def submit(block: Block) -> int:
        return pool.submit(compute_block, task, ledger, block, resource=execution.resource)

    in_flight: dict[int, tuple[Block, int]] = {}
    failed: list[tuple[Block, Exception]] = []
    try:
        while True:
            while len(in_flight) < window and (block := next(left, None)) is not None:
                in_flight[submit(block)] = (block, 0)
            if not in_flight:
                break
            ticket, outcome = pool.next_done()
            block, failures = in_flight.pop(ticket)
            if not isinstance(outcome, Exception):
                progress.advance(1, block.size)
            elif isinstance(outcome, InputError | DiskFullError):
                raise outcome
            elif failures < execution.retries:
                progress.retry()
                in_flight[submit(block)] = (block, failures + 1)
            else:
                failed.append((block, outcome))
    finally:
        progress.finish()
    if failed:
        raise IncompleteRunError(_explain(plan, failed))


def _explain(plan: StagePlan, failed: list[tuple[Block, Exception]]) -> str:
    error = failed[0][1]
    names = ", ".join(str(block) for block, _ in failed[:5]) + (", ..." if len(failed) > 5 else "")
    reason = " ".join(str(error).split()) or type(error).__name__
    return (
        f"stage {plan.name}: {len(failed)} of {len(plan)} blocks failed for good ({names}); the first with "
        f"{type(error).__name__}: {reason}; the others are kept, run the same command again to try these"
    )
