"""For how long the calls of a Dask cluster have been running: by what workers tell, and by what the scheduler knows.

A call that has begun tells so, and its time counts from there. One that did not waits until those before it ended, or
hung before it could say so: it is given the time of all calls that its worker has. Clocks of other machines are not
asked.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Mapping

Where = tuple[str, Hashable]
"""The address of a worker, and the key of a call that it has."""


class Clock:
    """When calls began, and since when workers have them."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._seen: dict[Where, float] = {}
        self._begun: dict[Hashable, tuple[str, float]] = {}

    def tell(self, worker: str, key: Hashable, *, goes_on: bool) -> None:
        """Note that a worker has begun a call or goes on with it, or that the call waits for its turn."""
        if goes_on:
            self._begun[key] = (worker, self._now())
        else:
            self._begun.pop(key, None)

    def forget(self, key: Hashable) -> None:
        """Forget a call that has ended."""
        self._begun.pop(key, None)

    def clear(self) -> None:
        """Forget all calls."""
        self._begun.clear()

    def overdue(self, held: Mapping[Where, int], allowed: Callable[[Hashable], float]) -> dict[Where, float]:
        """Return the seconds of calls that take too long.

        Parameters
        ----------
        held
            Every call that a worker has, and how many calls it has.
        allowed
            Seconds that a call of this key may take.
        """
        now = self._now()
        self._seen = {where: self._seen.get(where, now) for where in held}
        late = {}
        for (worker, key), calls in held.items():
            on, since = self._begun.get(key, ("", 0.0))
            began = on == worker
            seconds = now - (since if began else self._seen[worker, key])
            if seconds > (1 if began else calls) * allowed(key):
                late[worker, key] = seconds
        return late
