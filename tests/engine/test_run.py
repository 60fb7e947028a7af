from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from vimvol.engine.cluster import open_cluster
from vimvol.engine.journal import NoJournal
from vimvol.engine.ledger import Ledger, block_name, content_key
from vimvol.engine.plan import plan_stage
from vimvol.engine.pool import SerialPool
from vimvol.engine.run import Execution, run_stage
from vimvol.errors import DiskFullError, IncompleteRunError, InputError
from vimvol.geometry import Block
from vimvol.io.objects import open_objects

PLAN = plan_stage("count", (4, 4, 4), (1, 2, 2))


class Told:
    """Keeps what a run tells of its progress."""

    def __init__(self) -> None:
        self.log: list[tuple] = []

    def stage(self, *args) -> None:
        self.log.append(("stage", *args))

    def advance(self, *args) -> None:
        self.log.append(("advance", *args))

    def retry(self) -> None:
        self.log.append(("retry",))

    def idle(self, *args) -> None:
        self.log.append(("idle", *args))

    def finish(self) -> None:
        self.log.append(("finish",))

    def note(self, *args) -> None:
        self.log.append(("note", *args))

    def count(self, what: str) -> int:
        return sum(entry[0] == what for entry in self.log)


@dataclass(frozen=True)
class Touch:
    """A task that leaves one line a call in a file, and fails as told."""

    folder: str
    fail: str = ""
    times: int = 0
    error: type[Exception] = OSError

    def __call__(self, block: Block) -> dict:
        path = Path(self.folder) / block_name(block)
        calls = len(path.read_text()) if path.exists() else 0
        path.write_text("x" * (calls + 1))
        if block_name(block) == self.fail and calls < self.times:
            raise self.error("broken on purpose")
        return {"size": block.size}


def calls(folder: Path) -> dict[str, int]:
    return {path.name: len(path.read_text()) for path in folder.iterdir()}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "calls").mkdir()
    return tmp_path / "calls"


def run(task: Touch, ledger: Ledger, **options) -> Told:
    told = Told()
    run_stage(PLAN, task, ledger, Execution(SerialPool(), told, **options))
    return told


def test_every_block_runs_once_and_is_recorded(tmp_path: Path, folder: Path) -> None:
    ledger = Ledger(open_objects(str(tmp_path / "ledger")), "count", "k")
    told = run(Touch(str(folder)), ledger)
    names = {block_name(block) for block in PLAN}
    assert calls(folder) == dict.fromkeys(names, 1)
    assert ledger.done() == names
    assert sum(result["size"] for _, result in ledger.entries()) == 64
    assert told.log[0] == ("stage", "count", 16, 0, 64, 1)
    assert told.count("advance") == 16


def test_a_second_run_does_only_what_is_left(tmp_path: Path, folder: Path) -> None:
    ledger = Ledger(open_objects(str(tmp_path / "ledger")), "count", "k")
    name = block_name(next(iter(PLAN)))
    with pytest.raises(IncompleteRunError, match="1 of 16 blocks failed for good"):
        run(Touch(str(folder), fail=name, times=9), ledger, retries=2)
    assert calls(folder)[name] == 3
    assert len(ledger.done()) == 15
    told = run(Touch(str(folder)), ledger)
    assert told.log[0] == ("stage", "count", 16, 15, 64, 1)
    assert sum(calls(folder).values()) == 15 + 3 + 1


def test_a_passing_fault_is_tried_again(tmp_path: Path, folder: Path) -> None:
    ledger = Ledger(open_objects(str(tmp_path / "ledger")), "count", "k")
    told = run(Touch(str(folder), fail=block_name(next(iter(PLAN))), times=1), ledger)
    assert told.count("retry") == 1
    assert len(ledger.done()) == 16


@pytest.mark.parametrize("error", [InputError, DiskFullError])
def test_what_no_retry_mends_ends_the_run_at_once(tmp_path: Path, folder: Path, error) -> None:
    ledger = Ledger(open_objects(str(tmp_path / "ledger")), "count", "k")
    with pytest.raises(error, match="broken on purpose"):
        run(Touch(str(folder), fail=block_name(next(iter(PLAN))), times=9, error=error), ledger)
    assert sum(calls(folder).values()) == 1


def test_records_of_another_key_are_forgotten_before_their_data_are_overwritten(tmp_path: Path, folder: Path) -> None:
    first, second = (Ledger(open_objects(str(tmp_path / "ledger")), "count", key) for key in "ab")
    run(Touch(str(folder)), first)
    second.begin(PLAN.blocks)
    assert first.done() == set()
    run(Touch(str(folder)), first)
    assert set(calls(folder).values()) == {2}


def test_the_window_bounds_what_is_in_flight(tmp_path: Path, folder: Path) -> None:
    pool = SerialPool()
    seen = []

    class Watching(SerialPool):
        def next_done(self):
            seen.append(len(self._queue))
            return super().next_done()

    pool = Watching()
    run_stage(
        PLAN, Touch(str(folder)), Ledger(open_objects(str(tmp_path)), "count", "k"), Execution(pool, Told(), window=3)
    )
    assert max(seen) == 3


def test_workers_that_have_nothing_to_do_are_told(tmp_path: Path, folder: Path) -> None:
    class Three(SerialPool):
        def slots_for(self, resource) -> int:
            return 3

    told = Told()
    run_stage(
        PLAN, Touch(str(folder)), Ledger(open_objects(str(tmp_path)), "count", "k"), Execution(Three(), told, window=3)
    )
    assert [entry[1] for entry in told.log if entry[0] == "idle"] == [1, 2]


def test_the_journal_gets_every_block_and_trouble_and_what_the_stage_took(tmp_path: Path, folder: Path) -> None:
    class Kept(NoJournal):
        def __init__(self) -> None:
            self.blocks, self.troubles, self.reports = [], [], []

        def done(self, block, result) -> None:
            self.blocks.append((block, result))

        def trouble(self, what, block, error, trace="") -> None:
            self.troubles.append((what, block, error))

        def finish(self, report) -> None:
            self.reports.append(report)

    journal, (first, *others) = Kept(), PLAN
    ledger = Ledger(open_objects(str(tmp_path / "ledger")), "count", "k")
    with pytest.raises(IncompleteRunError):
        run(Touch(str(folder), fail=block_name(first), times=9), ledger, retries=1, journal=journal)
    error = "OSError: broken on purpose"
    assert journal.troubles == [("retry", first, error), ("failed", first, error)]
    assert sorted(journal.blocks) == [(block, {"size": block.size}) for block in others]
    (report,) = journal.reports
    assert (report.name, report.blocks, report.voxels, report.retries, report.failures) == ("count", 15, 60, 1, 1)
    assert 0 < report.busy <= report.seconds
    assert report.usage.cpu > 0
    assert report.usage.peak > 0


def test_worker_processes_do_the_same_as_this_one(tmp_path: Path, folder: Path) -> None:
    ledger = Ledger(open_objects(str(tmp_path / "ledger")), "count", "k")
    fail = block_name(next(iter(PLAN)))
    with open_cluster("local", 2) as pool:
        told = Told()
        run_stage(PLAN, Touch(str(folder), fail=fail, times=1), ledger, Execution(pool, told))
    assert len(ledger.done()) == 16
    assert told.count("retry") == 1
    assert told.count("advance") == 16


def test_unknown_cluster_and_silent_address_get_one_line() -> None:
    with pytest.raises(InputError, match="cluster 'slrum' is not known"):
        open_cluster("slrum")


def test_keys_depend_on_content_alone() -> None:
    assert content_key({"a": 1, "b": (2, 3)}) == content_key({"b": [2, 3], "a": 1})
    assert content_key(1, 2) != content_key(2, 1)


def test_keys_are_made_of_what_json_knows_alone() -> None:
    assert content_key(np.int64(5), np.float32(0.5), np.bool_(True)) == content_key(5, 0.5, True)
    assert content_key(5) != content_key("5")
    long = np.zeros(10_001)
    for part in (long, Path("x"), {"a": [long]}, object()):
        with pytest.raises(TypeError, match="has no place in a record or key"):
            content_key(part)
