"""Ends a command on Ctrl-C and SIGTERM, whatever runs at that moment."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)
SECONDS_BEFORE_AGAIN = 0.05


class Stopped(BaseException):
    """Somebody asked this process to end; no `KeyboardInterrupt`, which the command-line library keeps to itself."""


@contextmanager
def stoppable() -> Iterator[None]:
    """Raise `Stopped` in the main thread when the process is asked to end; the wall time of a batch system is SIGTERM.

    The interpreter drops an exception that a handler raises while a destructor or the callback of a weak reference
    runs, and the request would be lost with it. Such a one is raised again a moment later, until it is heard.
    """
    before = {number: signal.signal(number, _stop) for number in SIGNALS}
    report = sys.unraisablehook
    main = threading.get_ident()
    timers: list[threading.Timer] = []

    def dropped(what: sys.UnraisableHookArgs) -> None:
        if not issubclass(what.exc_type, Stopped):
            report(what)
            return
        # Not from here: what this function raises is dropped, too. Once for several signals, as a further one would
        # disturb what cleans up after the first.
        if not any(timer.is_alive() for timer in timers):
            timers[:] = [threading.Timer(SECONDS_BEFORE_AGAIN, signal.pthread_kill, [main, signal.SIGTERM])]
            timers[0].daemon = True
            timers[0].start()

    sys.unraisablehook = dropped
    try:
        yield
    finally:
        sys.unraisablehook = report
        for number, handler in before.items():
            signal.signal(number, handler)


def _stop(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - the signature of a signal handler
    raise Stopped
