"""Where an output is stored: whether it can be, the bytes that it takes, and those that a run replaces."""

from __future__ import annotations

import errno
import os
import tempfile
import uuid
from pathlib import Path

from vimvol.address import is_url
from vimvol.engine.lock import NAME
from vimvol.errors import DiskFullError, InputError, StorageError
from vimvol.io.errors import HINTS, storage_errors
from vimvol.io.objects import open_objects
from vimvol.io.storage import open_store, put_object
from vimvol.outputs.expected import Forecast
from vimvol.stages.job import Job
from vimvol.stages.order import stages_of

_ABSENT = {errno.ENOENT: "the folder is gone, or its file system takes no files: choose another path"}
"""What to do where nothing is kept yet."""


def check_writable(out: str) -> None:
    """Find out by a small object whether an output can be written, before anything is computed; nothing of it stays.

    Parameters
    ----------
    out
        Absolute path or URL of the output, which need not exist.

    Raises
    ------
    InputError
        If it cannot.
    DiskFullError
        If that is because no space is left.
    """
    inside = Path(out) / "vimvol" / "any"  # the deepest folder that is there already is what counts
    try:
        with storage_errors(f"output {out} cannot be written", hints=HINTS | _ABSENT):
            if is_url(out):
                # named as a draft of the lock, so that nobody takes for data what a killed process leaves
                name = f"vimvol/.{NAME}.{uuid.uuid4().hex}"
                put_object(open_store(out, read_only=False), name, b"")
                open_objects(out).remove(name)
                return
            if obstacle := next((p for p in inside.parents if os.path.lexists(p) and not p.is_dir()), None):
                raise InputError(f"{obstacle} is no folder, so output {out} cannot be written; choose another path")
            with tempfile.TemporaryFile(dir=existing_parent(str(inside))):
                pass
    except DiskFullError:
        raise
    except StorageError as error:
        raise InputError(str(error)) from None


def existing_parent(out: str) -> Path:
    """Return the folder, as far as there is one, that an output on this machine is to lie in."""
    return next(parent for parent in Path(out).absolute().parents if parent.is_dir())


def stored_bytes(folder: Path, but: str = "") -> int:
    """Return the bytes, in whole blocks of the file system, of all files in a folder but those of a name."""
    files = (path for path in folder.rglob("*") if path.name != but and path.is_file())
    return sum(getattr(path.stat(), "st_blocks", 0) * 512 or path.stat().st_size for path in files)


def replaced_bytes(job: Job, ahead: Forecast, *, fresh: bool) -> int:
    """Return the bytes of an output on this machine that a run replaces, so that they are free again.

    Parameters
    ----------
    job
        The job.
    ahead
        What the run will take.
    fresh
        Whether the output is laid out anew, so that nothing stays.
    """
    if fresh:
        return stored_bytes(Path(job.out))
    whole = sum(stage.written or 0 for stage in ahead.stages)
    blocky = (ahead.disk or 0) / max(1, whole)
    written = {stage.name: stage.written for stage in stages_of(job)}
    found = 0.0
    for stage in ahead.stages:
        if stage.left:
            there = sum(stored_bytes(Path(folder)) for folder in written.get(stage.name, ()))
            # what this run or the one that it goes on with has done of it stays
            done = blocky * (stage.written or 0) * (stage.blocks - stage.left) / stage.left
            found += max(0.0, there - done)
    return int(found)
