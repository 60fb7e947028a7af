"""One run at a time writes an output."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vimvol.address import is_url
from vimvol.engine.blocks import BlockTask
from vimvol.engine.lock import NAME, Lock, Permit
from vimvol.geometry import Block
from vimvol.io.fence import writing_only_if
from vimvol.io.objects import open_objects

MANIFEST_NAME = "run.json"
"""What the manifest is called beside the lock; see `vimvol.outputs.manifest`."""


def lock_of(out: str) -> Lock:
    """Return the lock of an output, not yet taken."""
    return Lock(open_objects(f"{out}/vimvol"), out)


@dataclass(frozen=True)
class Permitted:
    """A task that writes only while its run holds the output, whatever has become of the run meanwhile."""

    permit: Permit
    task: BlockTask

    def __call__(self, block: Block) -> dict[str, Any]:
        """Compute one block."""
        with writing_only_if(self.permit.check):
            return self.task(block)


def guard_of(lock: Lock) -> Callable[[BlockTask], BlockTask]:
    """Return what makes of a task one that writes only while a lock is held."""
    return functools.partial(Permitted, lock.permit)


@contextlib.contextmanager
def owned(out: str) -> Iterator[Lock]:
    """Hold the lock of an output, without which this thread writes nothing.

    What was made for nothing but the lock is removed again; an empty folder that was there stays.

    Raises
    ------
    OutputBusyError
        If another run holds it.
    """
    folder = Path(out).absolute()
    inside = folder / "vimvol"
    mine = inside.exists() or not folder.exists()  # an empty folder that was there is the user's
    made = [inside, *([folder] if mine else []), *(path for path in folder.parents if not path.exists())]
    try:
        with lock_of(out) as lock, writing_only_if(lock.permit.check):
            yield lock
    finally:
        if not is_url(out):
            with contextlib.suppress(OSError):  # one is not empty
                for path in made:
                    path.rmdir()


def holds_nothing_but_a_lock(out: str) -> bool:
    """Tell whether nothing is there, or only what a run left that was killed before it had written anything else."""
    store = open_objects(out)
    if store.names("", drafts=True) != ["vimvol"]:
        return not (store.names("", drafts=True) or Path(out).is_file())
    names = store.names("vimvol", drafts=True)
    # The manifest is the first thing that is written, so a run may have been killed with its draft half-written.
    return all(name == NAME or name.startswith((f"{NAME}.", f".{NAME}.", f".{MANIFEST_NAME}.")) for name in names)
