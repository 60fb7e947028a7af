"""Clusters by name: each entry is a context manager that yields a `Pool` and cleans up after itself."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import dask
import distributed
import threadpoolctl

from vimvol.engine.pool import DaskPool, Pool, SerialPool
from vimvol.errors import InputError

THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "NUMBA_NUM_THREADS",
    "ZARR_THREADING__MAX_WORKERS",
    # glibc's heaps, of which only the main one, here that of all threads, can keep large arrays.
    "MALLOC_ARENA_MAX",
)
"""What bounds the threads of each library; all of them take every core if nobody says otherwise."""


def available_cores() -> int:
    """Return the number of CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextlib.contextmanager
def local(workers: int | None) -> Iterator[Pool]:
    """Start worker processes on this machine, one a core unless told otherwise; nothing listens beyond loopback.

    Every worker computes with one thread: the cores are used once, and results do not depend on the number of
    workers. With 0 workers the blocks run in this process.
    """
    if workers == 0:
        with threadpoolctl.threadpool_limits(1):
            yield SerialPool()
        return
    count = workers or available_cores()
    settings = {
        "distributed.nanny.pre-spawn-environ": dict.fromkeys(THREAD_VARIABLES, "1"),
        "distributed.worker.daemon": False,
        # One block holds most of what a worker needs; pausing it at a fixed share would only dead-lock the window.
        "distributed.worker.memory.pause": False,
        "distributed.worker.memory.target": False,
        "distributed.worker.memory.spill": False,
    }
    with (
        dask.config.set(settings),
        distributed.LocalCluster(
            n_workers=count,
            threads_per_worker=1,
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",
            # What fails comes back to the run, which tells it in one line.
            silence_logs=logging.CRITICAL,
        ) as cluster,
        distributed.Client(cluster, set_as_default=False) as client,
    ):
        client.wait_for_workers(count, timeout=120)
        yield DaskPool(client, slots=count)


@contextlib.contextmanager
def address(url: str) -> Iterator[Pool]:
    """Use a Dask cluster that is already there, by the address of its scheduler (``tcp://host:port``)."""
    try:
        client = distributed.Client(url, set_as_default=False, timeout=20)
    except (OSError, ValueError, TimeoutError) as error:
        raise InputError(f"no Dask scheduler answers at {url} ({error}); start one or correct the address") from None
    with client:
        slots = sum(client.nthreads().values())
        if not slots:
            raise InputError(f"the Dask cluster at {url} has no workers, so nothing would run; start some first")
        yield DaskPool(client, slots)


CLUSTERS: dict[str, Callable[[int | None], AbstractContextManager[Pool]]] = {
    "local": local,
}


def open_cluster(name: str, workers: int | None = None) -> AbstractContextManager[Pool]:
    """Return the context manager of a cluster.

    Parameters
    ----------
    name
        An entry of `CLUSTERS`, or the address of a running scheduler, ``tcp://host:port`` or ``tls://host:port``.
    workers
        Worker processes to start; none: as many as the machine has cores; 0: no processes, compute here.

    Raises
    ------
    InputError
        If there is no such cluster, or nothing answers at the address.
    """
    if "://" in name:
        return address(name)
    if name not in CLUSTERS:
        known = ", ".join(CLUSTERS)
        raise InputError(f"cluster {name!r} is not known, so nothing can run; choose {known} or tcp://host:port")
    return CLUSTERS[name](workers)
