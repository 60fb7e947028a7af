"""Jobs of a batch system through dask-jobqueue: SLURM, PBS, LSF, SGE."""

from __future__ import annotations

import contextlib
import logging
import shutil
from collections.abc import Iterator
from typing import Any

import dask

from vimvol.config.cluster import JobPool, JobsCluster
from vimvol.engine.cluster.connect import connected, offered_by, optional, security
from vimvol.engine.cluster.enough import Calls, enough_jobs
from vimvol.engine.cluster.keeper import Keeper, submitted
from vimvol.engine.cluster.threads import SETTINGS, remote_environment
from vimvol.engine.pool import Pool
from vimvol.errors import InputError

CLASSES = {
    "slurm": ("SLURMCluster", "account"),
    "pbs": ("PBSCluster", "account"),
    "lsf": ("LSFCluster", "project"),
    "sge": ("SGECluster", "project"),
}
"""Class of dask-jobqueue, and what it calls the account."""


@contextlib.contextmanager
def jobs(config: JobsCluster, workers: int | None, calls: Calls | None) -> Iterator[Pool]:  # noqa: ARG001 - the file says
    """Submit jobs whose workers come and go; the scheduler runs in this process.

    Workers leave before the wall time ends their job, and a job that is lost is submitted again.

    Raises
    ------
    InputError
        If this machine has no such batch system, or it refuses a job.
    IncompleteRunError
        If no job is left of which a worker could come.
    """
    config = enough_jobs(config, calls)
    library = optional("dask_jobqueue", "slurm", f"cluster {config.kind}")
    kind = getattr(library, CLASSES[config.kind][0])
    command = kind.job_cls.submit_command.split()[0]
    if shutil.which(command) is None:
        raise InputError(f"{command} is not on this machine, so no job can be submitted; run where {config.kind} is")
    with dask.config.set(SETTINGS), kind(**cluster_options(config)) as cluster:
        _submit(cluster, config)
        keeper, offered = Keeper(cluster, config.kind), offered_by(config.cpu, config.gpu)
        with connected(cluster, f"the jobs of {config.kind}", keeper, offered) as pool:
            _follow_the_work(cluster, config)
            yield pool


def cluster_options(config: JobsCluster) -> dict[str, Any]:
    """Return what the class of dask-jobqueue is asked for."""
    first = config.cpu or config.gpu
    assert first is not None  # the configuration sees to it
    given = {
        CLASSES[config.kind][1]: config.account,
        "interface": config.interface,
        "local_directory": config.local_folder,
        "log_directory": config.log_folder,
        "shared_temp_directory": config.shared_folder,
        "python": config.python,
    }
    return {
        **{key: value for key, value in given.items() if value is not None},
        "security": security(config.tls),
        "walltime": config.walltime,
        "scheduler_options": {"dashboard_address": config.dashboard},
        "job_script_prologue": [
            *(f"export {name}={value}" for name, value in remote_environment().items()),
            *config.prologue,
        ],
        "silence_logs": logging.CRITICAL,
        **pool_options(config, first, gpu=config.cpu is None),
    }


def pool_options(config: JobsCluster, pool: JobPool, *, gpu: bool) -> dict[str, Any]:
    """Return what a job of a pool is asked for: a process a core, or one process that has a GPU."""
    arguments = ["--dashboard-address", "127.0.0.1:0", "--resources", "GPU=1" if gpu else "CPU=1"]
    arguments += ["--lifetime", f"{config.lifetime}s", "--lifetime-stagger", f"{config.stagger}s"]
    if gpu:
        arguments += ["--nthreads", "2"]  # one call computes while the other reads or writes
    return {
        "cores": pool.cores,
        "processes": 1 if gpu else pool.cores,
        "memory": pool.memory,
        "job_extra_directives": list(pool.directives),
        "worker_extra_args": arguments,
        **({"queue": pool.queue} if pool.queue is not None else {}),
    }


def _submit(cluster: Any, config: JobsCluster) -> None:  # noqa: ANN401 - a class of the library
    """Submit the jobs of all pools.

    Raises
    ------
    InputError
        If the batch system refuses them.
    """
    first = config.cpu or config.gpu
    assert first is not None
    # Where the number follows the work, one is sent ahead: what is refused shows at once.
    while len(cluster.worker_spec) < (first.jobs or max(1, first.minimum or 0)):
        cluster.worker_spec.update(cluster.new_worker_spec())
    if config.cpu is not None and config.gpu is not None:
        options = {**cluster.new_spec["options"], **pool_options(config, config.gpu, gpu=True)}
        for number in range(config.gpu.jobs or 0):
            cluster.worker_spec[f"{cluster.name}-gpu-{number}"] = {"cls": cluster.job_cls, "options": options}
    try:
        cluster.sync(submitted, cluster)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{config.kind} refused a job ({reason[-300:]}); correct the cluster's settings") from None


def _follow_the_work(cluster: Any, config: JobsCluster) -> None:  # noqa: ANN401 - a class of the library
    """Let the number of jobs follow the work, where no number is given, once the first worker is there.

    Before, there is nothing to do yet, and the job that was sent ahead would be taken back.
    """
    first = config.cpu or config.gpu
    assert first is not None
    if first.jobs is None:
        # Whatever the queue holds is worth a worker: blocks are long beside the time to start one.
        cluster.adapt(minimum_jobs=first.minimum or 0, maximum_jobs=first.maximum, target_duration="100ms")
