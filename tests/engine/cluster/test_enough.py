"""No more workers than there are calls for."""

import os
import sys
import types

import distributed
import pytest

from tests.engine.cluster.test_kinds import RecordedCUDACluster
from vimvol.config.cluster import CudaCluster, JobsCluster, KubernetesCluster, LocalCluster
from vimvol.engine.cluster import open_cluster
from vimvol.engine.cluster.enough import enough, enough_jobs
from vimvol.engine.cluster.shares import memory_ahead


@pytest.mark.parametrize(
    ("asked", "calls", "left"),
    [(8, 3, 3), (2, 3, 2), (8, 0, 1), (0, 3, 0)],
    ids=["fewer calls", "fewer workers", "none left", "none asked for"],
)
def test_there_are_as_many_processes_as_calls_or_as_asked_for(asked: int, calls: int, left: int) -> None:
    assert enough(asked, {"CPU": calls, "GPU": 0}, "CPU", "GPU") == left
    assert enough(asked, {"CPU": 0, "GPU": calls}, "CPU", "GPU") == left
    assert enough(asked, None, "CPU") == asked


POOLS = {"cpu": {"jobs": 8, "cores": 4}, "gpu": {"jobs": 4}}


@pytest.mark.parametrize(
    ("pools", "calls", "jobs"),
    [
        (POOLS, (5, 3), (2, 3)),
        (POOLS, (1000, 1000), (8, 4)),
        (POOLS, (5, 0), (2, None)),
        ({"cpu": POOLS["cpu"]}, (1, 9), (3, None)),
        ({"gpu": POOLS["gpu"]}, (2, 0), (None, 2)),
        ({"gpu": POOLS["gpu"]}, (0, 0), (None, 1)),
    ],
)
def test_no_more_jobs_are_submitted_than_have_something_to_do(pools, calls, jobs) -> None:
    config = JobsCluster(kind="slurm", **pools)
    found = enough_jobs(config, dict(zip(("CPU", "GPU"), calls, strict=True)))
    assert tuple(pool and pool.jobs for pool in (found.cpu, found.gpu)) == jobs
    assert enough_jobs(config, None) == config


def test_jobs_that_follow_the_work_and_pods_are_bounded_too() -> None:
    follow = JobsCluster(kind="pbs", cpu={"minimum": 3, "maximum": 9, "cores": 2})
    found = enough_jobs(follow, {"CPU": 4, "GPU": 0}).cpu
    assert (found.minimum, found.maximum, found.cores) == (2, 2, 2)
    pods = KubernetesCluster(image="i", cpu={"workers": 9}, gpu={"workers": 3})
    found = enough_jobs(pods, {"CPU": 4, "GPU": 2})
    assert (found.cpu.workers, found.gpu.workers) == (4, 2)


def visible() -> str | None:
    return os.environ.get("CUDA_VISIBLE_DEVICES")


@pytest.mark.parametrize(("workers", "seen"), [(1, "0"), (3, "")])
def test_the_last_of_several_processes_has_no_gpu_either(workers, seen, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    with open_cluster("local", workers, {"CPU": 1, "GPU": 1}) as pool:
        assert pool.slots == 1
        pool.submit(visible)
        assert pool.next_done()[1] == seen


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("dask_cuda")
    module.LocalCUDACluster = RecordedCUDACluster
    module.utils = types.SimpleNamespace(get_n_gpus=lambda: 2)
    monkeypatch.setitem(sys.modules, "dask_cuda", module)


@pytest.mark.usefixtures("two_gpus")
@pytest.mark.parametrize("cores", [0, 2])
def test_the_same_holds_for_processes_with_and_without_a_gpu(cores: int) -> None:
    with open_cluster(CudaCluster(cpu_workers=cores), None, {"CPU": 1, "GPU": 1}) as pool:
        # two calls at once on a GPU
        assert (pool.slots, pool.slots_for("GPU")) == (2 + bool(cores), 2)


@pytest.mark.usefixtures("two_gpus")
def test_the_memory_of_a_process_is_known_before_there_is_one() -> None:
    machine, many = int(distributed.system.MEMORY_LIMIT), {"CPU": 99, "GPU": 99}
    assert memory_ahead(LocalCluster(), 4, many) == {"CPU": machine // 4}
    assert memory_ahead(LocalCluster(), 4, {"CPU": 2, "GPU": 1}) == {"CPU": machine // 2}
    assert memory_ahead(LocalCluster(), 0, many) == {}
    assert memory_ahead(CudaCluster(), 2, many) == {"GPU": 4 * (machine // 10), "CPU": machine // 10}
    jobs = JobsCluster(kind="sge", cpu={"jobs": 1, "cores": 4, "memory": "8GB"}, gpu={"jobs": 1, "memory": "2GiB"})
    assert memory_ahead(jobs, None, many) == {"CPU": 2 * 10**9, "GPU": 2 << 30}
    assert memory_ahead(jobs, None, {"CPU": 9, "GPU": 0}) == {"CPU": 2 * 10**9}
    pods = {"image": "i", "cpu": {"workers": 1, "memory": "3Gi"}}
    assert memory_ahead(KubernetesCluster(**pods), None) == {"CPU": 3 << 30}
    pods["cpu"]["memory"] = "3 of Kubernetes"
    assert memory_ahead(KubernetesCluster(**pods), None) == {}
    with open_cluster("local", 1, many) as pool:
        assert memory_ahead(LocalCluster(), 1, many)["CPU"] == pool.room_for(None).memory
