"""What a run will take, from what single blocks took."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st

from tests.support import last_run, small_config
from vimvol.commands.plan import plan_volume
from vimvol.commands.segment import segment_volume
from vimvol.engine.pool import Room, SerialPool
from vimvol.errors import InputError
from vimvol.preflight import check
from vimvol.preflight.forecast import forecast, makespan
from vimvol.segment.multicut.division import bytes_per_edge
from vimvol.stages.fragments import fragments_stage
from vimvol.stages.solve import solver_of


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
    assert 0.7 * edges < planned.edges < check.TOO_MANY * edges


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
    check.check_fits(found.job, forecast(found.job, probes, pool, fresh=True))
    pool.rooms["GPU"] = Room(2**33, 1)
    with pytest.raises(InputError, match="stage predict takes about"):
        check.check_fits(found.job, forecast(found.job, probes, pool, fresh=True))


@pytest.mark.usefixtures("every_level")
@pytest.mark.parametrize("left_out", ["mask", "roi", "nothing"])
def test_edges_of_a_cell_are_those_of_the_blocks_that_are_computed(
    sample: Path, ready: dict, tmp_path: Path, left_out: str
) -> None:
    wanted = np.zeros((4, 128, 120), np.uint8)
    wanted[:, :64, :48] = 1
    zarr.create_array(str(tmp_path / "mask.zarr"), data=wanted)
    changes = {"mask": {"input__mask": str(tmp_path / "mask.zarr")}, "roi": {"input__roi": [[0, 0, 0], [4, 60, 40]]}}
    cells = {"agglomerate__levels": 1, "agglomerate__cell": [2, 64, 64]}
    config = small_config(**ready, **cells, **changes.get(left_out, {}))
    found = plan_volume(f"{sample}:raw", str(tmp_path / "out.zarr"), config)
    (probe,) = found.probes
    (levels,) = (stage for stage in found.forecast.stages if stage.name == "levels")
    density = probe.edges / (2 * 60 * 40 if left_out == "roi" else 2 * 64 * 48)
    expected = bytes_per_edge(solver_of(found.job)) * density * 2 * 64 * 64
    assert levels.peak - probe.stages["costs"].base == pytest.approx(expected, rel=0.1)


@pytest.mark.usefixtures("every_level")
def test_no_cell_has_more_edges_than_there_are(sample: Path, ready: dict, tmp_path: Path) -> None:
    config = small_config(**ready, agglomerate__levels=1, input__roi=[[0, 0, 0], [2, 64, 48]])
    found = plan_volume(f"{sample}:raw", str(tmp_path / "out.zarr"), config)
    (levels,) = (stage for stage in found.forecast.stages if stage.name == "levels")
    room = levels.peak - found.probes[0].stages["costs"].base
    assert room == bytes_per_edge(solver_of(found.job)) * found.forecast.edges


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


@given(sizes=st.lists(st.integers(1, 100), min_size=1, max_size=50), slots=st.integers(1, 20))
def test_a_makespan_lies_between_its_bounds(sizes: list[int], slots: int) -> None:
    found = makespan(sizes, slots)
    assert max(max(sizes), sum(sizes) / slots) <= found <= sum(sizes) / slots + max(sizes)
