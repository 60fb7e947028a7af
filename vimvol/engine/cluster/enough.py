"""How many of the workers that are asked for are worth to be started: no more than there are calls for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from vimvol.config.cluster import JobPool, JobsCluster, KubernetesCluster, PodPool
from vimvol.engine.pool import Resource

Calls = Mapping[Resource, int]
"""The most calls that a stage has, by what they want of a worker."""

Jobs = TypeVar("Jobs", JobsCluster, KubernetesCluster)
Pods = TypeVar("Pods", JobPool, PodPool)


def enough(asked: int, calls: Calls | None, *resources: Resource) -> int:
    """Return how many of some processes have something to do; one of them stays in any case.

    Parameters
    ----------
    asked
        How many are asked for.
    calls
        What there is to do; none: not known.
    *resources
        What the calls want that these processes compute.
    """
    if calls is None:
        return asked
    return min(asked, max(1, *(calls[resource] for resource in resources)))


def enough_jobs(config: Jobs, calls: Calls | None) -> Jobs:
    """Return the settings of jobs or pods for no more of them than have something to do; `calls` as `enough` takes it.

    Those with a GPU are left out where there are others and nothing is left that wants one.
    """
    if calls is None:
        return config
    gpu = None if config.cpu is not None and not calls["GPU"] else config.gpu
    cpu, everything = config.cpu, max(calls.values())
    changes = {
        "cpu": cpu and _enough_of(cpu, everything if gpu is None else calls["CPU"], getattr(cpu, "cores", 1)),
        "gpu": gpu and _enough_of(gpu, everything if cpu is None else calls["GPU"], 1),
    }
    return config.model_copy(update=changes)


def _enough_of(pool: Pods, calls: int, processes: int) -> Pods:
    """Return the settings of a pool whose jobs or pods have so many processes each."""
    most = max(1, -(-calls // processes))
    given = {name: getattr(pool, name, None) for name in ("jobs", "workers", "minimum", "maximum")}
    return pool.model_copy(update={name: min(value, most) for name, value in given.items() if value is not None})
