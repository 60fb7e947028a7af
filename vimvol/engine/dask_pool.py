"""The pool of a Dask cluster."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import queue
import time
import uuid
from collections.abc import Callable, Container, Iterable, Iterator
from concurrent.futures import CancelledError
from typing import Any

import distributed

from vimvol.engine.broken import BrokenWorkers, DeviceFailure, Keep
from vimvol.engine.capacity import Capacity
from vimvol.engine.overdue import Clock
from vimvol.engine.pool import SHARE, SHARE_AHEAD, OverdueError, Resource, Room, WorkerLostError, WorkersBrokenError
from vimvol.engine.turns import TOPICS_HERE, run_call
from vimvol.errors import IncompleteRunError

LOG = logging.getLogger(__name__)

SECONDS_BETWEEN_LOOKS = 2.0
"""Time between two looks at which worker computes what, from which a hung call is told."""

SECONDS_TO_ANSWER = 5.0
"""For workers that are called beside their work; one that is hung is not waited for."""

SCHEDULER_GONE = (
    "the scheduler of the Dask cluster is gone, so nothing more can be computed; finished blocks are kept, run the "
    "same command again to go on"
)


class DaskPool:
    """Computes on the workers of a Dask cluster.

    Parameters
    ----------
    client
        Of the cluster.
    keep
        Called now and then while calls are waited for.
    offered
        What workers will declare who are still to come.

    A call that wants a resource which some worker of the cluster declares, or will, runs only on such workers, any
    other call anywhere. Workers may come and go: `slots` follows them.
    """

    def __init__(
        self,
        client: distributed.Client,
        keep: Keep | None = None,
        offered: Iterable[Resource] = (),
    ) -> None:
        self._keep = keep
        assert client.loop is not None  # a client that was started has one
        self.client, self._loop = client, client.loop
        self._arrived: queue.SimpleQueue[tuple[int, Any]] = queue.SimpleQueue()
        self._futures: dict[int, distributed.Future[Any]] = {}
        self._ended: dict[int, Exception] = {}
        self._count = 0
        self._last_look = -math.inf
        self._clock = Clock()
        self._broken: dict[str, str] = {}
        self._broken_workers = BrokenWorkers(keep)
        self._capacity = Capacity(client, self._broken_workers.see, offered)
        self._topic = f"vimvol-{uuid.uuid4().hex}"
        TOPICS_HERE.add(self._topic)
        client.subscribe_topic(self._topic, self._told)
        self._capacity.count()

    @property
    def slots(self) -> int:
        """Calls that can run at the same time."""
        return self._capacity.slots

    def slots_for(self, resource: Resource | None) -> int:
        """Return how many calls that want this resource can run at the same time."""
        return self._capacity.slots_for(resource)

    def room_for(self, resource: Resource | None) -> Room:
        """Return what the smallest worker process has that runs calls which want this resource.

        Raises
        ------
        IncompleteRunError
            If the cluster went away.
        """
        with self._scheduler():
            return self._capacity.room_for(resource)

    def submit(
        self,
        function: Callable[..., Any],
        *args: Any,  # noqa: ANN401
        resource: Resource | None = None,
        ahead: bool = False,
    ) -> int:
        """Send a call to the cluster.

        Raises
        ------
        IncompleteRunError
            If the cluster went away.
        """
        self._count += 1
        kind = resource if self._capacity.declares(resource) else None
        computing = 1.0 if kind is None else SHARE[kind]
        # A GPU has room for two calls anyway.
        ahead = ahead and computing > SHARE_AHEAD
        share = SHARE_AHEAD if ahead else computing
        # Earlier submissions first: blocks are read and written in the order of the storage.
        with self._scheduler():
            future = self.client.submit(
                run_call,
                self._topic,
                kind,
                computing,
                ahead,
                function,
                *args,
                pure=False,
                priority=-self._count,
                resources=None if kind is None else {kind: share},
            )
        self._futures[self._count] = future
        self._loop.add_callback(self._fetch, self._count, future)
        return self._count

    def _told(self, event: tuple[float, tuple[str, str, bool | dict[str, Any]]]) -> None:
        """Take notice of what a worker tells of a call."""
        worker, key, what = event[1]
        if isinstance(what, bool):
            self._clock.tell(worker, key, goes_on=what)
            return
        failure = DeviceFailure(**what)
        self._broken[worker] = failure.cause
        LOG.warning("worker %s ends, its device failed (%s)", worker, failure.cause)
        if self._broken_workers.tell(key, failure):
            # Before its process ends, and another begins calls of which nothing will come.
            self._loop.add_callback(self._retire, [worker], asynchronous=True)

    @contextlib.contextmanager
    def _scheduler(self) -> Iterator[None]:
        """Ask something of the scheduler; the many ways in which that fails once it is gone become one error."""
        try:
            yield
        except (Exception, CancelledError, asyncio.CancelledError) as error:
            lost = isinstance(error, OSError | CancelledError | asyncio.CancelledError)
            if not lost and self.client.status == "running":
                raise
            raise IncompleteRunError(SCHEDULER_GONE) from error

    async def _fetch(self, ticket: int, future: distributed.Future[Any]) -> None:
        """Wait for a call in the client's event loop, and hand over its outcome."""
        try:
            outcome = await self.client.gather(future, asynchronous=True)
        except (Exception, CancelledError, asyncio.CancelledError) as error:
            outcome = error
        self._arrived.put((ticket, outcome))

    def next_done(self) -> tuple[int, Any]:
        """Wait for any call to end.

        Raises
        ------
        IncompleteRunError
            If the cluster went away.
        """
        while True:
            if arrived := self.next_within(3600):
                return arrived

    def next_within(self, seconds: float) -> tuple[int, Any] | None:
        """Wait for any call to end, but not for long.

        Raises
        ------
        IncompleteRunError
            If the cluster went away.
        """
        while True:
            try:
                ticket, outcome = self._arrived.get(timeout=seconds)
            except queue.Empty:
                return None
            if ticket in self._futures:
                break
        self._clock.forget(self._futures.pop(ticket).key)
        if ticket in self._ended:
            return ticket, self._ended.pop(ticket)
        if isinstance(outcome, distributed.KilledWorker):
            return ticket, self._explained(outcome)
        if isinstance(outcome, CancelledError | asyncio.CancelledError | OSError):
            raise IncompleteRunError(SCHEDULER_GONE)
        return ticket, outcome

    def end_overdue(self, allowed: Callable[[int], float]) -> None:
        """End overdue calls and restart the worker processes that have them.

        Raises
        ------
        IncompleteRunError
            If the cluster went away.
        """
        now = time.monotonic()
        if now - self._last_look < SECONDS_BETWEEN_LOOKS:
            return
        self._last_look = now
        if self._keep is not None:
            self._keep()
        tickets: dict[Any, int] = {future.key: ticket for ticket, future in self._futures.items()}
        with self._scheduler():
            self._capacity.count()
            late = self._clock.overdue(self._held(tickets), lambda key: allowed(tickets[key]))
            for (worker, key), seconds in late.items():
                self._end(tickets[key], f"not finished after {seconds:.0f} s on {worker}, far longer than expected")
            self._restart(sorted({worker for worker, _ in late}))
            self._broken_workers.leave_out(self._capacity.workers, self._retire)

    def _held(self, keys: Container[Any]) -> dict[tuple[str, Any], int]:
        """Return which worker has which of these calls, but for those that were ended, and how many calls it has."""
        held = {
            (worker, key): len(calls)
            for worker, calls in self.client.processing().items()
            for key in calls
            if key in keys
        }
        # What ended on a worker that does not answer any more waits there to be fetched.
        pending = [future for future in self._futures.values() if future.status == "finished"]
        if pending:
            held |= {(worker, key): 1 for key, workers in self.client.who_has(pending).items() for worker in workers}
        ended = {self._futures[ticket].key for ticket in self._ended}
        return {where: calls for where, calls in held.items() if where[1] not in ended}

    def _end(self, ticket: int, reason: str) -> None:
        """End a call."""
        error = self._ended[ticket] = OverdueError(reason)
        self.client.cancel([self._futures[ticket]], force=True)
        self._arrived.put((ticket, error))

    def _restart(self, workers: list[str]) -> None:
        """Start the processes of workers anew; one without a nanny is left out from now on."""
        if not workers:
            return
        LOG.warning("restarting hung workers: %s", ", ".join(workers))
        try:
            self.client.restart_workers(workers, timeout=30, raise_for_error=False)
        except ValueError:
            self._retire(workers)

    def _retire(self, workers: list[str], **how: Any) -> Any:  # noqa: ANN401 - as Dask
        """Close workers for good, with their nannies."""
        return self.client.retire_workers(workers, close_workers=True, remove=True, **how)

    def cancel(self) -> None:
        """Take back all calls; one that runs already is not waited for."""
        futures, self._futures, self._ended = list(self._futures.values()), {}, {}
        self._clock.clear()
        # A scheduler that is gone has forgotten them, and what ends the stage then is to be told, not this.
        with contextlib.suppress(IncompleteRunError), self._scheduler():
            if futures:
                self.client.cancel(futures, force=True)

    def everywhere(self, function: Callable[[], object]) -> None:
        """Call a function in every worker process, beside what it computes; none has to answer."""
        with contextlib.suppress(Exception, CancelledError, asyncio.CancelledError):
            if self.client.status == "running":
                self.client.run(function, on_error="ignore", callback_timeout=SECONDS_TO_ANSWER)

    def _explained(self, error: distributed.KilledWorker) -> WorkerLostError:
        """Return the likely reason why workers died."""
        if cause := self._broken.get(getattr(error.last_worker, "address", "")):
            text = (
                f"{error.allowed_failures + 1} worker processes ended with it, the last as its device failed ({cause})"
            )
            return WorkersBrokenError(text)
        return WorkerLostError(_out_of_memory(error))


def _out_of_memory(error: distributed.KilledWorker) -> str:
    """Return how much memory the workers had that died."""
    limit = getattr(error.last_worker, "memory_limit", 0)
    memory = f"its limit is {limit / 2**30:.1f} GiB" if limit else "no limit is set, so the system may have ended it"
    return (
        f"{error.allowed_failures + 1} worker processes died of it, most likely out of memory ({memory}); "
        "give a worker more memory in the settings of the cluster, or on one machine by fewer of them, or make "
        "run.block or output.shard smaller"
    )
