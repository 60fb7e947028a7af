"""A run on a real SLURM: jobs are submitted, all are cancelled in the middle; the bytes are those of a local run."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from tests.slurm.node import ask, slurm_node, why_not
from tests.support import SMALL, digest

pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(why_not()), reason=why_not())]


def running() -> list[str]:
    return ask("squeue", "-h", "-t", "R", "-o", "%A").split()


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory):
    with slurm_node(tmp_path_factory.mktemp("slurm")):
        yield


def settings(folder: Path, **more: object) -> Path:
    path = folder / "slurm.yaml"
    config = {
        "kind": "slurm",
        "walltime": "00:10:00",
        "interface": "lo",
        "cpu": {"jobs": 2, "cores": 1, "memory": "2GB"},
        "log_folder": str(folder / "logs"),
        "local_folder": str(folder / "scratch"),
        **more,
    }
    path.write_text(yaml.safe_dump(config))
    return path


def start(source: str, out: Path, cluster: Path) -> subprocess.Popen[str]:
    options = [f"--set={key}={json.dumps(value)}" for key, value in SMALL.items()]
    command = [sys.executable, "-m", "vimvol", "segment", source, str(out), "--cluster", str(cluster), *options]
    root = str(Path(__file__).parents[2])
    return subprocess.Popen(
        command, cwd=out.parent, env={**os.environ, "PYTHONPATH": root}, stderr=subprocess.PIPE, text=True
    )


def wait_for(what, seconds: float, process: subprocess.Popen[str]) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < end
        time.sleep(0.1)


def test_cancelled_jobs_are_submitted_again_and_change_nothing(
    slurm: None, sample: Path, reference: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.zarr"
    # TLS, too: workers find their certificates in the folder that all nodes see.
    cluster = settings(tmp_path, tls=True, shared_folder=str(tmp_path))
    process = start(f"{sample}:raw", out, cluster)
    try:
        wait_for(lambda: len(running()) == 2, 60, process)
        wait_for(lambda: (out / "vimvol" / "ledger" / "predict").exists(), 60, process)
        ask("scancel", *running())  # all: only jobs that are submitted again can finish the run
        errors = process.communicate(timeout=240)[1]
    finally:
        process.kill()
    assert process.returncode == 0, errors
    assert digest(out) == digest(reference)
    wait_end = time.monotonic() + 30
    while ask("squeue", "-h").strip() and time.monotonic() < wait_end:
        time.sleep(0.2)
    assert ask("squeue", "-h").strip() == ""  # no job outlives the run


def test_a_stop_ends_the_jobs_and_the_same_command_goes_on(
    slurm: None, sample: Path, reference: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.zarr"
    cluster = settings(tmp_path)
    process = start(f"{sample}:raw", out, cluster)
    try:
        wait_for(lambda: (out / "vimvol" / "ledger" / "predict").exists(), 90, process)
        process.terminate()  # what the wall time of a batch system does to the run itself
        errors = process.communicate(timeout=60)[1]
    finally:
        process.kill()
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    again = start(f"{sample}:raw", out, cluster)
    errors = again.communicate(timeout=240)[1]
    assert again.returncode == 0, errors
    assert digest(out) == digest(reference)


def test_what_slurm_refuses_is_told(slurm: None, sample: Path, tmp_path: Path) -> None:
    pool = {"jobs": 1, "queue": "nowhere"}
    process = start(f"{sample}:raw", tmp_path / "out.zarr", settings(tmp_path, cpu=pool))
    try:
        errors = process.communicate(timeout=120)[1]
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 2, errors
    assert "slurm refused a job" in errors
    assert "invalid partition" in errors
    assert not (tmp_path / "out.zarr").exists()


def queued() -> list[str]:
    return ask("squeue", "-h", "-o", "%A").split()


def test_a_run_whose_jobs_are_cancelled_in_the_queue_ends(slurm: None, sample: Path, tmp_path: Path) -> None:
    pool = {"jobs": 2, "cores": 1, "memory": "2GB", "directives": ["--begin=now+1hour"]}
    process = start(f"{sample}:raw", tmp_path / "out.zarr", settings(tmp_path, cpu=pool))
    try:
        wait_for(lambda: len(queued()) == 2, 60, process)
        ask("scancel", *queued())
        errors = process.communicate(timeout=120)[1]
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 1, errors
    assert "squeue knows no job of slurm of this run any more (2 asked for)" in errors
    assert "Traceback" not in errors
    assert queued() == []
    assert not (tmp_path / "out.zarr").exists()


def test_jobs_follow_the_work_from_one_that_is_sent_ahead(
    slurm: None, sample: Path, reference: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.zarr"
    # later than an idle job would be taken back
    pool = {"maximum": 2, "cores": 1, "memory": "2GB", "directives": ["--begin=now+10"]}
    process = start(f"{sample}:raw", out, settings(tmp_path, cpu=pool))
    try:
        errors = process.communicate(timeout=240)[1]
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0, errors
    assert digest(out) == digest(reference)
