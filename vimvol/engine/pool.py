"""Where blocks are computed: the interface of all pools, and the one that computes in this process."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import distributed

Resource = Literal["GPU", "CPU"]
"""What a call wants of the worker that computes it, in a cluster whose workers say what they have."""

SHARE: Mapping[Resource, float] = {"GPU": 0.5, "CPU": 1}
"""How much of it a call takes that computes: of two calls on a GPU one reads, cuts and writes beside the other."""

SHARE_AHEAD = 0.5
"""How much of it a call takes that may be begun while another one computes, see `vimvol.engine.turns`."""


@dataclass(frozen=True)
class Room:
    """What a worker process has.

    Attributes
    ----------
    memory
        Bytes that it may take; 0 where nothing limits it.
    calls
        Calls that it runs at once.
    """

    memory: int
    calls: int


class Pool(Protocol):
    """Computes submitted calls and hands their outcomes back one by one, in any order."""

    @property
    def slots(self) -> int:
        """Calls that can run at the same time."""
        ...

    def slots_for(self, resource: Resource | None) -> int:
        """Return how many calls that want this resource can run at the same time."""
        ...

    def room_for(self, resource: Resource | None) -> Room:
        """Return what the smallest worker process has that runs calls which want this resource."""
        ...

    def submit(
        self,
        function: Callable[..., Any],
        *args: Any,  # noqa: ANN401 - any picklable argument
        resource: Resource | None = None,
        ahead: bool = False,
    ) -> int:
        """Queue a call; return its ticket.

        Parameters
        ----------
        function, *args
            What to compute, picklable.
        resource
            What it wants of a worker; none: any worker will do.
        ahead
            Whether the worker may begin the next call while this one computes, see `vimvol.engine.turns`.
        """
        ...

    def next_done(self) -> tuple[int, Any]:
        """Wait for a call to end; return its ticket, and its result or the exception that it raised."""
        ...

    def next_within(self, seconds: float) -> tuple[int, Any] | None:
        """Do the same, but return none if no call ends within so many seconds."""
        ...

    def end_overdue(self, allowed: Callable[[int], float]) -> None:
        """End calls that ran for longer than ``allowed`` seconds for their ticket; their outcome is `OverdueError`."""
        ...

    def cancel(self) -> None:
        """Forget all calls that have not ended."""
        ...

    def everywhere(self, function: Callable[[], object]) -> None:
        """Call a function in every worker process, beside what it computes; none has to answer."""
        ...


class OverdueError(Exception):
    """A call took far longer than the others, and was ended together with its worker process."""


class WorkerLostError(Exception):
    """Every worker process that began a call died of it."""


class WorkersBrokenError(WorkerLostError):
    """The same, and it was their devices that failed, so that more memory would not help."""


class SerialPool:
    """Computes in this process, one call after the other."""

    slots = 1

    def __init__(self) -> None:
        self._queue: deque[tuple[int, Callable[..., Any], tuple[Any, ...]]] = deque()
        self._tickets = 0

    def slots_for(self, resource: Resource | None) -> int:  # noqa: ARG002 - this process is all there is
        """Return 1."""
        return self.slots

    def room_for(self, resource: Resource | None) -> Room:  # noqa: ARG002
        """Return the memory of the machine, or of the control group that this process is in."""
        return Room(int(distributed.system.MEMORY_LIMIT), 1)

    def submit(
        self,
        function: Callable[..., Any],
        *args: Any,  # noqa: ANN401
        resource: Resource | None = None,  # noqa: ARG002
        ahead: bool = False,  # noqa: ARG002
    ) -> int:
        """Queue a call; it runs in `next_done`."""
        self._tickets += 1
        self._queue.append((self._tickets, function, args))
        return self._tickets

    def next_within(self, seconds: float) -> tuple[int, Any] | None:
        """Run the oldest queued call, however long it takes; without one, sleep."""
        if self._queue:
            return self.next_done()
        time.sleep(seconds)
        return None

    def next_done(self) -> tuple[int, Any]:
        """Run the oldest queued call."""
        ticket, function, args = self._queue.popleft()
        try:
            return ticket, function(*args)
        except Exception as error:
            return ticket, error

    def end_overdue(self, allowed: Callable[[int], float]) -> None:
        """Do nothing: who would ask while a call runs."""

    def cancel(self) -> None:
        """Forget what is queued."""
        self._queue.clear()

    def everywhere(self, function: Callable[[], object]) -> None:
        """Call the function."""
        function()
