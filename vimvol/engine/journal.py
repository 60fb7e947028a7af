"""What a run reports of its stages, for the record: `vimvol.engine.run.Progress` is for people who wait."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Protocol

from vimvol.engine.usage import Usage
from vimvol.geometry import Block

Trouble = Literal["retry", "lost", "failed"]
"""A block is tried again; lost its worker process, and is tried again alone; is set aside for good."""


@dataclass(frozen=True)
class StageReport:
    """What one run did of a stage.

    Attributes
    ----------
    name
        Name of the stage.
    blocks, voxels
        Finished by this run; voxels in the region of interest.
    retries, failures
        Times that blocks were tried again, and blocks that failed for good.
    seconds
        Wall time.
    busy
        Seconds that blocks ran, of all workers together, without those in which they waited for their turn to compute;
        more than the workers have where blocks are read and written while others compute.
    usage
        What the finished blocks took, of all workers together; its peak is that of one process.
    """

    name: str
    blocks: int
    voxels: int
    retries: int
    failures: int
    seconds: float
    busy: float
    usage: Usage


class Journal(Protocol):
    """Takes down what happens."""

    def stage(self, name: str, blocks: int, done: int, voxels: int) -> None:
        """Take down that a stage of so many blocks begins, some of which an earlier run finished."""

    def done(self, block: Block, result: dict[str, Any]) -> None:
        """Take down a finished block and what it returned; called for every one of them."""

    def trouble(self, what: Trouble, block: Block, error: str, trace: str = "") -> None:
        """Take down what went wrong with a block."""

    def finish(self, report: StageReport) -> None:
        """Take down the end of a stage, also of one that was cut short."""


class NoJournal:
    """Takes nothing down."""

    def stage(self, name: str, blocks: int, done: int, voxels: int) -> None:
        """Do nothing."""

    def done(self, block: Block, result: dict[str, Any]) -> None:
        """Do nothing."""

    def trouble(self, what: Trouble, block: Block, error: str, trace: str = "") -> None:
        """Do nothing."""

    def finish(self, report: StageReport) -> None:
        """Do nothing."""
