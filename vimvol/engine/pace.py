"""What the finished blocks of a stage tell about the next: how many fit one call, and when one has hung."""

from __future__ import annotations

from collections import deque

SECONDS_OF_CALL = 0.5
"""Calls are filled with blocks up to this time; a call costs a scheduler some 2 ms."""
MOST_BLOCKS_OF_CALL = 256
SHORTEST_DEADLINE = 60.0
SLOWER_THAN_OTHERS = 10.0
REMEMBERED = 1000
NEEDED = 5
"""Finished blocks before anything is concluded about a deadline."""


class Pace:
    """Times of the blocks of a stage.

    Parameters
    ----------
    deadline
        Seconds after which a block has hung; none: learned.
    """

    def __init__(self, deadline: float | None = None) -> None:
        self._deadline = deadline
        self._seconds: deque[float] = deque(maxlen=REMEMBERED)
        self._mean = 0.0
        self._longest_usual = 0.0
        self._learned = 0

    def learn(self, seconds: float) -> None:
        """Take in the time of a finished block."""
        self._seconds.append(seconds)
        self._learned += 1
        # Younger blocks count more: a stage may turn from background to tissue.
        weight = max(0.02, 1 / self._learned)
        self._mean += weight * (seconds - self._mean)
        if self._learned < 100 or self._learned % 100 == 0:
            ordered = sorted(self._seconds)
            self._longest_usual = ordered[int(0.95 * (len(ordered) - 1))]

    def blocks_of_call(self, left: int, window: int) -> int:
        """Return how many blocks the next call takes, given those left and the calls in flight.

        Long blocks go one by one. Short ones share a call, but never so many that workers would idle at the end.
        """
        if self._learned < NEEDED:
            return 1
        fitting = int(SECONDS_OF_CALL / max(self._mean, 1e-6))
        return max(1, min(fitting, MOST_BLOCKS_OF_CALL, left // (2 * window)))

    def allowed(self, blocks: int) -> float:
        """Return the seconds after which a call of so many blocks has hung; infinity while too little is known.

        A block may take `SLOWER_THAN_OTHERS` times as long as 95 % of the others did, and `SHORTEST_DEADLINE` in any
        case.
        """
        if self._deadline is not None:
            return self._deadline * blocks
        if self._learned < NEEDED:
            return float("inf")
        return max(SHORTEST_DEADLINE, SLOWER_THAN_OTHERS * self._longest_usual * blocks)
