"""All GPUs of this machine through dask-cuda, and processes beside them for the work without a GPU."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterator
from types import ModuleType

import dask
import distributed

from vimvol.config.cluster import CudaCluster
from vimvol.engine.cluster.connect import connected, optional, security
from vimvol.engine.cluster.ending import ended_soon
from vimvol.engine.cluster.enough import Calls, enough
from vimvol.engine.cluster.local import available_cores, deaf_loop, leave_if_worker, not_started
from vimvol.engine.cluster.threads import ENVIRONMENT, SETTINGS_HERE
from vimvol.engine.pool import Pool, Resource
from vimvol.errors import InputError

THREADS_OF_GPU = 2
"""Calls at a time on a GPU: one reads, cuts and writes while the other is on it."""

SHARES_OF_GPU = 4
"""Main memory of a process with a GPU, where one without has 1: it has two calls, and the libraries of a GPU."""


@contextlib.contextmanager
def cuda(config: CudaCluster, workers: int | None, calls: Calls | None) -> Iterator[Pool]:
    """Start a worker process for every GPU, and ``workers`` processes (or as configured, or one a core) without.

    The main memory of the machine is divided among all of them.
    """
    leave_if_worker()
    library, _ = _usable(config)
    gpus, count = _processes_of(config, workers, calls)
    memory = memory_beside(config, workers, calls)
    secured = security(config.tls)
    with dask.config.set(SETTINGS_HERE), deaf_loop() as loop:
        try:
            started = library.LocalCUDACluster(
                loop=loop,
                CUDA_VISIBLE_DEVICES=None if config.devices is None else list(config.devices),
                n_workers=gpus,
                threads_per_worker=THREADS_OF_GPU,
                resources={"GPU": 1},
                memory_limit=memory["GPU"],
                host="127.0.0.1",
                dashboard_address=config.dashboard,
                security=secured,
                silence_logs=logging.CRITICAL,
            )
        except RuntimeError as error:
            raise not_started("the GPUs' worker processes", error, "choose cluster local") from None
        except Exception as error:
            raise _unusable(error) from error
        with (
            started as cluster,
            _beside(cluster, count, memory["CPU"], secured) as beside,
            ended_soon(lambda: [*cluster.workers.values(), *beside]),
            connected(cluster, "the GPUs' processes") as pool,
        ):
            yield pool


def memory_beside(config: CudaCluster, workers: int | None, calls: Calls | None) -> dict[Resource, int]:
    """Return the bytes of memory of a process with a GPU, and of one without.

    Parameters
    ----------
    config, workers, calls
        As `vimvol.engine.cluster.open_cluster` takes them.

    Raises
    ------
    InputError
        If there is no GPU.
    """
    gpus, count = _processes_of(config, workers, calls)
    share = int(distributed.system.MEMORY_LIMIT) // (SHARES_OF_GPU * max(1, gpus) + count)
    return {"GPU": SHARES_OF_GPU * share, "CPU": share}


def check_gpus(config: CudaCluster) -> None:
    """Make sure that there are GPUs, before anything is started.

    Raises
    ------
    MissingExtraError
        If what starts workers on them is not installed.
    InputError
        If there is none.
    """
    _usable(config)


def _processes_of(config: CudaCluster, workers: int | None, calls: Calls | None) -> tuple[int, int]:
    """Return how many processes are started with a GPU, and how many without."""
    count = config.cpu_workers if config.cpu_workers is not None else workers
    count = enough(available_cores() if count is None else count, calls, "CPU")
    # where there are no others, those with a GPU compute everything
    return enough(_usable(config)[1], calls, "GPU", *(() if count else ("CPU",))), count


def _usable(config: CudaCluster) -> tuple[ModuleType, int]:
    """Return what starts workers on GPUs, and on how many."""
    library = optional("dask_cuda", "gpus", "cluster cuda")
    try:
        return library, library.utils.get_n_gpus() if config.devices is None else len(config.devices)
    except Exception as error:  # of NVML, which may be missing as a whole
        raise _unusable(error) from error


def _unusable(error: Exception) -> InputError:
    return InputError(f"no GPU of this machine can be used ({type(error).__name__}: {error}); choose cluster local")


@contextlib.contextmanager
def _beside(
    cluster: distributed.LocalCluster, count: int, memory: int, secured: distributed.Security | None
) -> Iterator[list[distributed.Nanny]]:
    """Add processes without a GPU to a cluster, each with so many bytes of memory; yield their nannies."""
    nannies: list[distributed.Nanny] = []

    async def start() -> None:
        nannies.extend(
            distributed.Nanny(
                cluster.scheduler_address,
                nthreads=1,
                name=f"cpu-{number}",
                resources={"CPU": 1},
                host="127.0.0.1",
                dashboard_address="127.0.0.1:0",
                security=secured,
                memory_limit=memory,
                env={**ENVIRONMENT, "CUDA_VISIBLE_DEVICES": ""},
                silence_logs=logging.CRITICAL,
            )
            for number in range(count)
        )
        # All of them, also where one fails: what is still starting could not be closed.
        for outcome in await asyncio.gather(*nannies, return_exceptions=True):
            if isinstance(outcome, BaseException):
                raise outcome

    async def stop() -> None:
        await asyncio.gather(*(nanny.close() for nanny in nannies), return_exceptions=True)

    try:
        cluster.sync(start)
        yield nannies
    finally:
        cluster.sync(stop)
