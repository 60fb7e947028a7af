"""On a worker the next block is read, and the one before written, while one computes."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Lock

import dask
import distributed
import pytest

from vimvol.engine import dask_pool, run
from vimvol.engine.cluster import open_cluster
from vimvol.engine.dask_pool import DaskPool
from vimvol.engine.journal import NoJournal
from vimvol.engine.ledger import Ledger, block_name
from vimvol.engine.plan import plan_stage
from vimvol.engine.run import Execution, run_stage
from vimvol.engine.turns import turn
from vimvol.geometry import Block
from vimvol.io.objects import open_objects
from vimvol.report.progress import silent

PLAN = plan_stage("turns", (8, 1, 1), (1, 1, 1))
BLOCKS = list(PLAN)
AHEAD = len(BLOCKS) - 3
"""Blocks while each of which computes another is begun by one worker; the last ones are left to whoever is free."""
PATIENCE = 60.0


class Events:
    """What the blocks of a worker in this process did."""

    def __init__(self) -> None:
        self.read, self.computing = ([Event() for _ in BLOCKS] for _ in range(2))
        self._lock = Lock()
        self.now = {"read": 0, "computing": 0, "in hand": 0}
        self.most = dict(self.now)

    @contextmanager
    def during(self, what: str) -> Iterator[None]:
        with self._lock:
            self.now[what] += 1
            self.most[what] = max(self.most[what], self.now[what])
        try:
            yield
        finally:
            with self._lock:
                self.now[what] -= 1


EVENTS = Events()


@dataclass(frozen=True)
class Overlapped:
    """A task that gets on only if its neighbours do what they are to do at the same time."""

    fail: frozenset[tuple[str, int]] = field(default_factory=frozenset)

    def __call__(self, block: Block) -> dict:
        number = block.begin[0]
        with EVENTS.during("in hand"):
            again = EVENTS.read[number].is_set()
            EVENTS.read[number].set()
            if ("read", number) in self.fail and not again:
                raise OSError("read")
            with turn(), EVENTS.during("computing"):
                EVENTS.computing[number].set()
                if number < AHEAD:
                    assert EVENTS.read[number + 1].wait(PATIENCE), "the next block was not begun"
            if not self.fail and 0 < number < AHEAD:
                assert EVENTS.computing[number + 1].wait(PATIENCE), "the next block did not compute"
            if ("write", number) in self.fail and not again:
                raise OSError("write")
        return {"number": number}


@dataclass(frozen=True)
class SlowToWrite:
    """A task that writes for far longer than it computes."""

    def __call__(self, block: Block) -> dict:
        with EVENTS.during("in hand"):
            with turn():
                pass
            time.sleep(0.05)
        return {}


class Kept(NoJournal):
    def __init__(self) -> None:
        self.troubles, self.reports = [], []

    def trouble(self, what, block, error, trace="") -> None:
        self.troubles.append((what, block.begin[0], error))

    def finish(self, report) -> None:
        self.reports.append(report)


@contextmanager
def worker(threads: int, resources: dict[str, float] | None) -> Iterator[DaskPool]:
    """A worker in this process, so that its blocks see the events."""
    with (
        dask.config.set({"distributed.worker.memory.terminate": False}),
        distributed.LocalCluster(
            n_workers=1,
            threads_per_worker=threads,
            resources=resources,
            processes=False,
            dashboard_address="127.0.0.1:0",
        ) as cluster,
        distributed.Client(cluster, set_as_default=False) as client,
    ):
        yield DaskPool(client)


def ledger_in(folder: Path) -> Ledger:
    return Ledger(open_objects(str(folder / "ledger")), "turns", "k")


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> Events:
    monkeypatch.setitem(globals(), "EVENTS", Events())
    return EVENTS


@pytest.mark.parametrize(
    ("threads", "resources", "wanted"),
    [(1, None, "GPU"), (1, {"CPU": 1}, "CPU"), (2, {"GPU": 1}, "GPU")],
    ids=["any", "cpu", "gpu"],
)
def test_the_next_block_is_read_and_the_last_written_while_one_computes(
    tmp_path: Path, events: Events, threads: int, resources: dict[str, float] | None, wanted
) -> None:
    journal = Kept()
    with worker(threads, resources) as pool:
        run_stage(
            PLAN, Overlapped(), ledger_in(tmp_path), Execution(pool, silent(), journal=journal).on(wanted, ahead=True)
        )
    assert ledger_in(tmp_path).done() == {block_name(block) for block in BLOCKS}
    assert not journal.troubles
    if "GPU" not in (resources or ()):
        assert events.most["computing"] == 1
        # what a block waits for its turn is not part of its time
        assert journal.reports[0].busy < 1.5 * journal.reports[0].seconds
    assert 2 <= events.most["in hand"] <= 3


def test_slow_writes_do_not_pile_up(tmp_path: Path, events: Events) -> None:
    with worker(1, None) as pool:
        plan = plan_stage("turns", (20, 1, 1), (1, 1, 1))
        run_stage(plan, SlowToWrite(), ledger_in(tmp_path), Execution(pool, silent()).on("CPU", ahead=True))
    assert events.most["in hand"] == 3  # of two the results are written, and one is read ahead


def test_an_error_is_that_of_its_own_block(tmp_path: Path, events: Events) -> None:
    journal = Kept()
    with worker(1, None) as pool:
        task = Overlapped(frozenset({("read", 2), ("write", 4)}))
        run_stage(PLAN, task, ledger_in(tmp_path), Execution(pool, silent(), journal=journal).on("CPU", ahead=True))
    assert sorted(journal.troubles) == [("retry", 2, "OSError: read"), ("retry", 4, "OSError: write")]
    assert ledger_in(tmp_path).done() == {block_name(block) for block in BLOCKS}


@dataclass(frozen=True)
class Mortal:
    """A task that once ends its process while it computes a block, when the next one is read."""

    folder: str
    deadly: int

    def __call__(self, block: Block) -> dict:
        number, folder = block.begin[0], Path(self.folder)
        (folder / f"read-{number}").touch()
        with turn():
            if number == self.deadly and not (folder / "died").exists():
                end = time.monotonic() + PATIENCE
                while not (folder / f"read-{number + 1}").exists():
                    assert time.monotonic() < end, "the next block was not begun"
                    time.sleep(0.01)
                (folder / "died").touch()
                os.kill(os.getpid(), signal.SIGKILL)
        with (folder / f"written-{number}").open("a") as file:
            file.write("x")
        return {"number": number}


def test_what_a_killed_worker_had_read_ahead_runs_again(tmp_path: Path) -> None:
    with open_cluster("local", 1) as pool:
        task = Mortal(str(tmp_path), 2)
        run_stage(PLAN, task, ledger_in(tmp_path), Execution(pool, silent()).on("CPU", ahead=True))
    assert (tmp_path / "died").exists()
    written = {path.name: path.read_text() for path in tmp_path.glob("written-*")}
    assert set(written) == {f"written-{number}" for number in range(len(BLOCKS))}
    assert [written[f"written-{number}"] for number in range(2, len(BLOCKS))] == ["x"] * (len(BLOCKS) - 2)
    results = dict(ledger_in(tmp_path).entries()).values()
    assert sorted(result["number"] for result in results) == list(range(len(BLOCKS)))


@dataclass(frozen=True)
class Slow:
    """A task that computes for a while."""

    seconds: float

    def __call__(self, block: Block) -> dict:
        with turn():
            time.sleep(self.seconds)
        return {}


def test_waiting_for_a_turn_counts_for_no_deadline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dask_pool, "SECONDS_BETWEEN_LOOKS", 0.1)
    monkeypatch.setattr(run, "SECONDS_BETWEEN_CHECKS", 0.1)
    journal = Kept()
    with worker(1, None) as pool:
        execution = Execution(pool, silent(), deadline=2.8, journal=journal).on("CPU", ahead=True)
        run_stage(plan_stage("turns", (5, 1, 1), (1, 1, 1)), Slow(1.6), ledger_in(tmp_path), execution)
    assert not journal.troubles
