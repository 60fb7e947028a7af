"""Ends a command on Ctrl-C and SIGTERM, whatever runs at that moment."""

from __future__ import annotations

import _thread
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)
SECONDS_BETWEEN_LOOKS = 0.1
SECONDS_TO_END = 10.0
"""After a request, in which further ones change nothing: who is impatient would break off what ends the workers, and
leave their remains to be complained of. Later ones are heard again, in case that this hangs."""

_asked = False
"""Whether the process was asked to end, within `stoppable`. No event: a handler must not wait for its lock."""

NOTHING_YET = "nothing was done yet"


class Stopped(BaseException):
    """Somebody asked this process to end; no `KeyboardInterrupt`, which the command-line library keeps to itself.

    Its text is what that means, a clause.
    """


@contextmanager
def stoppable() -> Iterator[None]:
    """Raise `Stopped` in the main thread when the process is asked to end; the wall time of a batch system is SIGTERM.

    A request can be lost: the interpreter drops an exception that a handler raises while a destructor or the callback
    of a weak reference runs, and a library may catch everything that what it calls raises, compiled code above all.
    So a thread looks from then on whether the main thread is being unwound, and where it is not asks once more. What a
    library raises in its place becomes `Stopped` here, see `is_stop`.

    Once `Stopped` has left this, the process ignores these signals: nothing is left to it but to end.
    """
    global _asked
    raised: list[float] = []
    own, main = os.getpid(), threading.get_ident()
    left = False

    def watch() -> None:
        while True:
            time.sleep(SECONDS_BETWEEN_LOOKS)
            if left:
                return
            if not _unwinds(main):
                raised.clear()
                signal.pthread_kill(main, signal.SIGTERM)
                return  # what hears this watches again

    def stop(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - the signature of a signal handler
        global _asked
        if os.getpid() != own:  # a fork, which a terminal sends Ctrl-C to, too, and which this process ends
            if number != signal.SIGINT:
                signal.signal(number, signal.SIG_DFL)
                signal.raise_signal(number)
            return
        if raised and time.monotonic() - raised[-1] < SECONDS_TO_END:
            return
        raised.append(time.monotonic())
        _asked = True
        # not by `threading`, whose lock the main thread may hold at this moment
        _thread.start_new_thread(watch, ())
        if "distributed" in sys.modules:  # else loading this is what would take time before anything is heard
            import logging

            logging.getLogger("distributed").setLevel(logging.CRITICAL + 1)  # of connections that end now
        raise Stopped(NOTHING_YET)  # a command that has begun tells what it means, see `Command`

    before = {number: signal.signal(number, stop) for number in SIGNALS}
    report = sys.unraisablehook

    def dropped(what: sys.UnraisableHookArgs) -> None:
        if not issubclass(what.exc_type, Stopped):
            report(what)

    sys.unraisablehook = dropped
    try:
        yield
    except BaseException as error:
        if not is_stop(error):
            raise
        before = dict.fromkeys(SIGNALS, signal.SIG_IGN)
        if isinstance(error, Stopped):
            raise
        raise Stopped(NOTHING_YET) from None
    finally:
        left = True
        _asked = False
        sys.unraisablehook = report
        for number, handler in before.items():
            signal.signal(number, handler)


def is_stop(error: BaseException) -> bool:
    """Tell whether this is `Stopped`, or what a library raised in its place: an error that knows nothing of a request.

    One that cleaning up has met with does, and tells of something else.
    """
    return isinstance(error, Stopped) or (isinstance(error, Exception) and _asked and not _knows(error))


def _unwinds(thread: int) -> bool:
    """Tell whether a thread handles `Stopped`, or what was raised meanwhile: whether it is cleaning up."""
    handled = sys._current_exceptions().get(thread)
    # since Python 3.12 the exception itself
    return _knows(handled[1] if isinstance(handled, tuple) else handled)


def _knows(error: BaseException | None) -> bool:
    """Tell whether an exception is `Stopped`, or was raised while that was handled."""
    # a generator that is closed on the way does not know why
    while error is not None and not isinstance(error, Stopped | GeneratorExit):
        error = error.__context__
    return error is not None
