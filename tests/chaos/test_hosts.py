"""Scheduler and workers on hosts of their own, network namespaces of this machine, one of which loses its link."""

import contextlib
import json
import os
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import distributed
import pytest

from tests.chaos.faults import Cluster, Faults, Run, state, tree


def ip(*command: str) -> str:
    return subprocess.run(["ip", *command], check=True, capture_output=True, text=True).stdout


def remove(process: int) -> None:
    """Remove the network that a process laid."""
    for number in (2, 3):
        with contextlib.suppress(subprocess.CalledProcessError):
            ip("netns", "del", f"vv{process}-{number}")
    with contextlib.suppress(subprocess.CalledProcessError):
        ip("link", "del", f"vvb{process}")


def remove_orphans() -> None:
    """Remove the networks of processes that were killed: they take part in the routes of this machine."""
    for found in re.findall(r"\bvvb(\d+)\b", ip("link", "show")):
        if not Path("/proc", found).exists():
            remove(int(found))


def free_network() -> str:
    """Return the first three numbers of addresses to which no route of this machine leads but the default one."""
    routes = ip("route", "show", "table", "all")
    return next(network for network in (f"10.213.{number}" for number in range(256)) if f"{network}." not in routes)


class Hosts(Cluster):
    """A scheduler here, behind the bridge that joins the hosts, and a worker on each of two hosts."""

    def __init__(self, folder: Path, faults: Faults) -> None:
        super().__init__(folder, faults)
        self._hosts = [f"vv{os.getpid()}-{number}" for number in (2, 3)]
        self._network = ""

    def lay(self) -> None:
        """Lay the cables."""
        remove_orphans()
        self._network, bridge = free_network(), f"vvb{os.getpid()}"
        ip("link", "add", bridge, "type", "bridge")
        ip("addr", "add", f"{self._network}.1/24", "dev", bridge)
        ip("link", "set", bridge, "up")
        for number, host in enumerate(self._hosts, start=2):
            ip("netns", "add", host)
            ip("link", "add", host, "type", "veth", "peer", "name", "eth0", "netns", host)
            ip("link", "set", host, "master", bridge, "up")
            ip("-n", host, "addr", "add", f"{self._network}.{number}/24", "dev", "eth0")
            for device in ("lo", "eth0"):
                ip("-n", host, "link", "set", device, "up")

    def start(self) -> None:
        file = self._folder / "scheduler.json"
        self._start("scheduler", "--host", f"{self._network}.1", "--port", "0", "--scheduler-file", file)
        end = time.monotonic() + 60
        while not file.exists():
            assert time.monotonic() < end, "the scheduler did not start"
            time.sleep(0.1)
        self.address = json.loads(file.read_text())["address"]
        for number, host in enumerate(self._hosts, start=2):
            options = ["--nthreads", "1", "--memory-limit", "0", "--host", f"{self._network}.{number}"]
            self._start("worker", self.address, "--local-directory", self._folder / host, *options, host=host)
        with distributed.Client(self.address, set_as_default=False) as client:
            client.wait_for_workers(2, timeout=120)

    def cable(self, number: int, way: str) -> None:
        """Pull the cable of a host (``down``), or put it back (``up``)."""
        ip("link", "set", self._hosts[number], way)

    def clear(self) -> None:
        """Remove everything."""
        self.stop()
        remove(os.getpid())


@pytest.fixture
def hosts(faults: Faults, tmp_path: Path) -> Iterator[Hosts]:
    cluster = Hosts(tmp_path, faults)
    try:
        try:
            cluster.lay()
        except (OSError, subprocess.CalledProcessError) as error:
            pytest.skip(f"network namespaces need Linux, root and the right to make them ({error})")
        cluster.start()
        yield cluster
    finally:
        cluster.clear()


def written(out: Path) -> int:
    return sum(1 for path in (out / "vimvol" / "fragments").glob("c/**/*") if path.is_file())


def test_a_host_whose_link_is_cut_costs_time_alone(
    volume: str, reference: Path, hosts: Hosts, faults: Faults, tmp_path: Path
) -> None:
    out = tmp_path / "out.zarr"
    run = Run(volume, out, faults, hosts.address, run__deadline=10, run__retries=5)
    end = time.monotonic() + 240
    while not written(out):
        assert time.monotonic() < end
        assert run.process.poll() is None, run.end().told
        time.sleep(0.05)
    hosts.cable(1, "down")
    ended = run.end()
    assert ended.code == 0, ended.told
    assert state(out) == "complete"
    hosts.cable(1, "up")  # what the lost worker still computes must not reach the output
    time.sleep(3)
    assert "restarting hung workers" in ended.told
    assert tree(out) == tree(reference)
