"""What a cluster can be told: one frozen section a kind; none of it changes a result."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from vimvol.config.base import NonNegative, Positive, Section
from vimvol.config.explain import shown
from vimvol.config.load import parse_config, read_config
from vimvol.errors import ConfigError

Wall = Annotated[str, Field(pattern=r"^\d+:[0-5]\d(:[0-5]\d)?$", examples=["08:00:00"])]
Memory = Annotated[str, Field(pattern=r"^\d+(\.\d+)? ?([kKMGT]i?B?)$", examples=["32GB"])]

LOOPBACK = "127.0.0.1:0"


class LocalCluster(Section):
    """Processes of this machine; nothing listens beyond loopback unless the dashboard is asked to."""

    kind: Literal["local"] = Field(default="local", description="what begins the file")
    tls: bool = Field(default=False, description="encrypt with certificates made for this run")
    dashboard: str = Field(default=LOOPBACK, description="host:port on which Dask's dashboard listens")


class CudaCluster(Section):
    """All GPUs of this machine, one process each, and processes for the work without a GPU."""

    kind: Literal["cuda"] = Field(default="cuda", description="what begins the file")
    tls: bool = Field(default=False, description="encrypt with certificates made for this run")
    dashboard: str = Field(default=LOOPBACK, description="host:port on which Dask's dashboard listens")
    devices: tuple[NonNegative, ...] | None = Field(
        default=None, description="numbers of the GPUs to use; none: all", examples=[[0, 1]]
    )
    cpu_workers: NonNegative | None = Field(default=None, description="processes without a GPU; none: one a core")


class JobPool(Section):
    """Jobs of one kind: as many as ``jobs``, or between ``minimum`` and ``maximum`` as there is work."""

    jobs: Positive | None = Field(default=None, description="jobs to keep")
    minimum: NonNegative | None = Field(default=None, description="jobs to keep at least")
    maximum: Positive | None = Field(default=None, description="jobs at most")
    cores: Positive = Field(default=1, description="cores of a job; a worker process each, but one process for a GPU")
    memory: Memory = Field(default="8GB", description="memory of a job")
    queue: str | None = Field(default=None, description="queue or partition")
    directives: tuple[str, ...] = Field(
        default=(), description="more lines of the job's header", examples=[["--gres=gpu:1"]]
    )

    @model_validator(mode="after")
    def _one_way(self) -> JobPool:
        adaptive = self.minimum is not None or self.maximum is not None
        if adaptive == (self.jobs is not None) or (adaptive and self.maximum is None):
            raise ValueError("give either jobs, or maximum (and minimum)")
        if self.maximum is not None and (self.minimum or 0) > self.maximum:
            raise ValueError(f"minimum {self.minimum} exceeds maximum {self.maximum}")
        return self


class JobsCluster(Section):
    """Jobs of a batch system that sees the same files as this machine."""

    kind: Literal["slurm", "pbs", "lsf", "sge"] = Field(description="which batch system")
    cpu: JobPool | None = Field(default=None, description="jobs without a GPU")
    gpu: JobPool | None = Field(default=None, description="jobs with one GPU each")
    walltime: Wall = Field(
        default="04:00:00", description="hours:minutes[:seconds] of a job; workers leave before it ends"
    )
    account: str | None = Field(default=None, description="who pays; the project of LSF and SGE")
    interface: str | None = Field(default=None, description="network interface, e.g. ib0; none: the default route's")
    dashboard: str = Field(default=LOOPBACK, description="host:port on which Dask's dashboard listens")
    tls: bool = Field(default=False, description="encrypt with certificates made for this run; wants shared_folder")
    shared_folder: str | None = Field(
        default=None, description="folder that all nodes see, for the workers' certificates"
    )
    local_folder: str | None = Field(default=None, description="scratch folder of a node for Dask's temporary files")
    log_folder: str | None = Field(
        default=None, description="folder for the output of jobs; none: what the system does"
    )
    prologue: tuple[str, ...] = Field(
        default=(), description="shell lines before a worker starts", examples=[["module load cuda"]]
    )
    python: str | None = Field(default=None, description="Python of the nodes; none: that which runs now")

    @model_validator(mode="after")
    def _consistent(self) -> JobsCluster:
        pools = [pool for pool in (self.cpu, self.gpu) if pool is not None]
        if not pools:
            raise ValueError("give cpu or gpu, or both; e.g. cpu: {jobs: 8, cores: 4, memory: 16GB}")
        if len(pools) == 2 and any(pool.jobs is None for pool in pools):
            raise ValueError("with both cpu and gpu give jobs for each: Dask adapts one pool only")
        if self.tls and self.shared_folder is None:
            raise ValueError("tls wants shared_folder, where the workers find their certificates")
        if self.lifetime < 60:
            raise ValueError("walltime is too short: workers start and leave within it; give 2 minutes at least")
        return self

    @property
    def wall_seconds(self) -> int:
        """Wall time of a job."""
        hours, minutes, *seconds = (int(part) for part in self.walltime.split(":"))
        return 3600 * hours + 60 * minutes + (seconds[0] if seconds else 0)

    @property
    def lifetime(self) -> int:
        """Seconds after which a worker begins to leave, so that its blocks go on elsewhere before the job is ended."""
        return self.wall_seconds - max(60, min(600, self.wall_seconds // 10)) - self.stagger

    @property
    def stagger(self) -> int:
        """Seconds by which the ends of workers are spread, so that not all leave at once."""
        return min(300, self.wall_seconds // 20)


class PodPool(Section):
    """Pods of one kind."""

    workers: Positive | None = Field(default=None, description="pods to keep, one worker process each")
    minimum: NonNegative | None = Field(default=None, description="pods to keep at least")
    maximum: Positive | None = Field(default=None, description="pods at most")
    memory: str = Field(default="8Gi", description="memory of a pod, in the notation of Kubernetes")
    image: str | None = Field(default=None, description="image of these pods; none: that of the cluster")

    @model_validator(mode="after")
    def _one_way(self) -> PodPool:
        adaptive = self.minimum is not None or self.maximum is not None
        if adaptive == (self.workers is not None) or (adaptive and self.maximum is None):
            raise ValueError("give either workers, or maximum (and minimum)")
        if self.maximum is not None and (self.minimum or 0) > self.maximum:
            raise ValueError(f"minimum {self.minimum} exceeds maximum {self.maximum}")
        return self


class KubernetesCluster(Section):
    """Pods of a Kubernetes cluster in which the Dask operator is installed."""

    kind: Literal["kubernetes"] = Field(default="kubernetes", description="what begins the file")
    image: str = Field(description="image that holds vimvol, for the scheduler and the workers")
    cpu: PodPool = Field(description="pods without a GPU")
    gpu: PodPool | None = Field(default=None, description="pods with one GPU each; their number is fixed")
    namespace: str | None = Field(default=None, description="none: that of the current context")
    volumes: dict[str, str] = Field(default={}, description="path in the pods: name of a persistent volume claim")

    @model_validator(mode="after")
    def _fixed_gpus(self) -> KubernetesCluster:
        if self.gpu is not None and (self.gpu.workers is None or self.cpu.workers is None):
            raise ValueError("with gpu give workers for both cpu and gpu: Dask adapts one pool only")
        return self


class AddressCluster(Section):
    """A Dask cluster that is already there."""

    kind: Literal["address"] = Field(default="address", description="what begins the file")
    address: str | None = Field(default=None, description="tcp://host:port or tls://host:port of the scheduler")
    scheduler_file: str | None = Field(default=None, description="file that the scheduler wrote")
    ca_file: str | None = Field(default=None, description="certificate of the authority, for tls://")
    cert_file: str | None = Field(default=None, description="certificate of this client, for tls://")
    key_file: str | None = Field(default=None, description="its key, for tls://")

    @model_validator(mode="after")
    def _one_way(self) -> AddressCluster:
        if (self.address is None) == (self.scheduler_file is None):
            raise ValueError("give either address or scheduler_file")
        return self


ClusterConfig = LocalCluster | CudaCluster | JobsCluster | KubernetesCluster | AddressCluster

KINDS: dict[str, type[ClusterConfig]] = {
    "local": LocalCluster,
    "cuda": CudaCluster,
    "slurm": JobsCluster,
    "pbs": JobsCluster,
    "lsf": JobsCluster,
    "sge": JobsCluster,
    "kubernetes": KubernetesCluster,
    "address": AddressCluster,
}


def read_cluster(name: str) -> ClusterConfig:
    """Return the settings of a cluster.

    Parameters
    ----------
    name
        ``local`` or ``cuda``; the address of a running scheduler, ``tcp://host:port`` or ``tls://host:port``; or the
        path of a YAML file with a ``kind`` and its settings, as in ``configs/cluster``.

    Raises
    ------
    ConfigError
        If there is no such kind or file, or what it holds does not fit.
    """
    if "://" in name:
        return AddressCluster(address=name)
    if name in ("local", "cuda"):
        return LocalCluster() if name == "local" else CudaCluster()
    if Path(name).suffix in (".yaml", ".yml"):
        return _checked(read_config(name), name)
    if name in KINDS:
        raise ConfigError(f"cluster {name!r} wants settings; give a file, see configs/cluster/{name}.yaml")
    raise ConfigError(
        f"cluster {name!r} is not known, so nothing can run; choose local, cuda, tcp://host:port or a YAML file as in "
        "configs/cluster"
    )


def _checked(data: dict[str, Any], source: str) -> ClusterConfig:
    kind = data.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        raise ConfigError(f"kind = {shown(kind)} in {source} is no cluster; choose {', '.join(KINDS)}")
    return parse_config(KINDS[kind], data, source)
