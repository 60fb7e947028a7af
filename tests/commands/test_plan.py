"""What is told before a run, and that the sample which that needs changes nothing."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st

from tests.support import SMALL, digest, disk_of, read_only, small_config
from vimvol.commands.plan import plan_volume
from vimvol.commands.segment import segment_volume
from vimvol.config.cluster import AddressCluster
from vimvol.engine import run
from vimvol.engine.pace import Pace
from vimvol.engine.pool import Room, SerialPool
from vimvol.errors import InputError, OutputLostError
from vimvol.geometry import Block
from vimvol.outputs.output import create_arrays
from vimvol.preflight import check as preflight
from vimvol.preflight.disk import stored_bytes
from vimvol.preflight.forecast import forecast, makespan
from vimvol.preflight.prepare import prepare
from vimvol.preflight.probe import _predict
from vimvol.preflight.scratch import PREFIX, Scratch
from vimvol.stages.fragments import FragmentsBlock, fragments_stage
from vimvol.stages.predict import PredictBlock, predict_stage

ROI = [[0, 10, 5], [3, 128, 100]]


class Notes:
    """Keeps what a run tells that belongs to no stage."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)

    def __getattr__(self, name: str):
        return lambda *_: None


@pytest.fixture
def sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let runs of any size be preceded by a sample."""
    monkeypatch.setattr(preflight, "WORTH", 1)


@pytest.fixture(scope="module")
def ready(reference: Path) -> dict[str, str]:
    """Settings by which boundaries are those of the reference: where it is not about them, no network has to run."""
    return {"predict__boundaries": f"{reference}:0"}


@pytest.fixture(scope="module")
def mask(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A mask of the sample, empty in most blocks."""
    data = np.zeros((4, 128, 120), bool)
    data[:2, :50, :40] = True
    path = tmp_path_factory.mktemp("mask") / "mask.zarr"
    zarr.create_array(str(path), data=data)
    return str(path)


def last_run(out: Path) -> dict:
    return json.loads((out / "vimvol" / "run.json").read_text())["runs"][-1]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"input__roi": ROI},
        {"run__block": [4, 128, 144], "output__levels": 2},
        {"segment__mode": "2d", "fragments__seeds": "components"},
        {"agglomerate__levels": 0, "fragments__tile": [2, 96, 96]},
    ],
    ids=["default", "roi", "one block", "components", "tiles across blocks"],
)
def test_the_plan_counts_the_blocks_that_a_run_then_computes(
    sample: Path, ready: dict, tmp_path: Path, changes: dict
) -> None:
    out, config = tmp_path / "out.zarr", small_config(**ready, **changes)
    planned = plan_volume(f"{sample}:raw", str(out), config).forecast
    assert not list(tmp_path.iterdir())
    assert planned.sampled == 1
    segment_volume(f"{sample}:raw", str(out), config)
    ran = {stage["name"]: (stage["blocks"], stage["voxels"]) for stage in last_run(out)["stages"]}
    assert {stage.name: (stage.left, stage.voxels) for stage in planned.stages} == ran
    assert all(stage.seconds > 0 and stage.peak > 0 for stage in planned.stages)
    after = plan_volume(f"{sample}:raw", str(out), config).forecast
    assert {stage.left for stage in after.stages} == {0}
    assert {stage.name: stage.blocks for stage in after.stages} == {name: blocks for name, (blocks, _) in ran.items()}


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


def test_what_is_written_and_held_in_memory_is_forecast_within_30_percent(
    sample: Path, tmp_path: Path, sampled: None
) -> None:
    out = tmp_path / "out.zarr"
    segment_volume(f"{sample}:raw", str(out), small_config())
    stages = {stage["name"]: stage for stage in last_run(out)["stages"]}
    for name in ("predict", "fragments", "write", "label-pyramid 1"):
        assert stages[name]["forecast"]["written"] == pytest.approx(stages[name]["written"], rel=0.3), name
    for name, stage in stages.items():
        assert stage["forecast"]["peak"] == pytest.approx(stage["peak"], rel=0.3), name


@pytest.mark.parametrize(
    "changes", [{}, {"fragments__dimension": "3d", "fragments__tile": [2, 64, 48]}], ids=["2d", "3d"]
)
def test_edges_are_forecast_closely_enough_to_refuse_by(
    sample: Path, ready: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict
) -> None:
    monkeypatch.setattr(SerialPool, "slots", 12)
    out, config = tmp_path / "out.zarr", small_config(**ready, **changes)
    planned = plan_volume(f"{sample}:raw", str(out), config).forecast
    assert planned.sampled == 12
    segment_volume(f"{sample}:raw", str(out), config)
    edges = json.loads((out / "vimvol" / "run.json").read_text())["edges"]
    assert 0.7 * edges < planned.edges < preflight.TOO_MANY * edges


def test_region_and_mask_bound_the_sample_too(
    sample: Path, ready: dict, tmp_path: Path, mask: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = small_config(input__roi=ROI, input__mask=mask, **ready)
    segment_volume(f"{sample}:raw", str(tmp_path / "plain.zarr"), config)
    monkeypatch.setattr(preflight, "WORTH", 1)
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


def test_what_cannot_fit_is_refused_with_the_figure_and_what_to_change(sample: Path, tmp_path: Path) -> None:
    found = plan_volume(f"{sample}:raw", str(tmp_path / "out.zarr"), small_config())
    preflight.check_fits(found.job, found.forecast)
    limited = tuple(replace(stage, memory_limit=stage.peak) for stage in found.forecast.stages)
    little = {
        "disk": {"free": int(found.forecast.disk / 1.31)},
        "a worker is ended at": {"stages": limited},
        "of this process": {"solver": 2**60},
    }
    for text, change in little.items():
        with pytest.raises(InputError, match=text) as refused:
            preflight.check_fits(found.job, replace(found.forecast, **change))
        assert "\n" not in str(refused.value)
    narrow = replace(found.forecast, stages=limited)
    with pytest.raises(InputError, match=r"give a worker more memory by fewer of them with --workers"):
        preflight.check_fits(found.job, narrow)
    with pytest.raises(InputError, match=r"give a worker more memory by fewer cpu_workers"):
        preflight.check_fits(found.job, narrow, "cuda")
    # forecasts of bytes were up to a quarter too high
    close = replace(found.forecast, free=int(found.forecast.disk / 1.25))
    preflight.check_fits(found.job, close)
    assert preflight.free_text(close).endswith("which may be too little")


class Workers(SerialPool):
    """Tells of workers that are not there."""

    def __init__(self, slots: dict[str, int], rooms: dict[str, Room]) -> None:
        super().__init__()
        self.of, self.rooms = slots, rooms

    def slots_for(self, resource: str | None) -> int:
        return self.of.get(resource or "CPU", self.of["CPU"])

    def room_for(self, resource: str | None) -> Room:
        return self.rooms.get(resource or "CPU", self.rooms["CPU"])


def test_a_worker_is_held_to_its_own_memory(sample: Path, tmp_path: Path) -> None:
    found = plan_volume(f"{sample}:raw", str(tmp_path / "out.zarr"), small_config(predict__device="auto"))
    predict, *others = (stage for stage in found.forecast.stages if stage.name not in ("solve", "sizes"))
    # what the others take now grows by what the prediction takes of a worker with a GPU
    probe = found.probes[0]
    taken = probe.stages["predict"]
    heavy = replace(taken, usage=replace(taken.usage, peak=taken.base + 2**33))
    probes = [replace(probe, stages=probe.stages | {"predict": heavy})]
    most = int(1.1 * max(stage.peak for stage in (predict, *others)))
    pool = Workers({"CPU": 1, "GPU": 1}, {"CPU": Room(most, 1), "GPU": Room(2**36, 1)})
    preflight.check_fits(found.job, forecast(found.job, probes, pool, fresh=True))
    pool.rooms["GPU"] = Room(2**33, 1)
    with pytest.raises(InputError, match="stage predict takes about"):
        preflight.check_fits(found.job, forecast(found.job, probes, pool, fresh=True))


def test_calls_that_were_sampled_in_one_process_count_once(sample: Path, tmp_path: Path) -> None:
    found = plan_volume(f"{sample}:raw", str(tmp_path / "out.zarr"), small_config())
    (probe,) = found.probes
    taken = probe.stages["fragments"]
    probe = replace(probe, stages=probe.stages | {"fragments": replace(taken, base=0, largest=10**9)})

    def peak(sampled: int, processes: int) -> int:
        pool = Workers({"CPU": 2 * processes}, {"CPU": Room(0, 2)})
        return forecast(found.job, [probe] * sampled, pool, fresh=True).stages[1].peak

    # a block read ahead and one being written, of 6 bytes a voxel, beside each of the two that compute
    held = 2 * 6 * int(np.prod(fragments_stage(found.job).plan.blocks.cell))
    assert peak(2, processes=1) == peak(4, processes=2) == taken.usage.peak + held
    assert peak(1, processes=1) == peak(2, processes=2) == 2 * taken.usage.peak + held


def test_what_a_run_replaces_is_free_again(
    sample: Path, reference: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = shutil.disk_usage(tmp_path)._replace(free=0)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: full)
    out = tmp_path / "out.zarr"
    shutil.copytree(reference, out)
    size = stored_bytes(out)
    for changes in ({"predict__batch": 3}, {"output__chunk": [1, 32, 48]}):  # the same arrays, and others
        found = plan_volume(f"{sample}:raw", str(out), small_config(**changes), overwrite=True)
        # the rest, metadata and records, is a good part of so little only
        assert 0.6 * size < found.forecast.replaced <= size
        preflight.check_fits(found.job, replace(found.forecast, disk=found.forecast.replaced))
    elsewhere = plan_volume(f"{sample}:raw", str(tmp_path / "other.zarr"), small_config())
    with pytest.raises(InputError, match="the disk would be full"):
        preflight.check_fits(elsewhere.job, elsewhere.forecast)
    # what was done already of a run that goes on stays
    shutil.rmtree(out / "vimvol" / "ledger" / "fragments")
    rest = plan_volume(f"{sample}:raw", str(out), small_config())
    assert [stage.name for stage in rest.forecast.stages if stage.left] == ["fragments"]
    assert rest.forecast.replaced <= stored_bytes(out / "vimvol" / "fragments")


def test_a_solver_that_takes_the_whole_graph_is_refused_before_anything_is_written(
    sample: Path, tmp_path: Path, sampled: None
) -> None:
    config = small_config(agglomerate__solver="average", agglomerate__memory=4000)
    with pytest.raises(InputError, match=r"solver 'average' takes the whole graph of about \d+ edges"):
        segment_volume(f"{sample}:raw", str(tmp_path / "out.zarr"), config)
    assert not list(tmp_path.iterdir())


@pytest.fixture
def tiny_disk(reference: Path, tmp_path: Path) -> Iterator[Path]:
    """A file system that holds the sample of one block, but no output."""
    with disk_of(tmp_path / "disk", reference, 1 / 2) as folder:
        yield folder


def test_a_disk_that_is_too_small_is_refused(sample: Path, tiny_disk: Path, sampled: None) -> None:
    out = str(tiny_disk / "out.zarr")
    found = plan_volume(f"{sample}:raw", out, small_config())
    for refused in (
        lambda: preflight.check_fits(found.job, found.forecast),
        lambda: segment_volume(f"{sample}:raw", out, small_config()),
    ):
        with pytest.raises(InputError, match=r"the disk would be full before the end; free .* more") as error:
            refused()
        assert error.value.exit_code == 2
        assert not list(tiny_disk.iterdir())


def test_the_command_prints_the_plan_and_writes_it(run, sample: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    settings = [f"--set={key}={json.dumps(value)}" for key, value in SMALL.items()]
    code, out, err = run("plan", f"{sample}:raw", "out.zarr", "--json", "plan.json", *settings)
    assert code == 0, err
    assert [path.name for path in tmp_path.iterdir()] == ["plan.json"]
    plan = json.loads((tmp_path / "plan.json").read_text())
    assert [stage["name"] for stage in plan["stages"]][:2] == ["predict", "fragments"]
    assert plan["seconds"] == pytest.approx(sum(stage["seconds"] for stage in plan["stages"]), abs=0.01)
    lines = out.splitlines()
    assert lines[1].split()[:3] == ["predict", "12", "12"]
    assert {line.split()[0] for line in lines[-6:]} == {"time", "before", "disk", "worker", "solver", "sample"}


@given(sizes=st.lists(st.integers(1, 100), min_size=1, max_size=50), slots=st.integers(1, 20))
def test_a_makespan_lies_between_its_bounds(sizes: list[int], slots: int) -> None:
    found = makespan(sizes, slots)
    assert max(max(sizes), sum(sizes) / slots) <= found <= sum(sizes) / slots + max(sizes)


@pytest.mark.parametrize("asked", [plan_volume, segment_volume])
def test_an_output_that_cannot_be_written_is_refused_before_the_network_is_looked_for(
    sample: Path, tmp_path: Path, asked: Callable[..., object]
) -> None:
    config = small_config(predict__model="nowhere.pt")
    with read_only(tmp_path / "protected") as folder, pytest.raises(InputError) as refused:
        asked(f"{sample}:raw", str(folder / "out.zarr"), config)
    assert re.fullmatch(rf"output {folder}/out.zarr cannot be written: .*; .*choose .*", str(refused.value))
    if Path("/proc/self").exists():
        with pytest.raises(
            InputError, match=r"/proc/nope/out.zarr cannot be written: .*its file system takes no files"
        ):
            asked(f"{sample}:raw", "/proc/nope/out.zarr", config)
    (tmp_path / "file").touch()
    for out in (tmp_path / "file", tmp_path / "file" / "out.zarr"):
        with pytest.raises(InputError, match=f"{tmp_path}/file is no folder, so output {out} cannot be written"):
            asked(f"{sample}:raw", str(out), config)
    with pytest.raises(InputError, match=r"nowhere\.pt"):
        asked(f"{sample}:raw", str(tmp_path / "out.zarr"), config)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "protected"]


LEAVES = (
    "import sys; from vimvol.preflight.scratch import Scratch; scratch = Scratch(sys.argv[1]); scratch.open(); input()"
)
"""What begins a sample and does not end."""


def wait_for(found: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while not found():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_what_a_killed_process_left_of_its_sample_goes_at_the_next_start(tmp_path: Path) -> None:
    out = str(tmp_path / "out.zarr")
    killed = subprocess.Popen(
        [sys.executable, "-c", LEAVES, out], stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    wait_for(lambda: bool(list(tmp_path.glob(f"{PREFIX}*/lock"))), killed)
    (left,) = tmp_path.iterdir()
    (left / "0").mkdir()
    unknown = tmp_path / f"{PREFIX}unknown"
    unknown.mkdir()
    with Scratch(out) as alive:
        alive.open()
        with Scratch(str(tmp_path / "other.zarr")):
            assert {path.name for path in tmp_path.iterdir()} == {left.name, unknown.name, Path(alive.folder).name}
            killed.kill()
            killed.communicate()
        with Scratch(str(tmp_path / "other.zarr")):
            assert {path.name for path in tmp_path.iterdir()} == {unknown.name, Path(alive.folder).name}
    assert list(tmp_path.iterdir()) == [unknown]


def test_nothing_of_a_sample_stays_when_it_is_stopped(sample: Path, tmp_path: Path) -> None:
    settings = [f"--set={key}={json.dumps(value)}" for key, value in SMALL.items()]
    stopped = subprocess.Popen(
        [sys.executable, "-m", "vimvol", "plan", f"{sample}:raw", "out.zarr", *settings, "--workers", "1"],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    wait_for(lambda: bool(list(tmp_path.glob(f"{PREFIX}*/0/0/c/**/*"))), stopped)
    os.killpg(stopped.pid, signal.SIGINT)  # a terminal sends Ctrl-C to the workers, too
    assert "Traceback" not in stopped.communicate(timeout=120)[1]
    assert stopped.returncode == 130
    assert not list(tmp_path.iterdir())


def test_workers_write_nothing_into_a_sample_that_is_given_up(sample: Path, tmp_path: Path) -> None:
    job = prepare(f"{sample}:raw", str(tmp_path / "out.zarr"), small_config())
    with Scratch(job.out) as scratch:
        permit = scratch.open()
        # an array that a worker has opened already is there for it
        own = replace(job, out=str(tmp_path / "opened"), roi=predict_stage(job).plan[0])
        create_arrays(own)
        scratch.remove()
        with pytest.raises(OutputLostError):
            _predict(own, predict_stage(job).plan[0], permit)
    assert [path.name for path in tmp_path.iterdir()] == ["opened"]
    assert not list(tmp_path.glob("opened/0/c/**/*"))


def test_no_cluster_is_opened_where_nothing_is_to_be_sampled(sample: Path, reference: Path) -> None:
    nobody = AddressCluster(address="tcp://127.0.0.1:1")
    found = plan_volume(f"{sample}:raw", str(reference), small_config(), cluster=nobody)
    assert {stage.left for stage in found.forecast.stages} == {0}


@pytest.mark.parametrize(("done", "sampled"), [(0, True), (1, True), (9, True), (10, False), (11, False)])
def test_what_little_is_left_of_a_run_is_not_sampled(
    sample: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, done: int, sampled: bool
) -> None:
    monkeypatch.setattr(preflight, "WORTH", 1)
    job = prepare(f"{sample}:raw", str(tmp_path / "out.zarr"), small_config())
    blocks = list(predict_stage(job).plan)
    assert len(blocks) == 12
    for block in blocks[:done]:
        predict_stage(job).ledger.record(block, {})
    taken = []
    monkeypatch.setattr(preflight, "_sampled", lambda *_, **__: taken.append(1) or ([], "enough is known"))
    with Scratch(job.out) as scratch, preflight.preflight(job, SerialPool(), scratch, fresh=False):
        assert bool(taken) == sampled
