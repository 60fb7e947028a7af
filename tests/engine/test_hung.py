"""Which blocks are ended because they seem to hang, and what becomes of them."""

import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from vimvol.engine import dask_pool, pace, run
from vimvol.engine.cluster import open_cluster
from vimvol.engine.journal import NoJournal
from vimvol.engine.ledger import Ledger, block_name
from vimvol.engine.plan import plan_stage
from vimvol.engine.pool import OverdueError, SerialPool
from vimvol.engine.run import Execution, run_stage
from vimvol.errors import IncompleteRunError
from vimvol.geometry import Block
from vimvol.io.objects import open_objects
from vimvol.report.progress import silent

PLAN = plan_stage("hung", (12, 1, 1), (1, 1, 1))
BLOCKS = list(PLAN)
PADDING = len(BLOCKS) - 1
"""Blocks that take next to nothing, before one that takes long."""


class Kept(NoJournal):
    def __init__(self) -> None:
        self.troubles: list[tuple] = []

    def trouble(self, what: str, block: Block, error: str, trace: str = "") -> None:
        self.troubles.append((what, block))


@dataclass(frozen=True)
class Work:
    """A task whose last block takes long, or stops its process the first time."""

    folder: str
    seconds: float = 0.0
    stops: bool = False

    def __call__(self, block: Block) -> dict:
        path = Path(self.folder) / block_name(block)
        before = path.exists()
        path.touch()
        if block == BLOCKS[PADDING]:
            if self.stops and not before:
                os.kill(os.getpid(), signal.SIGSTOP)
            time.sleep(self.seconds)
        return {}


def ledger_in(folder: Path) -> Ledger:
    return Ledger(open_objects(str(folder / "ledger")), "hung", "k")


@pytest.mark.parametrize("task", [{"seconds": 2.5}, {"stops": True}], ids=["slow", "stopped"])
def test_what_seems_to_hang_after_padding_is_finished_in_a_later_try(tmp_path: Path, monkeypatch, task: dict) -> None:
    monkeypatch.setattr(dask_pool, "SECONDS_BETWEEN_LOOKS", 0.1)
    monkeypatch.setattr(pace, "SHORTEST_DEADLINE", (1.0, 60.0))
    journal, ledger = Kept(), ledger_in(tmp_path)
    with open_cluster("local", 1) as pool:
        run_stage(PLAN, Work(str(tmp_path), **task), ledger, Execution(pool, silent(), journal=journal))
    # of a process that was stopped also, or only, a block whose result was still to be fetched from it
    assert {what for what, _ in journal.troubles} == {"retry"}
    assert task.get("stops") or journal.troubles == [("retry", BLOCKS[PADDING])]
    assert ledger.done() == {block_name(block) for block in BLOCKS}


def test_a_block_that_hangs_is_ended_in_a_stage_of_few(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(dask_pool, "SECONDS_BETWEEN_LOOKS", 0.1)
    monkeypatch.setattr(pace, "UNKNOWN", (3.0, 1e-3))
    few = plan_stage("hung", (12, 1, 1), (1, 1, 1), region=Block((9, 0, 0), (12, 1, 1)))
    journal, ledger = Kept(), ledger_in(tmp_path)
    with open_cluster("local", 1) as pool:
        run_stage(few, Work(str(tmp_path), stops=True), ledger, Execution(pool, silent(), journal=journal))
    # also, or only, of a block whose result was still to be fetched from the process that was stopped
    assert {what for what, _ in journal.troubles} == {"retry"}
    assert ledger.done() == {block_name(block) for block in few}


class Ending(SerialPool):
    """Takes one block's call for hung whenever it runs, and keeps what it was allowed."""

    def __init__(self) -> None:
        super().__init__()
        self.hung: int | None = None
        self.allowed: list[float] = []

    def next_within(self, seconds: float) -> tuple[int, object] | None:
        if self._queue and self._queue[0][2][1] == (BLOCKS[PADDING],):
            self.hung = self._queue.popleft()[0]
            return None
        return super().next_within(0.0) if self._queue else None

    def end_overdue(self, allowed: Callable[[int], float]) -> None:
        if self.hung is not None:
            self.allowed.append(allowed(self.hung))
            ticket, self.hung = self.hung, None
            self._queue.append((ticket, self.end, ((), ())))

    def end(self, *_: object) -> None:
        raise OverdueError("not finished")


@pytest.mark.parametrize(
    ("retries", "expected"), [(0, [3600.0]), (1, [60.0, 3600.0]), (2, [60.0, 464.76, 3600.0]), (4, None)]
)
def test_every_try_of_a_block_has_more_time_and_the_last_one_most(
    tmp_path: Path, monkeypatch, retries: int, expected: list[float] | None
) -> None:
    monkeypatch.setattr(run, "SECONDS_BEFORE_RETRY", 0.0)
    pool = Ending()
    with pytest.raises(IncompleteRunError, match="1 of 12 blocks failed for good"):
        run_stage(PLAN, Work(str(tmp_path)), ledger_in(tmp_path), Execution(pool, silent(), retries=retries, window=1))
    assert len(pool.allowed) == retries + 1
    assert pool.allowed == sorted(pool.allowed)
    assert pool.allowed == pytest.approx(expected or pool.allowed, abs=0.01)
    assert pool.allowed[-1] == pytest.approx(3600)


def test_the_sample_and_a_configured_deadline_are_heeded(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(run, "SECONDS_BEFORE_RETRY", 0.0)
    for number, (options, expected) in enumerate([({"sampled": 100.0}, 500.0), ({"deadline": 7.0}, 7.0)]):
        pool, folder = Ending(), tmp_path / str(number)
        folder.mkdir()
        execution = Execution(pool, silent(), retries=1, window=1, **options)
        with pytest.raises(IncompleteRunError):
            run_stage(PLAN, Work(str(folder)), ledger_in(folder), execution)
        assert pool.allowed[0] == expected
