"""Where blocks are computed: in this process, or on the workers of a Dask cluster, behind one interface."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import CancelledError
from typing import Any, Protocol

import distributed

from vimvol.errors import IncompleteRunError


class Pool(Protocol):
    """Computes submitted calls and hands their outcomes back one by one, in any order."""

    slots: int
    """Calls that can run at the same time."""

    def submit(self, function: Callable[..., Any], *args: Any) -> int:  # noqa: ANN401 - any picklable argument
        """Queue a call; return its ticket."""
        ...

    def next_done(self) -> tuple[int, Any]:
        """Wait for a call to end; return its ticket, and its result or the exception that it raised."""
        ...


class SerialPool:
    """Computes in this process, one call after the other."""

    slots = 1

    def __init__(self) -> None:
        self._queue: deque[tuple[int, Callable[..., Any], tuple[Any, ...]]] = deque()
        self._tickets = 0

    def submit(self, function: Callable[..., Any], *args: Any) -> int:  # noqa: ANN401
        """Queue a call; it runs in `next_done`."""
        self._tickets += 1
        self._queue.append((self._tickets, function, args))
        return self._tickets

    def next_done(self) -> tuple[int, Any]:
        """Run the oldest queued call."""
        ticket, function, args = self._queue.popleft()
        try:
            return ticket, function(*args)
        except Exception as error:
            return ticket, error


class DaskPool:
    """Computes on the workers of a Dask cluster."""

    def __init__(self, client: distributed.Client, slots: int) -> None:
        self.slots = slots
        self._client = client
        self._completed = distributed.as_completed(loop=client.loop)
        self._tickets: dict[object, int] = {}
        self._count = 0

    def submit(self, function: Callable[..., Any], *args: Any) -> int:  # noqa: ANN401
        """Send a call to the cluster."""
        self._count += 1
        # Earlier submissions first: blocks are read and written in the order of the storage.
        future = self._client.submit(function, *args, pure=False, priority=-self._count)
        self._tickets[future.key] = self._count
        self._completed.add(future)
        return self._count

    def next_done(self) -> tuple[int, Any]:
        """Wait for any call to end.

        Raises
        ------
        IncompleteRunError
            If the cluster went away.
        """
        future = next(self._completed)
        ticket = self._tickets.pop(future.key)
        try:
            if future.status == "cancelled":
                raise CancelledError
            error = future.exception()
            return ticket, error if error is not None else future.result()
        except (CancelledError, OSError):
            raise IncompleteRunError(
                "the Dask cluster went away; finished blocks are kept, run the same command again to go on"
            ) from None
        finally:
            future.release()
