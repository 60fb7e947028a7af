"""Where blocks are computed: in this process, or on the workers of a Dask cluster, behind one interface."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import CancelledError
from typing import Any, Literal, Protocol

import distributed

from vimvol.errors import IncompleteRunError

Resource = Literal["GPU", "CPU"]
"""What a call wants of the worker that computes it, in a cluster whose workers say what they have."""

SHARE: Mapping[Resource, float] = {"GPU": 0.5, "CPU": 1}
"""How much of it one call takes: of two calls on a GPU one computes while the other reads or writes."""


class Pool(Protocol):
    """Computes submitted calls and hands their outcomes back one by one, in any order."""

    slots: int
    """Calls that can run at the same time."""

    def slots_for(self, resource: Resource | None) -> int:
        """Return how many calls that want this resource can run at the same time."""
        ...

    def submit(
        self,
        function: Callable[..., Any],
        *args: Any,  # noqa: ANN401 - any picklable argument
        resource: Resource | None = None,
    ) -> int:
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

    def slots_for(self, resource: Resource | None) -> int:  # noqa: ARG002 - this process is all there is
        """Return 1."""
        return self.slots

    def submit(
        self,
        function: Callable[..., Any],
        *args: Any,  # noqa: ANN401
        resource: Resource | None = None,  # noqa: ARG002
    ) -> int:
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
    """Computes on the workers of a Dask cluster.

    Parameters
    ----------
    client
        Of the cluster.
    slots
        Calls that can run at the same time.
    resources
        The same for every resource that workers of the cluster declare. A call that wants one of these runs only on
        such workers, any other call anywhere.
    """

    def __init__(self, client: distributed.Client, slots: int, resources: Mapping[Resource, int] | None = None) -> None:
        self.slots = slots
        self._resources = dict(resources or {})
        self._client = client
        self._completed = distributed.as_completed(loop=client.loop)
        self._tickets: dict[object, int] = {}
        self._count = 0

    def slots_for(self, resource: Resource | None) -> int:
        """Return how many calls that want this resource can run at the same time."""
        return self.slots if resource is None else self._resources.get(resource, self.slots)

    def submit(
        self,
        function: Callable[..., Any],
        *args: Any,  # noqa: ANN401
        resource: Resource | None = None,
    ) -> int:
        """Send a call to the cluster."""
        self._count += 1
        wanted = {resource: SHARE[resource]} if resource is not None and resource in self._resources else None
        # Earlier submissions first: blocks are read and written in the order of the storage.
        future = self._client.submit(function, *args, pure=False, priority=-self._count, resources=wanted)
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
