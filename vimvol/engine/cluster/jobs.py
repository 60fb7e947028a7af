"""Jobs of a batch system through dask-jobqueue: SLURM, PBS, LSF, SGE."""

from __future__ import annotations

import contextlib
import logging
import shutil
import time
from collections.abc import Iterator
from typing import Any

import dask
import distributed

from vimvol.config.cluster import JobPool, JobsCluster
from vimvol.engine.cluster.connect import connected, optional, security
from vimvol.engine.cluster.threads import SETTINGS, remote_environment
from vimvol.engine.pool import Pool
from vimvol.errors import InputError

LOG = logging.getLogger(__name__)

CLASSES = {
    "slurm": ("SLURMCluster", "account"),
    "pbs": ("PBSCluster", "account"),
    "lsf": ("LSFCluster", "project"),
    "sge": ("SGECluster", "project"),
}
"""Class of dask-jobqueue, and what it calls the account."""

SECONDS_LOST = 20.0
"""A job whose workers were there and are gone for so long is submitted again."""


@contextlib.contextmanager
def jobs(config: JobsCluster, workers: int | None) -> Iterator[Pool]:  # noqa: ARG001 - the file says how many
    """Submit jobs whose workers come and go; the scheduler runs in this process.

    Workers leave before the wall time ends their job, and a job that is lost is submitted again.
    """
    library = optional("dask_jobqueue", "slurm", f"cluster {config.kind}")
    kind = getattr(library, CLASSES[config.kind][0])
    command = kind.job_cls.submit_command.split()[0]
    if shutil.which(command) is None:
        raise InputError(f"{command} is not on this machine, so no job can be submitted; run where {config.kind} is")
    with dask.config.set(SETTINGS), kind(**cluster_options(config)) as cluster:
        _submit(cluster, config)
        with connected(cluster, f"the jobs of {config.kind}", _Keeper(cluster)) as pool:
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
        cluster.sync(_submitted, cluster)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{config.kind} refused a job ({reason[-300:]}); correct the cluster's settings") from None
    if first.jobs is None:
        # Whatever the queue holds is worth a worker: blocks are long beside the time to start one.
        cluster.adapt(minimum_jobs=first.minimum or 0, maximum_jobs=first.maximum, target_duration="100ms")


class _Keeper:
    """Submits a job again whose workers were there and are gone: cancelled, out of wall time, or a lost node."""

    def __init__(self, cluster: Any) -> None:  # noqa: ANN401 - a class of the library
        self._cluster = cluster
        self._gone: dict[str, float] = {}
        self._seen: set[str] = set()

    def __call__(self) -> None:
        present = {str(worker["name"]) for worker in self._cluster.scheduler_info["workers"].values()}
        lost = []
        for name, spec in list(self._cluster.worker_spec.items()):
            members = {f"{name}{suffix}" for suffix in spec.get("group", [""])}
            if members & present:
                self._seen.add(name)
                self._gone.pop(name, None)
            elif name in self._seen or name not in self._cluster.workers:
                # The cluster gives up a lost job by itself, but not one of several processes, and replaces neither.
                since = self._gone.setdefault(name, time.monotonic())
                if time.monotonic() - since > SECONDS_LOST:
                    lost.append(name)
        if not lost:
            return
        try:
            self._cluster.sync(_resubmit, self._cluster, lost)
        except RuntimeError as error:
            LOG.warning(
                "a lost job could not be submitted again (%s); this is tried again", " ".join(str(error).split())
            )
            self._gone |= dict.fromkeys(lost, time.monotonic())
        else:
            LOG.warning("submitted again what was lost: %s", ", ".join(lost))
            self._seen -= set(lost)
            self._gone = {name: since for name, since in self._gone.items() if name not in lost}


async def _resubmit(cluster: Any, names: list[str]) -> None:  # noqa: ANN401 - a class of the library
    for name in names:
        if (job := cluster.workers.pop(name, None)) is not None:
            await job.close()
    await _submitted(cluster)


async def _submitted(cluster: Any) -> None:  # noqa: ANN401 - a class of the library
    """Submit the jobs that are wanted and not there."""
    try:
        await cluster
    except RuntimeError:
        for job in cluster.workers.values():
            if job.job_id is None:  # else the cluster, when it is closed, takes offence at one that never started
                job.status = distributed.Status.failed
        raise
