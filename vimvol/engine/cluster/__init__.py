"""Clusters by kind: each is a context manager that yields a `Pool` and cleans up after itself."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from vimvol.config.cluster import ClusterConfig, CudaCluster, read_cluster
from vimvol.engine.cluster.address import address
from vimvol.engine.cluster.cuda import check_gpus, cuda
from vimvol.engine.cluster.enough import Calls
from vimvol.engine.cluster.jobs import jobs
from vimvol.engine.cluster.kubernetes import kubernetes
from vimvol.engine.cluster.local import local
from vimvol.engine.pool import Pool
from vimvol.errors import InputError

CLUSTERS: dict[str, Callable[[Any, int | None, Calls | None], AbstractContextManager[Pool]]] = {
    "local": local,
    "cuda": cuda,
    "slurm": jobs,
    "pbs": jobs,
    "lsf": jobs,
    "sge": jobs,
    "kubernetes": kubernetes,
    "address": address,
}
"""By the ``kind`` of the settings, which are the first argument; the others are those of `open_cluster`."""


def open_cluster(
    cluster: str | ClusterConfig, workers: int | None = None, calls: Calls | None = None
) -> AbstractContextManager[Pool]:
    """Return the context manager of a cluster.

    Parameters
    ----------
    cluster
        Its settings, or what `vimvol.config.cluster.read_cluster` takes: a name, an address or a file.
    workers
        Worker processes to start on this machine; none: as many as it has cores; 0: no processes, compute here.
    calls
        The most calls that a stage has: no more workers are started, whatever was asked for; none: it is not known.

    Raises
    ------
    InputError
        If there is no such cluster, nothing answers at the address, or the number of workers is negative.
    """
    if workers is not None and workers < 0:  # no process would ever come
        raise InputError(f"{workers} worker processes cannot be started; give 0 or more, 0 to compute in this process")
    config = read_cluster(cluster) if isinstance(cluster, str) else cluster
    return CLUSTERS[config.kind](config, workers, calls)


def check_cluster(config: ClusterConfig) -> None:
    """Make sure that a cluster can be had, as far as that can be told before it is started.

    Raises
    ------
    InputError
        If it cannot.
    """
    if isinstance(config, CudaCluster):
        check_gpus(config)
