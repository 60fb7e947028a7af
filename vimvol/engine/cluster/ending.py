"""Ends worker processes of this machine soon where a run is broken off."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator

import distributed

SECONDS_TO_END = 1.0
"""For what a worker computes when the run is broken off. It counts for nothing, as no block is recorded any more, and
Dask alone would wait 4 s for it; a block that is being written is written again by the next run."""


@contextlib.contextmanager
def ended_soon(nannies: Callable[[], Iterable[distributed.Nanny]]) -> Iterator[None]:
    """Kill, soon after an exception, the worker processes that have not ended by themselves when they were asked to.

    Parameters
    ----------
    nannies
        Returns those of the processes. They are asked by whoever started them, once this is left.
    """
    try:
        yield
    except BaseException:
        killing = threading.Timer(SECONDS_TO_END, _kill, [list(nannies())])
        killing.daemon = True
        killing.start()
        raise


def _kill(nannies: Iterable[distributed.Nanny]) -> None:
    for nanny in nannies:
        if pid := nanny.pid:  # of one that has ended there is none
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
