"""How far a download is: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

EVERY = 10.0
"""Seconds between two lines."""
MEGABYTE = 1_000_000


class Transfers:
    """Told the name of a file, what of it is here, and all of it where known; one bar or row of lines a file.

    Parameters
    ----------
    console
        Where it goes; none: standard error.
    """

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True, highlight=False, soft_wrap=True)
        self._bars = Progress(
            TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[size]}"), TimeRemainingColumn(),
            console=self.console, disable=not self.console.is_terminal,
        )  # fmt: skip
        self._tasks: dict[str, TaskID] = {}
        self._told: dict[str, float] = {}

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(self, *reason: object) -> None:
        self._bars.stop()

    def __call__(self, name: str, have: int, whole: int | None) -> None:
        """Show it, if it is time."""
        size = _size(have, whole)
        if self.console.is_terminal:
            if name not in self._tasks:
                self._tasks[name] = self._bars.add_task(name, size="")
            self._bars.update(self._tasks[name], completed=have, total=whole, size=size)
            return
        now = time.monotonic()
        if have == whole or now - self._told.setdefault(name, now) >= EVERY:
            self._told[name] = now
            self.console.print(f"{name}  {size}")


def _size(have: int, whole: int | None) -> str:
    """Write bytes in MB, and fewer things, such as files of an archive, as they are."""
    if (whole or have) < MEGABYTE:
        return f"{have}" if whole is None else f"{have} of {whole}"
    return f"{have / MEGABYTE:.1f} MB" if whole is None else f"{have / MEGABYTE:.1f} of {whole / MEGABYTE:.1f} MB"
