"""Ends a command on Ctrl-C and SIGTERM, whatever runs at that moment."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)
SECONDS_BEFORE_AGAIN = 0.05
SECONDS_TO_END = 10.0
"""After a request, in which further ones change nothing: who is impatient would break off what ends the workers, and
leave their remains to be complained of. Later ones are heard again, in case that this hangs."""


class Stopped(BaseException):
    """Somebody asked this process to end; no `KeyboardInterrupt`, which the command-line library keeps to itself.

    Its text is what that means, a clause.
    """


@contextmanager
def stoppable() -> Iterator[None]:
    """Raise `Stopped` in the main thread when the process is asked to end; the wall time of a batch system is SIGTERM.

    The interpreter drops an exception that a handler raises while a destructor or the callback of a weak reference
    runs, and the request would be lost with it. Such a one is raised again a moment later, until it is heard.

    Once `Stopped` has left this, the process ignores these signals: nothing is left to it but to end.
    """
    raised: list[float] = []
    own = os.getpid()

    def stop(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - the signature of a signal handler
        if os.getpid() != own:  # a fork, which a terminal sends Ctrl-C to, too, and which this process ends
            if number != signal.SIGINT:
                signal.signal(number, signal.SIG_DFL)
                signal.raise_signal(number)
            return
        if raised and time.monotonic() - raised[-1] < SECONDS_TO_END:
            return
        raised.append(time.monotonic())
        if "distributed" in sys.modules:  # else loading this is what would take time before anything is heard
            import logging

            logging.getLogger("distributed").setLevel(logging.CRITICAL + 1)  # of connections that end now
        raise Stopped("nothing was done yet")  # a command that has begun tells what it means, see `Command`

    before = {number: signal.signal(number, stop) for number in SIGNALS}
    report = sys.unraisablehook
    main = threading.get_ident()
    timers: list[threading.Timer] = []

    def dropped(what: sys.UnraisableHookArgs) -> None:
        if not issubclass(what.exc_type, Stopped):
            report(what)
            return
        raised.clear()
        # Not from here: what this function raises is dropped, too. Once for several signals, as a further one would
        # disturb what cleans up after the first.
        if not any(timer.is_alive() for timer in timers):
            timers[:] = [threading.Timer(SECONDS_BEFORE_AGAIN, signal.pthread_kill, [main, signal.SIGTERM])]
            timers[0].daemon = True
            timers[0].start()

    sys.unraisablehook = dropped
    try:
        yield
    except Stopped:
        before = dict.fromkeys(SIGNALS, signal.SIG_IGN)
        raise
    finally:
        sys.unraisablehook = report
        for number, handler in before.items():
            signal.signal(number, handler)
