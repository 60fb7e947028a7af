"""What `vimvol plan` tells, and that it leaves nothing behind."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support import last_run, read_only, settings, small_config, wait_for
from vimvol.commands.plan import plan_volume
from vimvol.commands.segment import segment_volume
from vimvol.config.cluster import AddressCluster
from vimvol.errors import InputError
from vimvol.preflight.scratch import PREFIX

ROI = [[0, 10, 5], [3, 128, 100]]


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


def test_the_command_prints_the_plan_and_writes_it(run, sample: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("torch.cpu.get_capabilities", lambda: {"avx512_bf16": True}, raising=False)
    code, out, err = run("plan", f"{sample}:raw", "out.zarr", "--json", "plan.json", *settings())
    assert code == 0, err
    assert [path.name for path in tmp_path.iterdir()] == ["plan.json"]
    plan = json.loads((tmp_path / "plan.json").read_text())
    assert [stage["name"] for stage in plan["stages"]][:2] == ["predict", "fragments"]
    assert plan["seconds"] == pytest.approx(sum(stage["seconds"] for stage in plan["stages"]), abs=0.01)
    lines = out.splitlines()
    assert lines[1].split()[:3] == ["predict", "12", "12"]
    told = [line.split()[0] for line in lines[-7:]]
    assert told == ["time", "before", "disk", "worker", "solver", "sample", "faster"]


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


def test_nothing_of_a_sample_stays_when_it_is_stopped(sample: Path, tmp_path: Path) -> None:
    stopped = subprocess.Popen(
        [sys.executable, "-m", "vimvol", "plan", f"{sample}:raw", "out.zarr", *settings(), "--workers", "1"],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    wait_for(lambda: bool(list(tmp_path.glob(f"{PREFIX}*/0/0/c/**/*"))), stopped)
    os.killpg(stopped.pid, signal.SIGINT)  # a terminal sends Ctrl-C to the workers, too
    told = stopped.communicate(timeout=120)[1]
    assert "Traceback" not in told
    assert "the sample was broken off: nothing of it is kept" in told
    assert stopped.returncode == 130
    assert not list(tmp_path.iterdir())


def test_no_cluster_is_opened_where_nothing_is_to_be_sampled(sample: Path, reference: Path) -> None:
    nobody = AddressCluster(address="tcp://127.0.0.1:1")
    found = plan_volume(f"{sample}:raw", str(reference), small_config(), cluster=nobody)
    assert {stage.left for stage in found.forecast.stages} == {0}


def test_a_plan_of_what_is_done_says_so(run, sample: Path, reference: Path) -> None:
    code, out, _ = run("plan", f"{sample}:raw", reference, *settings())
    assert code == 0
    told = r"all done before, on \d{4}-\d\d-\d\dT[\d:+]+, from this input with these settings; nothing is left to do"
    assert re.fullmatch(told, out.splitlines()[0])
    code, out, _ = run("plan", f"{sample}:raw", reference, *settings(), "--set=agglomerate.beta=0.6", "--overwrite")
    assert (code, "all done before" in out) == (0, False)
