"""What memory the worker processes of a cluster will have, before any of them is started."""

from __future__ import annotations

import contextlib

import dask.utils
import distributed

from vimvol.config.cluster import ClusterConfig, CudaCluster, JobsCluster, KubernetesCluster, LocalCluster
from vimvol.engine.cluster.cuda import memory_beside
from vimvol.engine.cluster.enough import Calls, enough_jobs
from vimvol.engine.cluster.local import processes_of
from vimvol.engine.pool import Resource


def memory_ahead(config: ClusterConfig, workers: int | None, calls: Calls | None = None) -> dict[Resource, int]:
    """Return the bytes of memory that a process will have which computes calls, by what these want.

    Parameters
    ----------
    config, workers, calls
        As `vimvol.engine.cluster.open_cluster` takes them.

    Returns
    -------
    dict
        Without what cannot be told: of a cluster that is there already, of this process.

    Raises
    ------
    InputError
        If GPUs are asked for, and there are none.
    """
    if isinstance(config, LocalCluster):
        count = processes_of(workers, calls)
        return {"CPU": int(distributed.system.MEMORY_LIMIT) // count} if count else {}
    if isinstance(config, CudaCluster):
        return memory_beside(config, workers, calls)
    if isinstance(config, JobsCluster):
        return _memory_of(enough_jobs(config, calls))
    return _memory_of(enough_jobs(config, calls)) if isinstance(config, KubernetesCluster) else {}


def _memory_of(config: JobsCluster | KubernetesCluster) -> dict[Resource, int]:
    found: dict[Resource, int] = {}
    with contextlib.suppress(ValueError):  # a notation that only Kubernetes knows
        if config.gpu is not None:
            found["GPU"] = dask.utils.parse_bytes(config.gpu.memory)
        if config.cpu is not None:
            found["CPU"] = dask.utils.parse_bytes(config.cpu.memory) // getattr(config.cpu, "cores", 1)
    return found
