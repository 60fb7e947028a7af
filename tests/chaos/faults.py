"""What is done to the processes of a run, and how the run's command and a Dask cluster of its own are started."""

import contextlib
import errno
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
import uuid
from dataclasses import asdict, dataclass
from pathlib import Path

import distributed

from tests.support import SMALL
from vimvol.engine.cluster.threads import THREAD_VARIABLES

ROOT = Path(__file__).parents[2]

OUR_OWN = re.compile(r"^vimvol/(.*/)?ledger/|^vimvol/(lock|run\.json|overview\.png)|\.partial$|(^|/)\.[^/]*$")
"""What may differ between two runs: the records, who ran, the picture, drafts that a killed process left."""


@dataclass(frozen=True)
class Fault:
    """Strikes whoever writes a file first whose path matches.

    Attributes
    ----------
    where
        Regular expression, searched in the path.
    error
        Number of the error that the write ends with; 0: none.
    signal
        Sent to process ``pid``, or to the writing process itself where that is 0.
    after
        Whether the signal comes when the file has its name already.
    """

    where: str
    error: int = 0
    signal: int = 0
    pid: int = 0
    after: bool = False


def fails(where: str) -> Fault:
    return Fault(where, error=errno.EIO)


def kills(where: str, pid: int = 0, *, after: bool = False) -> Fault:
    return Fault(where, signal=signal.SIGKILL, pid=pid, after=after)


def stops(where: str) -> Fault:
    return Fault(where, signal=signal.SIGSTOP)


class Faults:
    """A folder of faults, each of which strikes once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "taken").mkdir(parents=True)

    def put(self, *faults: Fault) -> None:
        for fault in faults:
            draft = self.folder / uuid.uuid4().hex
            draft.write_text(json.dumps(asdict(fault)))
            draft.rename(draft.with_suffix(".fault"))

    def left(self) -> list[str]:
        return [path.read_text() for path in self.folder.glob("*.fault")]

    def taken(self) -> int:
        return len(list((self.folder / "taken").iterdir()))

    def clear(self) -> None:
        for path in self.folder.glob("*.fault"):
            path.unlink()

    def environment(self) -> dict[str, str]:
        path = [str(Path(__file__).parent), str(ROOT), os.environ.get("PYTHONPATH", "")]
        threads = dict.fromkeys(THREAD_VARIABLES, "1")
        return {**os.environ, **threads, "PYTHONPATH": os.pathsep.join(path), "VIMVOL_FAULTS": str(self.folder)}


@dataclass(frozen=True)
class Ended:
    """How a run ended."""

    code: int
    told: str

    @property
    def errors(self) -> list[str]:
        return [line for line in self.told.splitlines() if line.startswith("error: ")]


class Run:
    """The command ``vimvol segment`` as a process, with all processes that it starts."""

    def __init__(self, volume: str, out: Path, faults: Faults, cluster: str = "local", **settings: object) -> None:
        values = SMALL | {"run.workers": 2} | {key.replace("__", "."): value for key, value in settings.items()}
        command = [sys.executable, "-c", "from vimvol.cli import main; main()", "segment", volume, str(out)]
        for key, value in values.items():
            command += ["--set", f"{key}={value}"]
        self._told = out.with_name(f"told-{uuid.uuid4().hex}")
        with self._told.open("w") as told:
            self.process = subprocess.Popen(
                [*command, "--cluster", cluster],
                env=faults.environment(),
                stdout=told,
                stderr=told,
                start_new_session=True,
            )

    def end(self) -> Ended:
        """Wait for the end of the run; nothing that it started is left afterwards."""
        try:
            code = self.process.wait(900)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        return Ended(code, self._told.read_text())

    def members(self) -> list[int]:
        """Return the processes of the run that are there."""
        found = []
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                fields = stat.read_text().rpartition(")")[2].split()
                if int(fields[3]) == self.process.pid and fields[0] not in "ZX":
                    found.append(int(stat.parent.name))
        return found


class Cluster:
    """A scheduler and two workers, each a process of its own, that outlive the runs."""

    def __init__(self, folder: Path, faults: Faults) -> None:
        self._folder, self._faults = folder, faults
        self._processes: list[subprocess.Popen[bytes]] = []
        self.address = ""

    @property
    def scheduler(self) -> int:
        return self._processes[0].pid

    def start(self) -> None:
        self.stop()
        file = self._folder / f"{uuid.uuid4().hex}.json"
        self._start("scheduler", "--host", "127.0.0.1", "--port", "0", "--scheduler-file", file)
        end = time.monotonic() + 60
        while not file.exists():
            assert time.monotonic() < end, "the scheduler did not start"
            time.sleep(0.1)
        options = ["--nworkers", "2", "--nthreads", "1", "--memory-limit", "0", "--host", "127.0.0.1"]
        self._start("worker", "--scheduler-file", file, "--local-directory", self._folder, *options)
        self.address = json.loads(file.read_text())["address"]
        with distributed.Client(self.address, set_as_default=False) as client:
            client.wait_for_workers(2, timeout=120)

    def _start(self, *command: object, host: str = "") -> None:
        """Start a process of Dask, on another host where one is given: a network namespace."""
        there = ["ip", "netns", "exec", host] if host else []
        self._processes.append(
            subprocess.Popen(
                [*there, sys.executable, "-m", "dask", *map(str, command), "--dashboard-address", "127.0.0.1:0"],
                env=self._faults.environment(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        )

    def running(self) -> bool:
        return bool(self._processes) and all(process.poll() is None for process in self._processes)

    def stop(self) -> None:
        for process in self._processes:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        self._processes.clear()


def tree(out: Path) -> dict[str, str]:
    """Return the digest of every file of an output that two runs must agree on."""
    names = [path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()]
    kept = sorted(name for name in names if not OUR_OWN.search(name))
    return {name: hashlib.sha256((out / name).read_bytes()).hexdigest() for name in kept}


def state(out: Path) -> str:
    return str(json.loads((out / "vimvol" / "run.json").read_text())["state"])
