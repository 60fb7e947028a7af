"""How the blocks of every stage are run: where, told to whom, and what becomes of one that fails."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Protocol

from vimvol.engine.blocks import BlockTask
from vimvol.engine.journal import Journal, NoJournal
from vimvol.engine.pool import Pool, Resource


class Progress(Protocol):
    """What a run tells of its progress."""

    def stage(self, name: str, total_blocks: int, done_blocks: int, voxels: int, slots: int = 1) -> None:
        """Begin a stage of ``total_blocks``, ``done_blocks`` of which an earlier run finished; ``voxels`` in all.

        Voxels are those in the region of interest. ``slots`` blocks are computed at once.
        """

    def advance(self, blocks: int, voxels: int) -> None:
        """Report blocks finished since the last call."""

    def retry(self) -> None:
        """Report that a block failed and is tried again."""

    def idle(self, slots: int) -> None:
        """Report how many calls more could run than there are: so many workers have nothing to do."""

    def finish(self) -> None:
        """End the stage."""

    def note(self, text: str) -> None:
        """Tell a line that belongs to no stage."""


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
        Calls in flight; none: `vimvol.engine.run.CALLS_PER_SLOT` for each slot of the pool.
    retries
        Times that a failed block is tried again before it is set aside.
    resource
        What the blocks want of a worker; none: any worker will do.
    ahead
        Whether a worker reads the next block while one computes; the blocks say by `vimvol.engine.turns.turn` when
        they do.
    deadline
        Seconds after which a block counts as hung; none: learned from the others, see `Pace.allowed`.
    sampled
        Seconds that a block took in a sample; 0: none was taken.
    check
        Asked now and then whether the run may go on; raises if not.
    guard
        Makes of a task one that writes only while the run may; picklable like the task.
    journal
        Takes down what happens.
    """

    pool: Pool
    progress: Progress
    window: int | None = None
    retries: int = 2
    resource: Resource | None = None
    ahead: bool = False
    deadline: float | None = None
    sampled: float = 0.0
    check: Callable[[], None] = lambda: None
    guard: Callable[[BlockTask], BlockTask] = lambda task: task
    journal: Journal = field(default_factory=NoJournal)

    def on(self, resource: Resource | None, *, ahead: bool = False) -> Execution:
        """Return the same for blocks that want this resource, and may be read while others compute."""
        return replace(self, resource=resource, ahead=ahead)
