"""What becomes of blocks whose worker is lost or hangs, and of a run whose scheduler is lost."""

import contextlib
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import dask
import distributed
import pytest

from vimvol.engine import dask_pool as module
from vimvol.engine.cluster import open_cluster
from vimvol.engine.cluster.threads import SETTINGS_HERE
from vimvol.engine.dask_pool import DaskPool
from vimvol.engine.ledger import Ledger, block_name
from vimvol.engine.plan import plan_stage
from vimvol.engine.pool import SerialPool
from vimvol.engine.run import Execution, run_stage
from vimvol.errors import DeviceLostError, IncompleteRunError
from vimvol.geometry import Block
from vimvol.io.objects import open_objects
from vimvol.report.progress import silent

PLAN = plan_stage("lost", (4, 4, 4), (2, 2, 2))
BLOCKS = list(PLAN)


@dataclass(frozen=True)
class Deadly:
    """A task of which some blocks end their worker process."""

    deadly: frozenset[Block]

    def __call__(self, block: Block) -> dict:
        if block in self.deadly:
            os.kill(os.getpid(), signal.SIGKILL)
        return {}


@dataclass(frozen=True)
class Slow:
    """A task that takes a while, and very long the first time for one block."""

    folder: str
    seconds: float
    hanging: Block | None = None

    def __call__(self, block: Block) -> dict:
        calls = Path(self.folder) / block_name(block)
        before = calls.read_text() if calls.exists() else ""
        calls.write_text(before + "x")
        time.sleep(60 if block == self.hanging and not before else self.seconds)
        return {}


@dataclass(frozen=True)
class Broken:
    """A task that fails on the device of the first process that computes it, and of every one for some blocks."""

    folder: str
    deadly: frozenset[Block] = frozenset()

    def __call__(self, block: Block) -> dict:
        first = Path(self.folder) / "first"
        with contextlib.suppress(FileExistsError), first.open("x") as file:
            file.write(str(os.getpid()))
        if block in self.deadly or first.read_text() == str(os.getpid()):
            (Path(self.folder) / f"{block_name(block)} {time.monotonic()}").touch()
            raise DeviceLostError("CUDA error: an illegal memory access was encountered")
        time.sleep(0.1)
        return {}


@dataclass(frozen=True)
class BrokenForGood:
    """A task that fails on the device of some workers, in whatever process."""

    folder: str
    workers: frozenset[str]

    def __call__(self, block: Block) -> dict:
        name = str(distributed.get_worker().name)
        time.sleep(0.2)
        if name in self.workers:
            (Path(self.folder) / f"died {time.monotonic()}").touch()
            raise DeviceLostError("CUDA error: uncorrectable ECC error encountered")
        return {}


def ledger_in(folder: Path) -> Ledger:
    return Ledger(open_objects(str(folder / "ledger")), "lost", "k")


def queueing(workers: int, failures: int) -> tuple[object, distributed.LocalCluster]:
    """Return a cluster whose workers hold more calls than they can run, since these want a resource."""
    settings = dask.config.set({**SETTINGS_HERE, "distributed.scheduler.allowed-failures": failures})
    cluster = distributed.LocalCluster(
        n_workers=workers,
        threads_per_worker=4,
        resources={"CPU": 1},
        host="127.0.0.1",
        dashboard_address="127.0.0.1:0",
        silence_logs=50,
    )
    return settings, cluster


def test_blocks_that_shared_a_worker_with_a_deadly_one_are_not_blamed(tmp_path: Path) -> None:
    settings, cluster = queueing(1, failures=0)
    with settings, cluster, distributed.Client(cluster, set_as_default=False) as client:
        execution = Execution(DaskPool(client), silent(), resource="CPU")
        with pytest.raises(IncompleteRunError, match="1 of 8 blocks failed for good"):
            run_stage(PLAN, Deadly(frozenset(BLOCKS[1:2])), ledger_in(tmp_path), execution)
    assert ledger_in(tmp_path).done() == {block_name(block) for block in BLOCKS} - {block_name(BLOCKS[1])}


def test_a_stage_all_of_whose_blocks_are_deadly_ends_early(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("vimvol.engine.run.HOPELESS", 2)
    settings, cluster = queueing(1, failures=0)
    with settings, cluster, distributed.Client(cluster, set_as_default=False) as client:
        execution = Execution(DaskPool(client), silent(), window=2, resource="CPU")
        with pytest.raises(IncompleteRunError, match="2 of 8 blocks failed for good"):
            run_stage(PLAN, Deadly(frozenset(BLOCKS)), ledger_in(tmp_path), execution)


def test_a_deadline_counts_from_when_a_call_runs_and_not_while_it_waits(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(module, "SECONDS_BETWEEN_LOOKS", 0.1)
    settings, cluster = queueing(1, failures=3)
    with settings, cluster, distributed.Client(cluster, set_as_default=False) as client:
        execution = Execution(DaskPool(client), silent(), window=8, deadline=4.0, resource="CPU")
        (tmp_path / "calls").mkdir()
        task = Slow(str(tmp_path / "calls"), 0.5, hanging=BLOCKS[3])
        run_stage(PLAN, task, ledger_in(tmp_path), execution)
    calls = {path.name: len(path.read_text()) for path in (tmp_path / "calls").iterdir()}
    assert calls == {block_name(block): 1 + (block == BLOCKS[3]) for block in BLOCKS}


def test_a_process_whose_device_failed_ends_and_its_blocks_run_elsewhere(tmp_path: Path, caplog) -> None:
    plan = plan_stage("lost", (60, 1, 1), (1, 1, 1))
    with open_cluster("local", 2) as pool, caplog.at_level(logging.WARNING):
        run_stage(plan, Broken(str(tmp_path)), ledger_in(tmp_path), Execution(pool, silent()))
    assert ledger_in(tmp_path).done() == {block_name(block) for block in plan}
    # a call of a process that was ended is not begun in it again
    assert len(list(tmp_path.glob("0*"))) <= 1
    told = [record.getMessage() for record in caplog.records if "device" in record.getMessage()]
    assert len(told) == 1
    assert told[0].endswith("ends, its device failed (CUDA error: an illegal memory access was encountered)")


def test_a_worker_whose_device_is_broken_for_good_is_left_out(tmp_path: Path, caplog) -> None:
    plan = plan_stage("lost", (80, 1, 1), (1, 1, 1))
    with open_cluster("local", 2) as pool, caplog.at_level(logging.WARNING):
        run_stage(plan, BrokenForGood(str(tmp_path), frozenset("0")), ledger_in(tmp_path), Execution(pool, silent()))
        assert pool.slots == 1
    assert ledger_in(tmp_path).done() == {block_name(block) for block in plan}
    # on a busy machine a process may begin a second block before it ends, or one more process before it is closed
    assert 2 <= len(list(tmp_path.glob("died*"))) <= 4
    told = [record.getMessage() for record in caplog.records]
    assert told.count("worker 0 is left out from now on, its device seems to be broken for good") == 1


@pytest.mark.parametrize("nannies", [True, False])
def test_a_run_none_of_whose_devices_works_ends_in_one_line(tmp_path: Path, nannies: bool) -> None:
    plan = plan_stage("lost", (80, 1, 1), (1, 1, 1))
    with contextlib.ExitStack() as stack:
        if nannies:
            pool = stack.enter_context(open_cluster("local", 2))
            task = BrokenForGood(str(tmp_path), frozenset("01"))
        else:
            address, _ = stack.enter_context(contextlib.contextmanager(remote_cluster)(tmp_path))
            pool = stack.enter_context(open_cluster(address))
            task = BrokenForGood(str(tmp_path), frozenset(pool.client.nthreads()))
        end = "again and again" if nannies else "nothing starts it anew"
        expected = rf"no worker is left: .*{end}.*\(CUDA error: uncorrectable.*run the same command again"
        with pytest.raises(IncompleteRunError, match=expected) as raised:
            run_stage(plan, task, ledger_in(tmp_path), Execution(pool, silent()))
    assert (raised.value.exit_code, str(raised.value).count("\n")) == (1, 0)
    assert "of 80 blocks" not in str(raised.value)


def dies_once(path: str) -> str:
    with contextlib.suppress(FileExistsError), Path(path).open("x"):
        os.kill(os.getpid(), signal.SIGKILL)
    return "computed"


def test_a_process_that_takes_long_to_start_again_is_waited_for(tmp_path: Path) -> None:
    """On a busy machine it takes longer than a cluster waits by default, which is made short here."""
    with dask.config.set({"distributed.deploy.lost-worker-timeout": "100ms"}), open_cluster("local", 1) as pool:
        pool.submit(dies_once, str(tmp_path / "died"))
        arrived = pool.next_within(90)
    assert arrived is not None
    assert arrived[1] == "computed"


def test_a_block_that_breaks_every_device_is_set_aside_and_memory_is_not_blamed(tmp_path: Path) -> None:
    (tmp_path / "first").write_text("nobody")
    settings, cluster = queueing(1, failures=0)
    with settings, cluster, distributed.Client(cluster, set_as_default=False) as client:
        execution = Execution(DaskPool(client), silent(), resource="CPU")
        failed = (
            "1 of 8 blocks failed for good.*WorkersBrokenError: 1 worker.*its device failed .CUDA error: an illegal"
        )
        with pytest.raises(IncompleteRunError, match=failed):
            run_stage(PLAN, Broken(str(tmp_path), frozenset(BLOCKS[1:2])), ledger_in(tmp_path), execution)
    assert ledger_in(tmp_path).done() == {block_name(block) for block in BLOCKS} - {block_name(BLOCKS[1])}


@pytest.mark.parametrize("threads", [False, True])
def test_a_device_of_this_very_process_that_failed_ends_the_run_in_one_line(tmp_path: Path, threads: bool) -> None:
    """Also where the workers are threads of this process, which must not be ended."""
    with contextlib.ExitStack() as stack:
        pool = SerialPool()
        if threads:
            client = distributed.Client(processes=False, n_workers=1, dashboard_address=None, set_as_default=False)
            pool = DaskPool(stack.enter_context(client))
        with pytest.raises(DeviceLostError, match=r"CUDA error: an illegal.*run the same command again") as raised:
            run_stage(PLAN, Broken(str(tmp_path)), ledger_in(tmp_path), Execution(pool, silent()))
    assert (raised.value.exit_code, str(raised.value).count("\n")) == (1, 0)
    # no other block is tried where none can succeed; threads have begun some
    assert threads or len(list(tmp_path.glob("0*"))) == 1


def remote_cluster(tmp_path: Path) -> Iterator[tuple[str, int]]:
    """Address and process of the scheduler of a cluster of one worker, none of them of this process."""
    file = tmp_path / "scheduler.json"
    command = [sys.executable, "-m", "distributed.cli.dask_scheduler"]
    options = ["--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file", str(file)]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    processes = [subprocess.Popen([*command, *options], **quiet)]
    try:
        command = [sys.executable, "-m", "distributed.cli.dask_worker"]
        options = ["--scheduler-file", str(file), "--no-nanny", "--nthreads", "1", "--no-dashboard"]
        processes.append(subprocess.Popen([*command, *options, "--local-directory", str(tmp_path / "w")], **quiet))
        with distributed.Client(scheduler_file=str(file), set_as_default=False, timeout=30) as client:
            client.wait_for_workers(1, timeout=30)
            address = client.scheduler.address
        yield address, processes[0].pid
    finally:
        for process in processes:
            process.kill()
            process.wait()


@pytest.fixture
def remote(tmp_path: Path) -> Iterator[tuple[str, int]]:
    yield from remote_cluster(tmp_path)


@pytest.mark.parametrize("looks", [0.0, 1000.0])
def test_a_scheduler_that_is_gone_ends_the_run_in_one_line(tmp_path: Path, monkeypatch, remote, looks: float) -> None:
    """Noticed by a look at who computes what, or by a call that is waited for."""
    monkeypatch.setattr(module, "SECONDS_BETWEEN_LOOKS", looks)
    address, scheduler = remote
    (tmp_path / "calls").mkdir()
    progress = silent()
    monkeypatch.setattr(progress, "advance", lambda *_: os.kill(scheduler, signal.SIGKILL))
    task = Slow(str(tmp_path / "calls"), 0.2)
    begin = time.monotonic()
    expected = pytest.raises(IncompleteRunError, match="scheduler of the Dask cluster is gone")
    with expected as gone, open_cluster(address) as pool:
        run_stage(PLAN, task, ledger_in(tmp_path), Execution(pool, progress))
    assert time.monotonic() - begin < 30
    assert (gone.value.exit_code, str(gone.value).count("\n")) == (1, 0)
    assert ledger_in(tmp_path).done()
