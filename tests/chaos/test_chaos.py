"""Real processes are killed, stopped and cheated; every run ends in the bytes of the undisturbed one."""

import random
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.faults import Cluster, Faults, Run, fails, kills, state, stops, tree
from tests.support import disk_of

BLOCKS = {
    "predict": "/out.zarr/0/c/",
    "fragments": "/vimvol/fragments/c/",
    "graph": "/vimvol/(edges|nodes)/",
    "costs": "/vimvol/costs/",
    "write": "/segmentation/0/c/",
    "label-pyramid": "/segmentation/[12]/c/",
    "pyramid": "/out.zarr/[12]/c/",
}
"""What the blocks of a stage write; the client alone writes ledger, manifest, metadata and lookup table."""


def assert_same(out: Path, reference: Path) -> None:
    assert state(out) == "complete"
    assert tree(out) == tree(reference)


def test_failed_writes_killed_and_hung_workers_and_a_wrong_clock_cost_tries_alone(
    volume: str, reference: Path, cluster: Cluster, faults: Faults, tmp_path: Path
) -> None:
    assert (faults.folder / "taken" / "clock").exists()
    out = tmp_path / "out.zarr"
    faults.put(*(fails(where) for where in BLOCKS.values() for _ in range(2)))
    faults.put(*(fails(f"/ledger/{stage}/.*records$") for stage in ("predict", "costs", "write")))
    faults.put(
        kills(BLOCKS["predict"]), stops(BLOCKS["fragments"]), kills(BLOCKS["graph"], after=True), kills(BLOCKS["write"])
    )
    ended = Run(volume, out, faults, cluster.address, run__deadline=15, run__retries=5).end()
    assert ended.code == 0, ended.told
    assert_same(out, reference)


def test_a_run_whose_client_and_scheduler_were_killed_goes_on_elsewhere(
    volume: str, reference: Path, cluster: Cluster, faults: Faults, tmp_path: Path
) -> None:
    """On this machine its client is killed, on a cluster the scheduler, and on another cluster the client."""
    out = tmp_path / "out.zarr"
    killed = Run(volume, out, faults)
    faults.put(kills(BLOCKS["predict"], killed.process.pid))
    assert killed.process.wait(300) == -9
    end = time.monotonic() + 60
    while killed.members():
        assert time.monotonic() < end, "workers outlive their client"
        time.sleep(0.1)
    killed.end()

    faults.put(kills(BLOCKS["fragments"], cluster.scheduler))
    ended = Run(volume, out, faults, cluster.address).end()
    assert ended.code == 1, ended.told
    assert len(ended.errors) == 1, ended.told
    assert "run the same command again" in ended.errors[0]
    assert "Traceback" not in ended.told, ended.told
    assert state(out) == "running"
    cluster.start()

    faults.put(kills("/ledger/write/.*records$"))
    assert Run(volume, out, faults, cluster.address).end().code == -9
    assert state(out) == "running"
    ended = Run(volume, out, faults, cluster.address).end()
    assert ended.code == 0, ended.told
    assert_same(out, reference)


@pytest.fixture
def small_disk(reference: Path, tmp_path: Path) -> Iterator[Path]:
    """A file system that holds two thirds of an output."""
    with disk_of(tmp_path / "disk", reference, 2 / 3) as folder:
        yield folder


def test_a_full_disk_ends_the_run_in_one_line_and_room_mends_it(
    volume: str, reference: Path, cluster: Cluster, faults: Faults, small_disk: Path
) -> None:
    out = small_disk / "out.zarr"
    ended = Run(volume, out, faults, cluster.address).end()
    assert ended.code == 1, ended.told
    assert len(ended.errors) == 1, ended.told
    assert "space" in ended.errors[0]
    assert "Traceback" not in ended.told, ended.told
    subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
    ended = Run(volume, out, faults, cluster.address).end()
    assert ended.code == 0, ended.told
    assert_same(out, reference)


@pytest.mark.chaos
@pytest.mark.timeout(7200)
def test_two_hundred_faults(volume: str, reference: Path, cluster: Cluster, faults: Faults, tmp_path: Path) -> None:
    """Random faults, round by round, until there were 200: mostly writes that fail, and whatever a cluster does."""
    draw = random.Random(5)
    names = [name for name in tree(reference) if "/c/" in name or name.endswith(".table")]
    by_client = [name for name in tree(reference) if name.endswith("zarr.json")]
    # A client that is stopped waits until somebody lets it go on, and nothing is to be tested.
    by_workers = [name for name in names if any(re.search(where, f"/out.zarr/{name}") for where in BLOCKS.values())]
    before, rounds, runs = faults.taken(), 0, 0
    worst = ("client", "scheduler", "hung", "metadata")
    while faults.taken() - before < 200:
        out = tmp_path / str(rounds) / "out.zarr"
        out.parent.mkdir()
        struck = [f"/out.zarr/{name}$" for name in draw.sample(names, 43)]
        faults.put(*(fails(where) for where in struck[:40]))
        faults.put(*(kills(where, after=draw.random() < 0.5) for where in struck[40:42]))
        kind = worst[rounds % len(worst)]
        if kind == "hung":
            faults.put(stops(f"/out.zarr/{draw.choice(by_workers)}$"))
        elif kind == "scheduler":
            faults.put(kills(struck[42], cluster.scheduler))
        elif kind == "metadata":
            faults.put(fails(f"/out.zarr/{draw.choice(by_client)}$"))
        code, tries = 1, 0
        while code:
            if not cluster.running():
                cluster.start()
            run = Run(volume, out, faults, cluster.address, run__deadline=60)
            if kind == "client" and not tries:
                faults.put(kills(struck[42], run.process.pid), kills("/ledger/.*records$"))
            ended = run.end()
            code, tries, runs = ended.code, tries + 1, runs + 1
            assert code in (0, 1, -9), ended.told
            assert len(ended.errors) == (code == 1), ended.told
            assert tries < 8
        assert_same(out, reference)
        assert not faults.left()
        rounds += 1
        print(f"{rounds} rounds, {runs} runs, {faults.taken() - before} faults")  # noqa: T201
