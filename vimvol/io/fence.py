"""Who may write: a check that is made right before anything is written, wherever that happens.

A worker may still compute for a run that was killed long ago. What it writes then could replace what another run has
written since, with data of other settings. So a run lets its tasks write only while it holds the output.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar

_CHECK: ContextVar[Callable[[], None] | None] = ContextVar("check", default=None)


@contextlib.contextmanager
def writing_only_if(check: Callable[[], None]) -> Iterator[None]:
    """Let this thread write arrays and tables only where a check passes, each time; it raises if not."""
    before = _CHECK.set(check)
    try:
        yield
    finally:
        _CHECK.reset(before)


def may_write() -> None:
    """Make the check of this thread, if it has one; its error says that nothing may be written."""
    check = _CHECK.get()
    if check is not None:
        check()
