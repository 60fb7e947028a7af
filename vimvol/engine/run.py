"""Runs the blocks of a stage: a sliding window of calls, retries, deadlines, and a ledger of what is done."""

from __future__ import annotations

import heapq
import itertools
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from vimvol.engine.blocks import FATAL, BlockTask, Outcome, compute_blocks, reason_of
from vimvol.engine.execution import Execution, Progress
from vimvol.engine.journal import StageReport
from vimvol.engine.ledger import Ledger
from vimvol.engine.pace import Pace
from vimvol.engine.plan import StagePlan
from vimvol.engine.pool import WorkerLostError
from vimvol.engine.recorder import Recorder
from vimvol.engine.usage import Usage
from vimvol.errors import IncompleteRunError
from vimvol.geometry import Block

__all__ = ["Execution", "Progress", "run_stage"]

CALLS_PER_SLOT = 4
"""Calls in flight for every call that can run: enough that no worker waits, few enough to keep the scheduler small."""
SECONDS_BEFORE_RETRY = 0.25
"""Wait before a block is tried again, four times as long before every further try: storage may recover."""
SECONDS_BETWEEN_CHECKS = 1.0
NAMED = 5
"""Blocks that failed for good which the last message names; the ledger has all."""
HOPELESS = 20
"""A stage ends early once this many blocks failed for good and none was finished."""


def run_stage(plan: StagePlan, task: BlockTask, ledger: Ledger, execution: Execution) -> None:
    """Run every block of a stage that the ledger does not list yet.

    A constant number of calls is in flight; where blocks are many and short, a call computes several. A block that
    fails is tried again, and set aside after ``execution.retries`` more failures while the others go on. A block
    that takes far longer than the others is ended together with its worker process, counts as failed, and has more
    time in its next try. Blocks whose workers died are tried again in the end, one at a time with nothing else in
    flight: each of them may only have been on the same worker as the one that is to blame, which is set aside.

    Raises
    ------
    InputError, DiskFullError, OutputLostError
        At once, if a block raises it: no other block would fare better.
    DeviceLostError
        The same, if this very process computes; a worker process is ended by it, and its blocks count as lost.
    IncompleteRunError
        At the end, if blocks failed for good; the message names the first, and the ledger has all.
    """
    ledger.begin(plan.blocks)
    missing = ledger.missing(plan.blocks)
    left = missing.count(plan)
    blocks = left.finished + left.parts
    ledger.describe(plan.blocks, len(plan), plan.voxels)
    slots = execution.pool.slots_for(execution.resource)
    execution.progress.stage(plan.name, blocks, left.finished, plan.wanted, slots)
    execution.journal.stage(plan.name, blocks, left.finished, plan.wanted)
    recorder = Recorder(ledger)
    stage = _Stage(plan, execution.guard(task), recorder, execution, missing.parts(plan), left.parts)
    try:
        with recorder:
            stage.run()
    finally:
        execution.pool.cancel()
        execution.progress.finish()
        execution.journal.finish(stage.report())
    if stage.failures:
        raise IncompleteRunError(_summary(plan.name, blocks, stage))


@dataclass(frozen=True, slots=True)
class _Call:
    """Blocks that one call computes; of a call that failed before, there is one, and it may run ``alone``."""

    blocks: tuple[Block, ...]
    failures: int = 0
    alone: bool = False


class _Stage:
    """The state of one stage while it runs."""

    def __init__(
        self,
        plan: StagePlan,
        task: BlockTask,
        recorder: Recorder,
        execution: Execution,
        todo: Iterator[Block],
        left: int,
    ) -> None:
        self._name, self._voxels_of = plan.name, plan.wanted_of
        self._task, self._recorder, self._execution = task, recorder, execution
        self._pool, self._todo, self._left = execution.pool, todo, left
        self._pace = Pace(execution.deadline, execution.sampled)
        self._in_flight: dict[int, _Call] = {}
        self._again: list[tuple[float, int, _Call]] = []
        self._order = itertools.count()
        self._suspects: deque[_Call] = deque()
        self._begin = time.monotonic()
        self._idle = 0
        self._voxels = self._retries = 0
        self._busy, self._usage = 0.0, Usage()
        self.finished = 0
        self.failures = 0
        self.named: list[tuple[Block, str]] = []

    def run(self) -> None:
        while True:
            self._execution.check()
            self._fill()
            if not self._in_flight and not self._again:
                return
            self._tell_idle()
            if arrived := self._pool.next_within(self._patience()):
                ticket, outcome = arrived
                self._take(self._in_flight.pop(ticket), outcome)
            self._recorder.write()
            self._pool.end_overdue(self._allowed)

    def report(self) -> StageReport:
        """Return what was done so far."""
        seconds = time.monotonic() - self._begin
        return StageReport(
            self._name, self.finished, self._voxels, self._retries, self.failures, seconds, self._busy, self._usage
        )

    def _tell_idle(self) -> None:
        idle = max(0, self._slots - len(self._in_flight))
        if idle != self._idle:
            self._idle = idle
            self._execution.progress.idle(idle)

    @property
    def _slots(self) -> int:
        return self._pool.slots_for(self._execution.resource)

    def _fill(self) -> None:
        """Submit calls until the window is full."""
        window = self._execution.window or CALLS_PER_SLOT * self._slots
        while len(self._in_flight) < window and (call := self._next_call(window)) is not None:
            ticket = self._pool.submit(
                compute_blocks,
                self._task,
                call.blocks,
                self._name,
                resource=self._execution.resource,
                # In the end a block that was read ahead would keep others idle.
                ahead=self._execution.ahead and self._left >= 2 * self._slots,
            )
            self._in_flight[ticket] = call

    def _next_call(self, window: int) -> _Call | None:
        """Return the next call: one to be tried again, else new blocks, else one that has to be alone."""
        if any(call.alone for call in self._in_flight.values()):
            return None
        if self._again and self._again[0][0] <= time.monotonic():
            return heapq.heappop(self._again)[2]
        # Where nothing but lost calls came back, these are looked into first.
        if self.finished or len(self._suspects) + self.failures < HOPELESS:
            blocks = tuple(itertools.islice(self._todo, self._pace.blocks_of_call(self._left, window)))
            self._left -= len(blocks)
            if blocks:
                return _Call(blocks)
        return self._suspects.popleft() if self._suspects and not self._in_flight and not self._again else None

    def _patience(self) -> float:
        """Return for how many seconds to wait for the next call to end."""
        if not self._again:
            return SECONDS_BETWEEN_CHECKS
        return min(SECONDS_BETWEEN_CHECKS, max(0.0, self._again[0][0] - time.monotonic()))

    def _allowed(self, ticket: int) -> float:
        """Return the seconds that a call may take: the more, the fewer tries its block has left."""
        call, retries = self._in_flight[ticket], self._execution.retries
        voxels = sum(block.size for block in call.blocks)
        if len(call.blocks) > 1:  # if it is ended, its blocks go one by one, and none is blamed
            return self._pace.allowed(len(call.blocks), voxels=voxels)
        return self._pace.allowed(1, min(1.0, call.failures / retries) if retries else 1.0, voxels)

    def _take(self, call: _Call, outcome: list[Outcome] | Exception) -> None:
        """Record what became of the blocks of a call, and plan further tries."""
        if isinstance(outcome, Exception):
            self._lost(call, outcome)
            return
        voxels = done = 0
        for block, each in zip(call.blocks, outcome, strict=False):
            self._busy += each.seconds
            self._usage += each.usage
            if each.error is not None or each.result is None:
                self._failed(block, call.failures, each.error or TypeError("the block returned nothing"), each.trace)
                continue
            self._pace.learn(each.seconds)
            self._recorder.done(block, {"seconds": round(each.seconds, 3), **each.result})
            self._execution.journal.done(block, each.result)
            done, voxels = done + 1, voxels + self._voxels_of(block)
        self.finished += done
        self._voxels += voxels
        if done:
            self._execution.progress.advance(done, voxels)

    def _lost(self, call: _Call, error: Exception) -> None:
        """Deal with a call of which nothing came back: by single blocks it shows which one is to blame."""
        if isinstance(error, WorkerLostError) and call.alone:
            self._set_aside(call.blocks[0], call.failures + 1, error, "")
        elif isinstance(error, WorkerLostError):  # of this call or of another that the worker had
            for block in call.blocks:
                self._tell_retry("lost", block, reason_of(error))
                self._suspects.append(_Call((block,), call.failures, alone=True))
        elif len(call.blocks) > 1 and not isinstance(error, FATAL):
            for block in call.blocks:
                self._try_again(_Call((block,), call.failures), reason_of(error))
        else:
            self._failed(call.blocks[0], call.failures, error, "")

    def _failed(self, block: Block, failures: int, error: Exception, trace: str) -> None:
        if isinstance(error, FATAL):
            raise error
        if failures < self._execution.retries:
            self._try_again(_Call((block,), failures + 1), reason_of(error), trace)
        else:
            self._set_aside(block, failures + 1, error, trace)

    def _tell_retry(self, what: Literal["retry", "lost"], block: Block, reason: str, trace: str = "") -> None:
        self._retries += 1
        self._execution.progress.retry()
        self._execution.journal.trouble(what, block, reason, trace)

    def _try_again(self, call: _Call, reason: str, trace: str = "") -> None:
        self._tell_retry("retry", call.blocks[0], reason, trace)
        wait = SECONDS_BEFORE_RETRY * 4 ** (call.failures - 1) if call.failures else 0.0
        heapq.heappush(self._again, (time.monotonic() + wait, next(self._order), call))

    def _set_aside(self, block: Block, attempts: int, error: Exception, trace: str) -> None:
        reason = reason_of(error)
        self._recorder.failed(block, {"error": reason, "attempts": attempts, "trace": trace})
        self._execution.journal.trouble("failed", block, reason, trace)
        self.failures += 1
        if len(self.named) < NAMED:
            self.named.append((block, reason))
        if self.failures == HOPELESS and not self.finished:
            self._todo = iter(())
            self._again.clear()
            self._suspects.clear()


def _summary(name: str, total: int, stage: _Stage) -> str:
    blocks = ", ".join(str(block) for block, _ in stage.named) + (", ..." if stage.failures > NAMED else "")
    rest = "the others are kept" if stage.finished else "none was finished, so the stage ended early"
    if stage.failures < HOPELESS and not stage.finished:
        rest = "finished blocks are kept"
    return (
        f"stage {name}: {stage.failures} of {total} blocks failed for good ({blocks}); the first with "
        f"{stage.named[0][1]}; {rest}, run the same command again to try these"
    )
