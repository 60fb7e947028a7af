"""Every kind of cluster: what is asked of its library, and what comes back where it can run here."""

import asyncio
import inspect
import signal
import subprocess
import sys
import types
from pathlib import Path

import dask_kubernetes.operator
import distributed
import pytest
import torch

from vimvol.config.cluster import (
    KINDS,
    AddressCluster,
    CudaCluster,
    JobsCluster,
    KubernetesCluster,
    read_cluster,
)
from vimvol.engine.cluster import CLUSTERS, connect, open_cluster
from vimvol.engine.cluster.connect import optional
from vimvol.engine.cluster.jobs import CLASSES, cluster_options
from vimvol.engine.cluster.kubernetes import cluster_spec, worker_spec
from vimvol.engine.cluster.threads import THREAD_VARIABLES
from vimvol.engine.pool import Pool
from vimvol.errors import ConfigError, InputError, MissingExtraError

dask_jobqueue = optional("dask_jobqueue", "slurm", "the test")
cuda = sys.modules["vimvol.engine.cluster.cuda"]  # the package has a function of this name
FILES = sorted((Path(__file__).parents[3] / "configs" / "cluster").glob("*.yaml"))


def threads() -> tuple[int, ...]:
    import os

    return (torch.get_num_threads(), *(int(os.environ[name]) for name in THREAD_VARIABLES))


def where() -> tuple[str, str]:
    import os

    return str(distributed.get_worker().name), os.environ.get("CUDA_VISIBLE_DEVICES", "-")


def deaf() -> bool:
    return signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ())


def told(pool: Pool, function, count: int = 8, resource=None) -> set:
    for _ in range(count):
        pool.submit(function, resource=resource)
    outcomes = [pool.next_done()[1] for _ in range(count)]
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            raise outcome
    return set(outcomes)


def test_every_kind_has_a_section_and_a_file() -> None:
    assert set(KINDS) == set(CLUSTERS)
    assert {path.stem for path in FILES} == set(KINDS) - {"address"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_file_is_one_of_its_kind(path: Path) -> None:
    config = read_cluster(str(path))
    assert config.kind == path.stem
    assert isinstance(config, KINDS[path.stem])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("kind: slrum", "kind = 'slrum'.*slurm"),
        ("kind: [slurm, pbs]", r'kind = \["slurm", "pbs"\] in .* is no cluster; choose local, cuda, slurm'),
        ("{kind: slurm, cpu: {jobs: 1}, quue: x}", "unknown key 'quue'"),
        ("{kind: slurm, cpu: {jobs: 1, memory: lots}}", "cpu.memory = 'lots'"),
        ("{kind: slurm, cpu: {jobs: 1, maximum: 2}}", "either jobs, or maximum"),
        ("{kind: slurm, cpu: {minimum: 3, maximum: 2}}", "minimum 3 exceeds maximum 2"),
        ("{kind: slurm}", "give cpu or gpu"),
        ("{kind: slurm, cpu: {maximum: 2}, gpu: {jobs: 1}}", "adapts one pool only"),
        ("{kind: slurm, cpu: {jobs: 1}, tls: true}", "tls wants shared_folder"),
        ("{kind: slurm, cpu: {jobs: 1}, walltime: '00:01'}", "walltime is too short"),
        ("{kind: kubernetes, cpu: {workers: 1}}", "'image' is missing"),
        ("{kind: kubernetes, image: x, cpu: {maximum: 1}, gpu: {workers: 1}}", "adapts one pool only"),
        ("{kind: address}", "either address or scheduler_file"),
    ],
)
def test_settings_that_do_not_fit_are_refused(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "cluster.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_cluster(str(path))


def test_a_kind_that_wants_settings_names_its_file() -> None:
    with pytest.raises(ConfigError, match=r"configs/cluster/slurm\.yaml"):
        read_cluster("slurm")


def test_workers_leave_before_the_wall_time() -> None:
    for wall in ("00:03", "00:10:00", "01:00", "48:00:00"):
        config = JobsCluster.model_validate({"kind": "slurm", "cpu": {"jobs": 1}, "walltime": wall})
        assert config.lifetime >= 60
        assert config.lifetime + config.stagger <= config.wall_seconds - 60


def test_local_workers_compute_with_one_thread_over_tls(tmp_path: Path) -> None:
    path = tmp_path / "local.yaml"
    path.write_text("{kind: local, tls: true}")
    with open_cluster(str(path), 1) as pool:
        assert told(pool, threads) == {(1,) * (1 + len(THREAD_VARIABLES))}


def test_threads_of_workers_that_somebody_else_started_are_bounded(tmp_path: Path) -> None:
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=2, host="127.0.0.1", dashboard_address="127.0.0.1:0"
    ) as cluster:
        file = tmp_path / "scheduler.json"
        with distributed.Client(cluster, set_as_default=False) as client:
            client.write_scheduler_file(str(file))
        for config in (
            AddressCluster(address=cluster.scheduler_address),
            AddressCluster(scheduler_file=str(file)),
        ):
            with open_cluster(config) as pool:
                assert pool.slots == 2
                assert told(pool, threads) == {(1,) * (1 + len(THREAD_VARIABLES))}


def test_a_missing_scheduler_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"), open_cluster(AddressCluster(scheduler_file="nowhere.json")):
        pass


@pytest.mark.parametrize("kind", ["local", "cuda"])
def test_fewer_than_no_workers_are_refused_rather_than_waited_for(kind: str) -> None:
    with (
        pytest.raises(InputError, match="-1 worker processes cannot be started; give 0 or more"),
        open_cluster(kind, -1),
    ):
        pass


@pytest.mark.parametrize("kind", sorted(CLASSES))
def test_jobs_are_asked_for_what_is_configured(kind: str) -> None:
    cpu = {"jobs": 2, "cores": 4, "memory": "16GB", "queue": "short", "directives": ["--exclusive"]}
    config = JobsCluster.model_validate(
        {"kind": kind, "cpu": cpu, "account": "lab", "walltime": "01:00:00", "prologue": ["module load x"]}
    )
    cls = getattr(dask_jobqueue, CLASSES[kind][0])
    options = cluster_options(config)
    cluster_only = set(inspect.signature(dask_jobqueue.JobQueueCluster.__init__).parameters) - {"interface", "security"}
    job = cls.job_cls("tls://10.0.0.1:1", name="w", **{k: v for k, v in options.items() if k not in cluster_only})
    script = job.job_script()
    for text in ("lab", "short", "--exclusive", "module load x", "--lifetime", "--nworkers 4", "--resources CPU=1"):
        assert text in script
    for name in THREAD_VARIABLES:
        assert f"export {name}=1" in script
    assert script.index("export OMP_NUM_THREADS=1") < script.index("distributed.cli.dask_worker")


def test_a_job_with_a_gpu_runs_one_process_that_declares_it() -> None:
    config = JobsCluster.model_validate(
        {"kind": "slurm", "gpu": {"jobs": 1, "cores": 4, "directives": ["--gres=gpu:1"]}}
    )
    options = cluster_options(config)
    assert options["processes"] == 1
    text = " ".join(options["worker_extra_args"])
    assert "--resources GPU=1" in text
    assert "--nthreads 2" in text


def test_a_batch_system_that_is_not_there_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    config = JobsCluster.model_validate({"kind": "lsf", "cpu": {"jobs": 1}})
    with pytest.raises(InputError, match="bsub is not on this machine"), open_cluster(config):
        pass


def test_pods_mount_the_volumes_and_declare_what_they_have() -> None:
    config = KubernetesCluster.model_validate(
        {"image": "i", "cpu": {"workers": 3}, "gpu": {"workers": 1, "image": "g"}, "volumes": {"/data": "claim"}}
    )
    library = dask_kubernetes.operator
    spec = cluster_spec(config, "name", library)
    assert spec["kind"] == "DaskCluster"
    assert spec["spec"]["worker"]["replicas"] == 3
    gpu = worker_spec(config, config.gpu, library, gpu=True)
    for worker, image, resource in ((spec["spec"]["worker"], "i", "CPU=1"), (gpu, "g", "GPU=1")):
        (container,) = worker["spec"]["containers"]
        assert container["image"] == image
        assert container["args"][container["args"].index("--resources") + 1] == resource
        assert {"name": "OMP_NUM_THREADS", "value": "1"} in container["env"]
        assert container["volumeMounts"] == [{"name": "data-0", "mountPath": "/data"}]
        assert worker["spec"]["volumes"] == [{"name": "data-0", "persistentVolumeClaim": {"claimName": "claim"}}]
    assert gpu["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "1"
    signature = inspect.signature(library.KubeCluster.__init__)
    signature.bind(None, custom_cluster_spec=spec, quiet=True, namespace="n")
    inspect.signature(library.KubeCluster.add_worker_group).bind(None, "gpu", custom_spec=gpu)
    inspect.signature(library.KubeCluster.adapt).bind(None, minimum=0, maximum=3)


class RecordedCUDACluster(distributed.LocalCluster):
    """Takes what `dask_cuda.LocalCUDACluster` of 26.10 takes, and starts one process a device without a GPU.

    dask-cuda pins another Dask than the tests run with, so that the two cannot be installed together.
    """

    def __init__(
        self,
        CUDA_VISIBLE_DEVICES=None,  # noqa: N803 - the name in the library
        n_workers=None,
        threads_per_worker=1,
        memory_limit="auto",
        **kwargs,
    ) -> None:
        allowed = set(inspect.signature(distributed.LocalCluster.__init__).parameters) | {"resources", "preload"}
        assert set(kwargs) <= allowed
        super().__init__(
            n_workers=n_workers or len(CUDA_VISIBLE_DEVICES or [0]),
            threads_per_worker=threads_per_worker,
            memory_limit=memory_limit,
            **kwargs,
        )


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """One GPU and a dask-cuda that finds it."""
    module = types.ModuleType("dask_cuda")
    module.LocalCUDACluster = RecordedCUDACluster
    module.utils = types.SimpleNamespace(get_n_gpus=lambda: 1)
    monkeypatch.setitem(sys.modules, "dask_cuda", module)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)  # hidden from all other tests


@pytest.mark.usefixtures("gpus")
def test_gpus_and_processes_without_work_in_one_cluster() -> None:
    with open_cluster(CudaCluster(devices=(0,), cpu_workers=1, tls=True)) as pool:
        assert told(pool, where, resource="GPU") == {("0", "-")}
        assert told(pool, where, resource="CPU") == {("cpu-0", "")}
        assert (pool.slots_for("GPU"), pool.slots_for("CPU")) == (2, 1)
        # a terminal sends Ctrl-C to all of them, and this process is the one that is to hear it
        assert told(pool, deaf, resource="GPU") == told(pool, deaf, resource="CPU") == {True}
        assert not deaf()


def test_processes_of_this_machine_do_not_hear_what_a_terminal_sends_to_all() -> None:
    with open_cluster("local", 1) as pool:
        assert (told(pool, deaf), deaf()) == ({True}, False)


@pytest.mark.usefixtures("gpus")
def test_processes_with_and_without_a_gpu_share_the_memory_of_the_machine() -> None:
    with open_cluster(CudaCluster(cpu_workers=2)) as pool:
        gpu, cpu = pool.room_for("GPU").memory, pool.room_for("CPU").memory
    machine = distributed.system.MEMORY_LIMIT
    assert gpu == 4 * cpu
    assert machine * 0.99 < gpu + 2 * cpu <= machine


@pytest.mark.usefixtures("gpus")
def test_processes_without_a_gpu_start_and_stop_together_and_none_stays_where_one_fails(monkeypatch) -> None:
    class Watched(distributed.Nanny):
        made: list[distributed.Nanny] = []  # noqa: RUF012
        busy = 0
        most: list[int] = []  # noqa: RUF012
        failing = ""

        def __init__(self, *args, **kwargs) -> None:
            super().__init__(*args, **kwargs)
            self.made.append(self)

        async def during(self, what):
            Watched.busy += 1
            self.most.append(Watched.busy)
            try:
                await asyncio.sleep(0.2)
                return await what
            finally:
                Watched.busy -= 1

        async def instantiate(self):
            if self.name == Watched.failing:
                raise OSError("no process")
            return await self.during(super().instantiate())

        async def close(self, *args, **kwargs):
            return await self.during(super().close(*args, **kwargs))

    monkeypatch.setattr(cuda.distributed, "Nanny", Watched)
    with open_cluster(CudaCluster(cpu_workers=2)):
        assert max(Watched.most) == 2
        Watched.most.clear()
    assert max(Watched.most) == 2
    Watched.made.clear()
    Watched.failing = "cpu-1"
    with pytest.raises(RuntimeError, match="failed to start"), open_cluster(CudaCluster(cpu_workers=2)):
        pass
    assert [nanny.status for nanny in Watched.made] == [distributed.Status.closed] * 2


@pytest.mark.parametrize(
    ("module", "config", "extra"),
    [
        ("dask_cuda", CudaCluster(), "gpus"),
        ("dask_jobqueue", JobsCluster.model_validate({"kind": "slurm", "cpu": {"jobs": 1}}), "slurm"),
        (
            "dask_kubernetes.operator",
            KubernetesCluster.model_validate({"image": "i", "cpu": {"workers": 1}}),
            "kubernetes",
        ),
    ],
)
def test_what_is_not_installed_is_told(module, config, extra, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtraError, match=rf"pip install .*'\.\[{extra}\]' in"), open_cluster(config):
        pass


def test_a_library_that_is_loaded_leaves_ctrl_c_alone() -> None:
    """In a process of its own: dask-jobqueue takes the signal when it is first imported, and exits with code 0."""
    code = (
        "import signal; from vimvol.engine.cluster.connect import optional; before = signal.getsignal(signal.SIGINT); "
        "optional('dask_jobqueue', 'slurm', 'the test'); assert signal.getsignal(signal.SIGINT) is before"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_workers_of_another_version_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=1, host="127.0.0.1", dashboard_address="127.0.0.1:0"
    ) as cluster:
        monkeypatch.setattr(connect, "_own_version", lambda: "0.0.7")
        config = AddressCluster(address=cluster.scheduler_address)
        with pytest.raises(InputError, match=r"has vimvol .*, and this process 0\.0\.7"), open_cluster(config):
            pass
