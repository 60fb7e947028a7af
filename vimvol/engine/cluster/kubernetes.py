"""Pods of a Kubernetes cluster through the Dask operator."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterator
from typing import Any

from vimvol.config.cluster import KubernetesCluster, PodPool
from vimvol.engine.cluster.connect import connected, offered_by, optional
from vimvol.engine.cluster.enough import Calls, enough_jobs
from vimvol.engine.cluster.threads import remote_environment
from vimvol.engine.pool import Pool
from vimvol.errors import InputError

TARGET_DURATION = {"DASK_DISTRIBUTED__ADAPTIVE__TARGET_DURATION": "100ms"}
"""The scheduler's: whatever the queue holds is worth a pod."""


@contextlib.contextmanager
def kubernetes(
    config: KubernetesCluster,
    workers: int | None,  # noqa: ARG001 - the file says
    calls: Calls | None,
) -> Iterator[Pool]:
    """Have the operator start a scheduler and workers, and remove them at the end."""
    config = enough_jobs(config, calls)
    library = optional("dask_kubernetes.operator", "kubernetes", "cluster kubernetes")
    options = {} if config.namespace is None else {"namespace": config.namespace}
    spec = cluster_spec(config, f"vimvol-{uuid.uuid4().hex[:8]}", library)
    try:
        started = library.KubeCluster(custom_cluster_spec=spec, quiet=True, **options)
    except Exception as error:  # whatever the client of Kubernetes meets: no cluster, no rights, no operator
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"Kubernetes starts no Dask cluster ({reason}); correct the cluster's settings") from error
    with started as cluster:
        if config.gpu is not None:
            cluster.add_worker_group("gpu", custom_spec=worker_spec(config, config.gpu, library, gpu=True))
        if config.cpu.maximum is not None:
            cluster.adapt(minimum=config.cpu.minimum or 0, maximum=config.cpu.maximum)
        with connected(cluster, "the pods", offered=offered_by(config.cpu, config.gpu)) as pool:
            yield pool


def cluster_spec(config: KubernetesCluster, name: str, library: Any) -> dict[str, Any]:  # noqa: ANN401 - a module
    """Return the resource that describes the scheduler and the pods without a GPU."""
    spec: dict[str, Any] = library.make_cluster_spec(
        name=name, image=config.image, env={**remote_environment(), **TARGET_DURATION}
    )
    spec["spec"]["worker"] = worker_spec(config, config.cpu, library, gpu=False)
    return spec


def worker_spec(config: KubernetesCluster, pool: PodPool, library: Any, *, gpu: bool) -> dict[str, Any]:  # noqa: ANN401
    """Return the description of the pods of a pool: one process each, with one thread, or a GPU and two."""
    limits = {"memory": pool.memory, **({"nvidia.com/gpu": "1"} if gpu else {"cpu": "1"})}
    resource, threads = ("GPU=1", "2") if gpu else ("CPU=1", "1")
    spec: dict[str, Any] = library.make_worker_spec(
        image=pool.image or config.image,
        n_workers=pool.workers if pool.workers is not None else pool.minimum or 0,
        resources={"limits": limits, "requests": limits},
        env=remote_environment(),
        worker_command=["dask-worker", "--resources", resource, "--nthreads", threads, "--memory-limit", "auto"],
    )
    pod = spec["spec"]
    names = {path: f"data-{number}" for number, path in enumerate(config.volumes)}
    pod["volumes"] = [
        {"name": names[path], "persistentVolumeClaim": {"claimName": claim}} for path, claim in config.volumes.items()
    ]
    pod["containers"][0]["volumeMounts"] = [{"name": name, "mountPath": path} for path, name in names.items()]
    return spec
