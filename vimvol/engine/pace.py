"""What the finished blocks of a stage tell about the next: how many fit one call, and when one has hung."""

from __future__ import annotations

import math
from collections import deque

SECONDS_OF_CALL = 0.5
"""Calls are filled with blocks up to this time; a call costs a scheduler some 2 ms."""
MOST_BLOCKS_OF_CALL = 256
SHORTEST_DEADLINE = (60.0, 3600.0)
"""Seconds that any block may take, in its first try and in its last."""
SLOWER_THAN_OTHERS = (5.0, 20.0)
"""Times that it may take as long as the slowest of the others, likewise."""
REMEMBERED = 1000
NEEDED = 5
"""Finished blocks before a deadline is learned from them."""
UNKNOWN = (3600.0, 1e-3)
"""Seconds that a block may take of which nothing is known, and the same for each of its voxels; the greater counts.
ViM-UNet small with its reference scan takes 3e-5 s a voxel on two cores."""
SAMPLED = (600.0, 20.0)
"""Seconds that it may take after a sample, and times as long as that; the greater counts."""
LAST_OF_UNKNOWN = 4.0
"""Times that such a block may take in its last try what one may of which nothing is known."""


class Pace:
    """Times of the blocks of a stage.

    Parameters
    ----------
    deadline
        Seconds after which a block has hung; none: learned.
    sampled
        Seconds that a block took in a sample; 0: none was taken.
    """

    def __init__(self, deadline: float | None = None, sampled: float = 0.0) -> None:
        self._deadline = deadline
        self._sampled = self._slowest = sampled
        self._seconds: deque[float] = deque(maxlen=REMEMBERED)
        self._mean = 0.0
        self._learned = 0

    def learn(self, seconds: float) -> None:
        """Take in the time of a finished block."""
        self._seconds.append(seconds)
        self._learned += 1
        # Younger blocks count more: a stage may turn from background to tissue.
        weight = max(0.02, 1 / self._learned)
        self._mean += weight * (seconds - self._mean)
        self._slowest = max(self._slowest, seconds)
        if self._learned % 100 == 0:
            self._slowest = max(self._sampled, *self._seconds)

    def blocks_of_call(self, left: int, window: int) -> int:
        """Return how many blocks the next call takes, given those left and the calls in flight.

        Long blocks go one by one. Short ones share a call, but never so many that workers would idle at the end.
        """
        if self._learned < NEEDED:
            return 1
        fitting = int(SECONDS_OF_CALL / max(self._mean, 1e-6))
        return max(1, min(fitting, MOST_BLOCKS_OF_CALL, left // (2 * window)))

    def allowed(self, blocks: int, patience: float = 0.0, voxels: int = 0) -> float:
        """Return the seconds after which a call of so many blocks has hung.

        The slowest block decides and not most of them: in storage order, padding comes first and takes next to nothing,
        and all tissue would seem to hang. Since what comes may still be slower than all before, a block that was ended
        gets far more time when it is tried again; only one that really hangs does not end within its last try either.
        Before `NEEDED` blocks have ended, which those of a small stage never do, the time is so generous that nothing
        but a hung block takes it.

        Parameters
        ----------
        blocks
            Blocks of the call. One of them may be as slow as the slowest, the others are taken for ordinary.
        patience
            From 0, for the first try, to 1, for the last. A deadline that was set holds for any.
        voxels
            Of all these blocks.
        """
        if self._deadline is not None:
            return self._deadline * blocks
        if self._learned < NEEDED:
            return _between(self._before_learning(blocks, voxels), patience)
        shortest, times = _between(SHORTEST_DEADLINE, patience), _between(SLOWER_THAN_OTHERS, patience)
        return max(shortest, times * (self._slowest + (blocks - 1) * self._mean))

    def _before_learning(self, blocks: int, voxels: int) -> tuple[float, float]:
        """Return the seconds of the first and the last try while only the sample and a few blocks are known, if any."""
        least, times = SAMPLED
        known = times * blocks * self._slowest
        unknown = max(UNKNOWN[0], UNKNOWN[1] * voxels, known)
        return max(least, known) if self._sampled else unknown, LAST_OF_UNKNOWN * unknown


def _between(ends: tuple[float, float], patience: float) -> float:
    """Return the first number for 0, the second for 1, and so many times as much for every step between."""
    first, last = ends
    return first * math.exp(patience * math.log(last / first))
