import dask
import distributed
import pytest

from vimvol.engine.dask_pool import DaskPool
from vimvol.engine.pool import Resource


def where() -> str:
    return distributed.get_worker().name


@pytest.mark.parametrize(("resource", "seen"), [("GPU", {"gpu"}), ("CPU", {"cpu-0", "cpu-1"})])
def test_a_call_runs_only_where_its_resource_is(resource: Resource, seen: set[str]) -> None:
    def worker(**options: object) -> dict:
        return {"cls": distributed.Worker, "options": {"dashboard_address": "127.0.0.1:0", **options}}

    workers = {
        "gpu": worker(nthreads=2, resources={"GPU": 1}),
        "cpu-0": worker(nthreads=1, resources={"CPU": 1}),
        "cpu-1": worker(nthreads=1, resources={"CPU": 1}),
    }
    scheduler = {"cls": distributed.Scheduler, "options": {"dashboard_address": "127.0.0.1:0"}}
    with (
        dask.config.set({"distributed.worker.memory.terminate": False}),
        distributed.SpecCluster(workers, scheduler) as cluster,
        distributed.Client(cluster, set_as_default=False) as client,
    ):
        pool = DaskPool(client)
        assert (pool.slots_for(resource), pool.slots_for(None)) == (2, 4)
        for _ in range(20):
            pool.submit(where, resource=resource)
        names = {pool.next_done()[1] for _ in range(20)}
    assert names <= seen


def test_a_resource_that_was_asked_for_is_waited_for() -> None:
    """A batch system may start the jobs with a GPU last, and until then cores would predict."""
    processor, gpu = ({"cls": distributed.Worker, "options": {"resources": {kind: 1}}} for kind in ("CPU", "GPU"))
    scheduler = {"cls": distributed.Scheduler, "options": {"dashboard_address": "127.0.0.1:0"}}
    with (
        dask.config.set({"distributed.worker.memory.terminate": False}),
        distributed.SpecCluster({"cpu": processor}, scheduler) as cluster,
        distributed.Client(cluster, set_as_default=False) as client,
    ):
        pool = DaskPool(client, offered=("CPU", "GPU"))
        assert pool.slots_for("GPU") == 1
        pool.submit(where, resource="GPU")
        pool.submit(where, resource="CPU")
        assert pool.next_done()[1] == "cpu"
        assert pool.next_within(0.5) is None
        cluster.new_spec = gpu
        cluster.worker_spec["gpu"] = gpu
        cluster.sync(cluster._correct_state)
        assert pool.next_done()[1] == "gpu"


def test_a_resource_that_no_worker_declares_is_no_condition() -> None:
    with (
        distributed.LocalCluster(
            n_workers=1, threads_per_worker=1, processes=False, dashboard_address="127.0.0.1:0"
        ) as cluster,
        distributed.Client(cluster, set_as_default=False) as client,
    ):
        pool = DaskPool(client)
        pool.submit(where, resource="GPU")
        assert pool.next_done()[1] == 0
