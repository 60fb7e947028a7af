import errno
import hashlib
import json
import logging
import subprocess
import sys
import threading
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from vimvol.engine import lock as module
from vimvol.engine.lock import NAME, Holder, Lock, is_alive, read_holder
from vimvol.errors import DiskFullError, IncompleteRunError, OutputBusyError, OutputLostError, StorageError
from vimvol.io.objects import FolderObjects, open_objects


@pytest.fixture
def objects(tmp_path: Path) -> FolderObjects:
    return open_objects(str(tmp_path))


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BEAT", 0.05)
    monkeypatch.setattr(module, "WATCH", 1.0)


def write(objects: FolderObjects, holder: Holder) -> None:
    objects.put(NAME, json.dumps(asdict(holder)).encode())


def test_a_second_run_is_refused_in_one_line_that_says_who(objects) -> None:
    with Lock(objects, "out.zarr"):
        holder = read_holder(objects)
        with pytest.raises(OutputBusyError) as refused, Lock(objects, "out.zarr"):
            pass
        with pytest.raises(OutputBusyError):
            Lock(objects, "out.zarr").refuse_if_held()
    text = str(refused.value)
    assert "\n" not in text
    assert all(str(part) in text for part in ("out.zarr", holder.user, holder.host, holder.pid, holder.since))
    assert objects.names("") == []
    with Lock(objects, "out.zarr"):
        pass


def test_the_lock_of_a_killed_process_of_this_machine_is_taken_over(objects, quick) -> None:
    script = (
        "import os, sys\nfrom vimvol.engine.lock import Lock\nfrom vimvol.io.objects import open_objects\n"
        "with Lock(open_objects(sys.argv[1]), 'out'): os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", script, objects.folder], check=False)
    holder = read_holder(objects)
    assert holder is not None
    assert is_alive(holder) is False
    with Lock(objects, "out"):
        assert read_holder(objects).token != holder.token


def test_a_process_that_only_has_the_same_number_is_not_the_holder(objects, quick) -> None:
    write(objects, replace(Holder.this_process(), born="1"))
    with Lock(objects, "out"):
        pass


def test_a_run_elsewhere_is_alive_while_its_number_grows(objects, quick) -> None:
    elsewhere = replace(Holder.this_process(), machine="another")
    write(objects, elsewhere)
    end = threading.Event()

    def beat() -> None:
        number = 0
        while not end.wait(0.1):
            number += 1
            write(objects, replace(elsewhere, beat=number))

    thread = threading.Thread(target=beat)
    thread.start()
    try:
        with pytest.raises(OutputBusyError), Lock(objects, "out"):
            pass
    finally:
        end.set()
        thread.join()
    with Lock(objects, "out"):  # it stands still now
        assert read_holder(objects).token != elsewhere.token


@pytest.mark.parametrize("left", [b"", b"{", b"[]", b'{"token": 1}'])
def test_a_lock_that_cannot_be_made_out_is_taken_over_after_a_while(objects, quick, left: bytes) -> None:
    objects.put(NAME, left)
    with Lock(objects, "out"):
        assert read_holder(objects) is not None


def test_who_lost_the_lock_stops_and_leaves_it_to_the_other(objects, quick) -> None:
    with Lock(objects, "out") as lock:
        lock.check()
        write(objects, replace(Holder.this_process(), machine="another"))
        time.sleep(0.5)
        with pytest.raises(IncompleteRunError, match="another run took over"):
            lock.check()
    assert read_holder(objects).machine == "another"


def test_of_many_that_take_over_at_once_one_holds_the_lock(objects, quick) -> None:
    write(objects, replace(Holder.this_process(), born="1"))
    held, most, guard = 0, [], threading.Lock()

    def run() -> None:
        nonlocal held
        try:
            with Lock(objects, "out"):
                with guard:
                    held += 1
                    most.append(held)
                time.sleep(0.5)
                with guard:
                    held -= 1
        except OutputBusyError:
            pass

    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1]


class Slow(FolderObjects):
    """A folder on storage that takes long to write a name that stands for something else already."""

    def move(self, name: str, to: str) -> bool:
        time.sleep(threading.current_thread().name.endswith("0") and 1.5)
        return super().move(name, to)


def test_slow_storage_lets_no_two_take_over(objects, quick) -> None:
    write(objects, replace(Holder.this_process(), born="1"))
    held: list[str] = []

    def run() -> None:
        try:
            with Lock(Slow(objects.folder), "out"):
                held.append(threading.current_thread().name)
                time.sleep(2)
        except OutputBusyError:
            pass

    threads = [threading.Thread(target=run, name=f"run-{i}") for i in range(4)]
    for thread in threads:
        thread.start()
        time.sleep(0.1)
    for thread in threads:
        thread.join()
    assert len(held) == 1
    assert objects.names("") == []


def test_a_claim_that_a_killed_process_left_is_taken_over_too(objects, quick) -> None:
    dead = replace(Holder.this_process(), born="1")
    write(objects, dead)
    claim = f"{NAME}.{hashlib.sha256(objects.get(NAME)).hexdigest()[:20]}"
    objects.put(claim, json.dumps(asdict(replace(dead, token="other"))).encode())
    with Lock(objects, "out"):
        assert objects.names("") == [NAME]


def test_a_full_disk_leaves_no_lock(objects, monkeypatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "no space left")

    monkeypatch.setattr("vimvol.io.objects.os.fsync", full)
    with pytest.raises(DiskFullError), Lock(objects, "out"):
        pass
    assert objects.names("") == []


class HttpResponseError(Exception):
    """As clients of object stores raise it: no ``OSError``."""


class Failing(FolderObjects):
    """A folder whose storage fails as told while there is something to raise."""

    raised: Exception | None = None

    def put(self, name: str, data: bytes) -> None:
        if Failing.raised is not None:
            raise Failing.raised
        super().put(name, data)


ERRORS = [HttpResponseError("503\nbusy"), StorageError("no answer"), TypeError("a mistake"), KeyError("x")]


@pytest.mark.parametrize("error", ERRORS, ids=[type(error).__name__ for error in ERRORS])
def test_the_heart_goes_on_beating_whatever_a_beat_raises(objects, quick, monkeypatch, caplog, error) -> None:
    with Lock(Failing(objects.folder), "out") as lock, caplog.at_level(logging.WARNING):
        monkeypatch.setattr(Failing, "raised", error)
        time.sleep(0.2)
        lock.check()
        before = read_holder(objects).beat
        monkeypatch.setattr(Failing, "raised", None)
        time.sleep(1.0)
        assert read_holder(objects).beat > before
        lock.check()
    assert "the lock of out could not be renewed" in caplog.messages[0]
    assert "\n" not in caplog.messages[0]


def test_a_run_ends_before_one_that_watches_may_take_it_for_dead(objects, quick, monkeypatch) -> None:
    with Lock(Failing(objects.folder), "out") as lock:
        monkeypatch.setattr(Failing, "raised", HttpResponseError("503"))
        time.sleep(0.3)
        lock.check()
        time.sleep(0.3)
        with pytest.raises(OutputLostError, match=r"holds out \(HttpResponseError: 503\), .*run the same command"):
            lock.check()
        monkeypatch.setattr(Failing, "raised", None)
        lock.check()  # and goes on where it can say so after all


def test_a_run_that_stood_still_goes_on_where_nobody_took_it_over(objects, quick, monkeypatch) -> None:
    monkeypatch.setattr(module, "BEAT", 1000.0)
    with Lock(objects, "out") as lock:
        time.sleep(0.6)
        lock.check()
        assert read_holder(objects).beat == 1
        write(objects, replace(Holder.this_process(), machine="another"))
        time.sleep(0.6)
        with pytest.raises(OutputLostError, match="another run took over"):
            lock.check()
