"""Strikes the process that finds this at its start, as the files of a folder say, each once.

zarr, the ledger, the lock and the manifest all write by `pathlib.Path.replace`, so every write of every stage passes
here. A fault is a file of ``$VIMVOL_FAULTS``, see `tests.chaos.faults.Fault`; who renames it suffers it, and renaming
succeeds once, so the count is exact however many processes there are. The file ``clock`` sets the clock of one worker.
"""

import json
import os
import pathlib
import re
import time
from multiprocessing.process import parent_process

FOLDER = os.environ.get("VIMVOL_FAULTS", "")


def take(name: str) -> bool:
    try:
        os.rename(f"{FOLDER}/{name}", f"{FOLDER}/taken/{name}")  # noqa: PTH104 - Path.rename is not what is meant here
    except OSError:
        return False
    return True


def fault_of(target: str) -> dict | None:
    for name in sorted(os.listdir(FOLDER)):  # noqa: PTH208
        if name.endswith(".fault"):
            try:
                with open(f"{FOLDER}/{name}") as file:  # noqa: PTH123
                    fault = json.load(file)
            except (OSError, ValueError):  # taken or being written
                continue
            if re.search(fault["where"], target) and take(name):
                return fault
    return None


def install() -> None:
    replace, now = pathlib.Path.replace, time.time
    offset: list[float] = []

    def faulty(self: pathlib.Path, target: object) -> pathlib.Path:
        fault = fault_of(str(target))
        if fault is None:
            return replace(self, target)
        if fault["error"]:
            raise OSError(fault["error"], os.strerror(fault["error"]), str(target))
        if fault["after"]:
            replace(self, target)
        os.kill(fault["pid"] or os.getpid(), fault["signal"])
        return pathlib.Path(target) if fault["after"] else replace(self, target)

    def clock() -> float:
        if not offset and parent_process() is not None:  # known a little after the start of a worker
            with_fault = os.path.exists(f"{FOLDER}/clock") and take("clock")  # noqa: PTH110
            offset.append(float(open(f"{FOLDER}/taken/clock").read()) if with_fault else 0.0)  # noqa: PTH123, SIM115
        return now() + sum(offset)

    pathlib.Path.replace = faulty
    time.time = clock


if FOLDER:
    install()
