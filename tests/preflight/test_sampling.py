"""The sample that precedes a run: what it takes, that the run goes on with it, and how its calls are waited for."""

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import distributed
import numpy as np
import pytest
import zarr

from tests.support import Notes, digest, last_run, small_config
from vimvol.commands.plan import plan_volume
from vimvol.commands.segment import segment_volume
from vimvol.engine import run
from vimvol.engine.dask_pool import DaskPool
from vimvol.engine.pace import Pace
from vimvol.engine.pool import OverdueError, SerialPool
from vimvol.errors import OutputLostError
from vimvol.geometry import Block
from vimvol.outputs.output import create_arrays
from vimvol.preflight import check
from vimvol.preflight.prepare import prepare
from vimvol.preflight.probe import probe_prediction
from vimvol.preflight.sampling import _all
from vimvol.preflight.scratch import Scratch
from vimvol.stages.fragments import FragmentsBlock
from vimvol.stages.predict import PredictBlock, predict_stage

ROI = [[0, 10, 5], [3, 128, 100]]


@pytest.fixture(scope="module")
def mask(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A mask of the sample, empty in most blocks."""
    data = np.zeros((4, 128, 120), bool)
    data[:2, :50, :40] = True
    path = tmp_path_factory.mktemp("mask") / "mask.zarr"
    zarr.create_array(str(path), data=data)
    return str(path)


@pytest.mark.parametrize("workers", [0, 2])
def test_blocks_of_the_sample_are_results_and_tell_the_pace(
    sample: Path, reference: Path, tmp_path: Path, sampled: None, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, told, seconds = tmp_path / "out.zarr", Notes(), []
    monkeypatch.setattr(run, "Pace", lambda *args: seconds.append(args[1]) or Pace(*args))
    segment_volume(f"{sample}:raw", str(out), small_config(run__workers=workers), progress=told)
    assert sum(each > 0 for each in seconds) == 1  # of the prediction alone
    assert digest(out) == digest(reference)
    blocks = {stage["name"]: stage["blocks"] for stage in last_run(out)["stages"]}
    taken = max(1, workers)
    assert (blocks["predict"], blocks["fragments"]) == (12 - taken, 12)
    assert [path.name for path in tmp_path.iterdir()] == ["out.zarr"]
    before, plan, after = told.notes[-3:]
    assert ("workers: starting 2 processes" in told.notes) == (workers == 2)
    assert before == f"plan: a sample of {taken} of 12 blocks"
    assert plan.startswith("plan: about ")
    assert "forecast" in after
    measured = {"seconds", "cpu", "peak", "read", "written"}
    assert all(stage["forecast"].keys() == measured for stage in last_run(out)["stages"])


def test_region_and_mask_bound_the_sample_too(
    sample: Path, ready: dict, tmp_path: Path, mask: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = small_config(input__roi=ROI, input__mask=mask, **ready)
    segment_volume(f"{sample}:raw", str(tmp_path / "plain.zarr"), config)
    monkeypatch.setattr(check, "WORTH", 1)
    segment_volume(f"{sample}:raw", str(tmp_path / "sampled.zarr"), config)
    assert digest(tmp_path / "sampled.zarr") == digest(tmp_path / "plain.zarr")
    whole = plan_volume(f"{sample}:raw", str(tmp_path / "x"), small_config(**ready)).forecast
    masked = plan_volume(f"{sample}:raw", str(tmp_path / "x"), small_config(input__mask=mask, **ready)).forecast
    # the same blocks run, but of 12 only 1 holds anything
    assert masked.stages[0].left == whole.stages[0].left
    assert masked.stages[0].written == pytest.approx(whole.stages[0].written / 12, rel=0.5)


def test_of_a_run_that_was_stopped_only_the_rest_is_planned_and_finished(
    sample: Path, reference: Path, tmp_path: Path, sampled: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, config = tmp_path / "out.zarr", small_config()
    original, seen = FragmentsBlock.__call__, []

    def fifth_fails(self: FragmentsBlock, block: Block) -> dict:
        if self.job.out == str(out):
            seen.append(block)
            if len(seen) == 5:
                raise KeyboardInterrupt
        return original(self, block)

    with monkeypatch.context() as patch:
        patch.setattr(FragmentsBlock, "__call__", fifth_fails)
        with pytest.raises(KeyboardInterrupt):
            segment_volume(f"{sample}:raw", str(out), config)
    planned = plan_volume(f"{sample}:raw", str(out), config).forecast
    predict, fragments, graph, *_ = planned.stages
    assert (predict.left, fragments.left, graph.left) == (0, 8, graph.blocks)
    assert planned.sampled == 1
    assert planned.stages[1].seconds > 0

    def never(self: PredictBlock, block: Block) -> dict:
        raise AssertionError("the boundaries are there")

    monkeypatch.setattr(PredictBlock, "__call__", never)
    segment_volume(f"{sample}:raw", str(out), config)
    assert digest(out) == digest(reference)


def test_a_block_that_fails_in_the_sample_is_left_to_the_run(
    sample: Path, reference: Path, tmp_path: Path, sampled: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, told = tmp_path / "out.zarr", Notes()
    original, failures = PredictBlock.__call__, [RuntimeError("broken on purpose")]

    def first_fails(self: PredictBlock, block: Block) -> dict:
        if failures:
            raise failures.pop()
        return original(self, block)

    monkeypatch.setattr(PredictBlock, "__call__", first_fails)
    segment_volume(f"{sample}:raw", str(out), small_config(), progress=told)
    assert digest(out) == digest(reference)
    assert told.notes[-1:] == ["plan: no sample could be taken (RuntimeError: broken on purpose)"]


def test_workers_write_nothing_into_a_sample_that_is_given_up(sample: Path, tmp_path: Path) -> None:
    job = prepare(f"{sample}:raw", str(tmp_path / "out.zarr"), small_config())
    with Scratch(job.out) as scratch:
        permit = scratch.open()
        # an array that a worker has opened already is there for it
        own = replace(job, out=str(tmp_path / "opened"), roi=predict_stage(job).plan[0])
        create_arrays(own)
        scratch.remove()
        with pytest.raises(OutputLostError):
            probe_prediction(own, predict_stage(job).plan[0], permit)
    assert [path.name for path in tmp_path.iterdir()] == ["opened"]
    assert not list(tmp_path.glob("opened/0/c/**/*"))


@pytest.mark.parametrize(("done", "sampled"), [(0, True), (1, True), (9, True), (10, False), (11, False)])
def test_what_little_is_left_of_a_run_is_not_sampled(
    sample: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, done: int, sampled: bool
) -> None:
    monkeypatch.setattr(check, "WORTH", 1)
    job = prepare(f"{sample}:raw", str(tmp_path / "out.zarr"), small_config())
    blocks = list(predict_stage(job).plan)
    assert len(blocks) == 12
    for block in blocks[:done]:
        predict_stage(job).ledger.record(block, {})
    taken = []
    monkeypatch.setattr(check, "_sampled", lambda *_, **__: taken.append(1) or ([], "enough is known"))
    with Scratch(job.out) as scratch, check.preflight(job, SerialPool(), scratch, fresh=False):
        assert bool(taken) == sampled


def write_late(path: str, seconds: float) -> None:
    """Fail at once, or write after a while."""
    if not seconds:
        raise RuntimeError("broken on purpose")
    time.sleep(seconds)
    Path(path).touch()


def test_nothing_is_written_any_more_when_a_call_of_the_sample_has_failed(tmp_path: Path) -> None:
    options = {"n_workers": 1, "threads_per_worker": 2, "processes": False, "dashboard_address": None}
    with (
        distributed.LocalCluster(protocol="tcp", silence_logs=50, **options) as cluster,
        distributed.Client(cluster, set_as_default=False) as client,
    ):
        calls = [(str(tmp_path / "failed"), 0), (str(tmp_path / "late"), 1)]
        with pytest.raises(RuntimeError, match="on purpose"):
            _all(DaskPool(client), "CPU", write_late, calls, None)
        assert [path.name for path in tmp_path.iterdir()] == ["late"]


class Hanging(SerialPool):
    """Lets the first call hang until it is ended as overdue; `tests/engine/test_lost.py` has real ones."""

    def __init__(self, after: float) -> None:
        super().__init__()
        self.after, self.hung = after, True

    def next_within(self, seconds: float) -> tuple[int, object] | None:
        if not self.hung:
            return super().next_within(seconds)
        return None

    def end_overdue(self, allowed: Callable[[int], float]) -> None:
        if self.hung and allowed(1) <= self.after:
            self.hung = False
            self.submit(self.overdue)
            self._queue.popleft()

    def overdue(self) -> None:
        raise OverdueError("not finished")


@pytest.mark.parametrize(("deadline", "after"), [(2.0, 2.0), (None, 4000.0)])
def test_a_call_of_the_sample_that_hangs_is_ended(tmp_path: Path, deadline: float | None, after: float) -> None:
    pool = Hanging(after)
    with pytest.raises(OverdueError):
        _all(pool, "CPU", write_late, [(str(tmp_path / "hung"), 600)], deadline, 4_000_000)
    assert not list(tmp_path.iterdir())
