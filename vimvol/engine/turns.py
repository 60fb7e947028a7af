"""Turns to compute: on a worker one block computes while the next is read and the one before is written.

A worker of Dask begins a call when it has a thread for it. A call that reads ahead gives up its thread as soon as it
computes, so that the worker begins the next one, which reads what it needs and then waits for its turn. So one thread
computes, and others do nothing but read, write and decompress. At most one call more than may compute is between its
first turn and its end, so the memory is bounded: beside each block that is computed, one is read ahead and one written.
"""

from __future__ import annotations

import contextlib
import functools
import os
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from threading import Semaphore
from typing import Any

from vimvol.errors import DeviceLostError

TOPICS_HERE: set[str] = set()
"""Topics of the pools of this process, which must not be ended with a worker that is one of its threads."""

FINISHED: set[tuple[str, str | None]] = set()
"""Workers of this process in which a call has ended, and what it wanted of them: their device was all right then."""

SECONDS_TO_TELL = 1.0
"""Between what a worker tells last and the end of its process: what is sent leaves within milliseconds, and who
hears of it may close the worker for good."""


class _Turns:
    """Those of one worker process, in which ``slots`` calls compute at once."""

    def __init__(self, slots: int) -> None:
        self.computing = Semaphore(slots)
        self.begun = Semaphore(slots + 1)
        """Taken by a call that reads ahead from its first turn to its end, so that not ever more are begun."""


@functools.lru_cache(maxsize=16)
def _turns_of(worker: str, slots: int) -> _Turns:  # noqa: ARG001 - tests have several workers in one process
    return _Turns(slots)


class _Call:
    """A call that runs, as its own thread knows it.

    Parameters
    ----------
    turns
        Of its worker.
    ahead
        Whether the worker may begin the next call while this one computes.
    tell
        Tells the client that the call goes on, or (false) that it waits for its turn.
    """

    def __init__(self, turns: _Turns, ahead: bool, tell: Callable[[bool], None]) -> None:
        self._turns, self._ahead, self._tell = turns, ahead, tell
        self._begun = self._left = False
        self.waited = 0.0

    def take(self) -> None:
        """Wait for the turn."""
        start = time.perf_counter()
        first = self._ahead and not self._begun
        told = False
        # In this order: who waits for another to end must not hold the turn that the other needs.
        for semaphore in (self._turns.begun, self._turns.computing) if first else (self._turns.computing,):
            if not semaphore.acquire(blocking=False):
                if not told:
                    self._tell(False)
                    told = True
                semaphore.acquire()
            self._begun |= first
        if told:
            self._tell(True)
        self.waited += time.perf_counter() - start

    def make_room(self) -> None:
        """Let the worker begin the next call, once."""
        if self._begun and not self._left:
            self._left = True
            import distributed  # here and below only, as what the ledger needs is loaded without Dask

            distributed.secede()

    def give(self) -> None:
        """Leave the turn to the next."""
        self._turns.computing.release()

    def end(self) -> None:
        """Make room for one more that reads ahead."""
        if self._begun:
            self._turns.begun.release()


_CALL: ContextVar[_Call | None] = ContextVar("call", default=None)


@contextlib.contextmanager
def turn() -> Iterator[None]:
    """Compute within, as soon as no other call of this worker does; what is not on a worker computes at once."""
    call = _CALL.get()
    if call is None:
        yield
        return
    call.take()
    try:
        call.make_room()
        yield
    finally:
        call.give()


def seconds_waited() -> float:
    """Return for how long the call that runs here has waited for its turns."""
    call = _CALL.get()
    return 0.0 if call is None else call.waited


def offers(resource: str) -> bool:
    """Tell whether this is a worker that declares a resource."""
    import distributed

    try:
        worker = distributed.get_worker()
    except ValueError:  # it is none
        return False
    return bool(worker.state.total_resources.get(resource))


def run_call(
    topic: str,
    resource: str | None,
    share: float,
    ahead: bool,
    function: Callable[..., Any],
    *args: Any,  # noqa: ANN401 - any picklable argument
) -> Any:  # noqa: ANN401
    """Compute a call on a worker.

    Parameters
    ----------
    topic
        Of Dask's events, by which the client is told that the call begins, waits, and goes on: ``(worker, key,
        whether it goes on)``; or that the worker's device is lost: ``(worker, key, how)``, the last the fields of
        `vimvol.engine.broken.DeviceFailure`.
    resource, share
        What of the worker a call takes that computes: as many compute at once. None: a thread.
    ahead
        Whether the worker may begin the next call while this one computes.
    function, args
        What to compute. It computes in turns where it says so, see `turn`. If it loses its device, the process ends:
        it would fail every later call at once, and as it were always idle most calls would be sent to it.
    """
    import distributed

    worker = distributed.get_worker()
    key = worker.get_current_task()

    def tell(goes_on: bool) -> None:
        worker.log_event(topic, (worker.address, key, goes_on))

    slots = worker.state.nthreads if resource is None else int(worker.state.total_resources[resource] / share)
    call = _Call(_turns_of(worker.address, slots), ahead, tell)
    token = _CALL.set(call)
    tell(True)
    try:
        outcome = function(*args)
        FINISHED.add((worker.address, resource))
        return outcome
    except DeviceLostError as error:
        if topic in TOPICS_HERE:
            raise
        how = {
            "cause": error.args[0],
            "worker": worker.nanny or worker.address,
            "name": str(worker.name),
            "returns": bool(worker.nanny),
            "finished": (worker.address, resource) in FINISHED,
            "resource": resource,
        }
        worker.log_event(topic, (worker.address, key, how))
        time.sleep(SECONDS_TO_TELL)
        os._exit(1)  # a nanny starts it anew; what else it computes is lost, too, as if the system had killed it
    finally:
        _CALL.reset(token)
        call.end()
