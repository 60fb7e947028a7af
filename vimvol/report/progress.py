"""How far a run is: a live line on a terminal, plain lines elsewhere, or nothing.

Rates and remaining times come from the blocks of this run alone; what an earlier run finished counts as done, not
as fast.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Protocol, TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, ProgressColumn, Task, TaskID, TextColumn
from rich.progress import Progress as RichProgress
from rich.text import Text

from vimvol.engine.run import Progress as Told
from vimvol.report.amounts import clock_text, count_text

SECONDS_BETWEEN_LINES = 10.0
SHARE_BETWEEN_LINES = 0.1
"""A plain line comes after this time and this share of the blocks, or after `LONGEST_SILENCE`; or as soon as the
remaining time is known, if the line before could not tell it."""
LONGEST_SILENCE = 60.0
"""Seconds."""


class Progress(Told, Protocol):
    """What a run tells of its progress, and a context manager that keeps the terminal in order."""

    def __enter__(self) -> Progress:
        """Return itself."""
        ...

    def __exit__(self, *reason: object) -> None:
        """Leave the terminal as it was."""


class Silent:
    """Tells nobody."""

    def stage(self, name: str, total_blocks: int, done_blocks: int, voxels: int, slots: int = 1) -> None:
        """Do nothing."""

    def advance(self, blocks: int, voxels: int) -> None:
        """Do nothing."""

    def retry(self) -> None:
        """Do nothing."""

    def idle(self, slots: int) -> None:
        """Do nothing."""

    def finish(self) -> None:
        """Do nothing."""

    def note(self, text: str) -> None:
        """Do nothing."""

    def __enter__(self) -> Silent:
        """Return itself."""
        return self

    def __exit__(self, *reason: object) -> None:
        """Do nothing."""


class Counter:
    """The numbers of one stage.

    The first blocks, as many as there are workers, load and compile what the others find, so the remaining time goes by
    the blocks after these alone, and is told once there are as many of them, or half of those that were left.

    Attributes
    ----------
    name
        Name of the stage.
    total, done
        Blocks in all, and finished so far by this run or an earlier one.
    retries
        Blocks that were tried again.
    idle
        Workers that have nothing to do now.
    """

    def __init__(self, name: str, total: int, done: int, clock: Callable[[], float], slots: int = 1) -> None:
        self.name, self.total, self.done, self.retries, self.idle = name, total, done, 0, 0
        self._clock = clock
        self._start = clock()
        self._end: float | None = None
        self._blocks = 0
        self._voxels = 0
        self._slots = max(1, slots)
        self._warm: tuple[int, float] | None = None  # blocks and time when there were as many blocks as workers
        self._enough = 0  # blocks after these

    def advance(self, blocks: int, voxels: int) -> None:
        """Count blocks finished by this run."""
        self.done += blocks
        self._blocks += blocks
        self._voxels += voxels
        if self._warm is None and self._blocks >= self._slots:
            self._warm = self._blocks, self._clock()
            self._enough = min(self._slots, max(1, (self.total - self.done) // 2))

    def stop(self) -> None:
        """Stop the clock."""
        self._end = self._clock()

    @property
    def seconds(self) -> float:
        """Time since the stage began, until it was stopped."""
        return (self._clock() if self._end is None else self._end) - self._start

    @property
    def rate(self) -> float:
        """Megavoxels a second of this run."""
        return self._voxels / 1e6 / self.seconds if self.seconds > 0 else 0.0

    @property
    def eta(self) -> float | None:
        """Seconds left at the pace of this run; none before enough blocks after the first ones are done."""
        if self._warm is None or self._blocks < self._warm[0] + self._enough:
            return None
        blocks, then = self._warm
        return (self.total - self.done) * (self._clock() - then) / (self._blocks - blocks)

    def describe(self) -> str:
        """Return rate, remaining time and retries as text."""
        pace = f"ETA {'--:--' if self.eta is None else clock_text(self.eta)}"
        return self._text(pace if self.done < self.total else f"took {clock_text(self.seconds)}")

    def conclude(self) -> str:
        """Return rate, time and retries as text, at the end of a stage that may have been cut short."""
        self.idle = 0
        ended = "took" if self.done >= self.total else "stopped after"
        return self._text(f"{ended} {clock_text(self.seconds)}")

    def _text(self, time_text: str) -> str:
        # Without a block of this run there is no rate: all was done before, or the first is on its way.
        parts = [f"{self.rate:.2f} MVox/s"] if self._blocks else []
        parts.append(time_text)
        if self.retries:
            parts.append(count_text(self.retries, "retry", "retries"))
        if self.idle and self.done < self.total:
            parts.append(f"{self.idle} idle")
        return ", ".join(parts)


class Lines:
    """Tells by plain lines: at the begin of a stage, now and then, and at its end."""

    def __init__(self, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream or sys.stderr
        self._clock = clock
        self._counter: Counter | None = None
        self._last = (0.0, 0)
        self._owing = False  # the last line of the stage could not tell the remaining time

    def stage(self, name: str, total_blocks: int, done_blocks: int, voxels: int, slots: int = 1) -> None:
        """Write the first line of a stage."""
        self._counter = Counter(name, total_blocks, done_blocks, self._clock, slots)
        self._last, self._owing = (self._clock(), done_blocks), False
        there = f", {done_blocks} done before" if done_blocks else ""
        self._write(f"{name}: {count_text(total_blocks, 'block')}, {voxels / 1e6:.1f} MVox{there}")

    def advance(self, blocks: int, voxels: int) -> None:
        """Count, and write a line if the last is long ago."""
        counter = self._counter
        if counter is None:
            return
        counter.advance(blocks, voxels)
        now = self._clock()
        silence, share = now - self._last[0], (counter.done - self._last[1]) / counter.total
        due = silence >= SECONDS_BETWEEN_LINES and share >= SHARE_BETWEEN_LINES
        owed = self._owing and counter.eta is not None  # short stages may have no other line before their end
        if (due or owed or silence >= LONGEST_SILENCE) and counter.done < counter.total:
            self._last, self._owing = (now, counter.done), counter.eta is None
            self._write(f"{counter.name}: {counter.done}/{count_text(counter.total, 'block')}, {counter.describe()}")

    def retry(self) -> None:
        """Count a retry."""
        if self._counter is not None:
            self._counter.retries += 1

    def idle(self, slots: int) -> None:
        """Take note of it for the next line."""
        if self._counter is not None:
            self._counter.idle = slots

    def finish(self) -> None:
        """Write the last line of a stage."""
        counter = self._counter
        if counter is not None:
            self._write(f"{counter.name}: {counter.done}/{count_text(counter.total, 'block')}, {counter.conclude()}")
        self._counter = None

    def note(self, text: str) -> None:
        """Write a line."""
        self._write(text)

    def _write(self, text: str) -> None:
        print(text, file=self._stream, flush=True)

    def __enter__(self) -> Lines:
        """Return itself."""
        return self

    def __exit__(self, *reason: object) -> None:
        """Do nothing."""


class _Numbers(ProgressColumn):
    """Rate and remaining time, told anew whenever the line is drawn, also between blocks."""

    def render(self, task: Task) -> Text:
        """Return the text of a stage."""
        counter: Counter = task.fields["counter"]
        return Text(counter.conclude() if task.fields["ended"] else counter.describe())


class Live:
    """Tells by one live line a stage."""

    def __init__(self, console: Console | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._counter: Counter | None = None
        self._task = TaskID(0)
        self._bars = RichProgress(
            TextColumn("{task.description:<16}"),
            BarColumn(),
            MofNCompleteColumn(),
            _Numbers(),
            console=console or Console(stderr=True),
        )

    def stage(self, name: str, total_blocks: int, done_blocks: int, voxels: int, slots: int = 1) -> None:  # noqa: ARG002 - the protocol
        """Begin a line."""
        self._counter = Counter(name, total_blocks, done_blocks, self._clock, slots)
        self._task = self._bars.add_task(
            name, total=total_blocks, completed=done_blocks, counter=self._counter, ended=False
        )

    def advance(self, blocks: int, voxels: int) -> None:
        """Count."""
        if self._counter is not None:
            self._counter.advance(blocks, voxels)
            self._bars.update(self._task, completed=self._counter.done)

    def retry(self) -> None:
        """Count a retry."""
        if self._counter is not None:
            self._counter.retries += 1

    def idle(self, slots: int) -> None:
        """Take note of it for the next line."""
        if self._counter is not None:
            self._counter.idle = slots

    def finish(self) -> None:
        """Leave the line with its last numbers; its clock stands still."""
        if self._counter is not None:
            self._counter.stop()
            self._bars.update(self._task, ended=True)
        self._counter = None

    def note(self, text: str) -> None:
        """Write a line above those of the stages."""
        self._bars.console.print(Text(text))

    def __enter__(self) -> Live:
        """Take the terminal."""
        self._bars.start()
        return self

    def __exit__(self, *reason: object) -> None:
        """Give the terminal back."""
        self._bars.stop()


def make_progress() -> Progress:
    """Return what suits standard error: a live line on a terminal, else plain lines."""
    console = Console(stderr=True)
    return Live(console) if console.is_terminal and not console.is_dumb_terminal else Lines()


def silent() -> Progress:
    """Return a progress that tells nobody."""
    return Silent()
