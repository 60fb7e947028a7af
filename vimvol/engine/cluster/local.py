"""Worker processes of this machine."""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import signal
import sys
from collections.abc import Iterator
from multiprocessing import resource_tracker

import dask
import distributed
import threadpoolctl
from distributed.utils import LoopRunner
from tornado.ioloop import IOLoop

from vimvol.config.cluster import LocalCluster
from vimvol.engine.cluster.connect import connected, security
from vimvol.engine.cluster.ending import ended_soon
from vimvol.engine.cluster.enough import Calls, enough
from vimvol.engine.cluster.threads import SETTINGS_HERE
from vimvol.engine.pool import Pool, SerialPool
from vimvol.errors import InputError

UNTRACKED = "ignore:resource_tracker:UserWarning"
"""What the process of Python that removes the semaphores of others leaves unsaid: a worker that was killed had some."""

SILENT = "Nanny failed to start worker process"
"""What Dask tells of a process that ended before it could tell why. One that imports a script which starts processes
as it is imported does (`leave_if_worker`); what fails in a process later is told as it is."""


def available_cores() -> int:
    """Return the number of CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def processes_of(workers: int | None, calls: Calls | None) -> int:
    """Return how many processes are started; the arguments are those of `vimvol.engine.cluster.open_cluster`."""
    return enough(available_cores() if workers is None else workers, calls, "GPU", "CPU")


@contextlib.contextmanager
def local(config: LocalCluster, workers: int | None, calls: Calls | None) -> Iterator[Pool]:
    """Start worker processes on this machine, one a core unless told otherwise; nothing listens beyond loopback.

    Of several workers none has a GPU, as each would load the network onto the same one; nor has one that is left of
    them where there is nothing to do for more, as its bytes would be others.

    Every worker computes with one thread: the cores are used once, and results do not depend on the number of
    workers. With 0 workers the blocks run in this process.

    Raises
    ------
    InputError
        If the processes cannot be started.
    """
    if workers == 0:
        with threadpoolctl.threadpool_limits(1):
            yield SerialPool()
        return
    leave_if_worker()
    with (
        dask.config.set(SETTINGS_HERE),
        deaf_loop() as loop,
        _started(config, processes_of(workers, calls), loop, gpu=processes_of(workers, None) == 1) as cluster,
        ended_soon(cluster.workers.values),
        connected(cluster, "the processes of this machine") as pool,
    ):
        yield pool


@contextlib.contextmanager
def deaf_loop() -> Iterator[IOLoop]:
    """Yield an event loop for a cluster, whose processes hear no SIGINT from the moment on that they are there.

    A terminal sends Ctrl-C to them, too, but this process stops them, without a word. They are started by threads of
    the loop, and what a thread blocks is blocked in the threads and processes that it starts.
    """
    _start_tracker()  # the thread that starts it would hear SIGINT again
    runner = LoopRunner()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        runner.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    try:
        yield runner.loop
    finally:
        runner.stop()


def _start_tracker() -> None:
    """Start the tracker of semaphores, unless it is there; it is to keep quiet of what it removes."""
    sys.warnoptions.append(UNTRACKED)  # it is started with these
    try:
        resource_tracker.ensure_running()
    finally:
        sys.warnoptions.remove(UNTRACKED)


def _started(config: LocalCluster, count: int, loop: IOLoop, *, gpu: bool) -> distributed.LocalCluster:
    try:
        return distributed.LocalCluster(
            loop=loop,
            n_workers=count,
            threads_per_worker=1,
            host="127.0.0.1",
            dashboard_address=config.dashboard,
            security=security(config.tls),
            env=None if gpu else {"CUDA_VISIBLE_DEVICES": ""},
            # What fails comes back to the run, which tells it in one line.
            silence_logs=logging.CRITICAL,
        )
    except RuntimeError as error:
        what = f"{count} worker processes of this machine"
        raise not_started(what, error, "set run.workers=0 to compute in this process") from None


def leave_if_worker() -> None:
    """Leave if this is a worker process that imports the script which started it; the script's own process tells."""
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise SystemExit(1)


def not_started(what: str, error: RuntimeError, otherwise: str) -> InputError:
    """Return the error for processes that do not start.

    Parameters
    ----------
    what
        The processes.
    error
        How Dask tells it: that something failed, and last of its causes why.
    otherwise
        What to do, a clause.
    """
    first: BaseException = error
    while (before := first.__cause__ or (None if first.__suppress_context__ else first.__context__)) is not None:
        first = before
    reason = " ".join(str(first).split()) or type(first).__name__
    script = (
        'they import the script that starts them, so in a script put the call below if __name__ == "__main__":, or '
    )
    guard = script if reason == SILENT else ""
    return InputError(f"{what} could not be started ({reason}), so nothing is computed; {guard}{otherwise}")
