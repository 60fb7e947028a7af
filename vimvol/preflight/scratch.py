"""A folder beside an output for the time being; and what killed processes left of theirs."""

from __future__ import annotations

import contextlib
import uuid

from vimvol.address import is_url
from vimvol.engine.lock import NAME, Permit, is_alive, mark, read_holder
from vimvol.errors import StorageError
from vimvol.io.objects import open_objects
from vimvol.preflight.disk import existing_parent

PREFIX = ".vimvol-sample-"


class Scratch:
    """A folder on the storage of an output: a context manager, on leaving which it is gone.

    Enter it before the workers that write into it, so that it is removed when they have ended. Folders of processes of
    this machine that are dead are removed on entering; of those elsewhere it cannot be told.

    Attributes
    ----------
    folder
        Its path or URL; nothing is there before `open`.
    """

    def __init__(self, out: str) -> None:
        self._parent = out.rpartition("/")[0] if is_url(out) else str(existing_parent(out))
        self._name = f"{PREFIX}{uuid.uuid4().hex}"
        self.folder = f"{self._parent}/{self._name}"

    def open(self) -> Permit:
        """Make the folder, in the name of this process; return what workers may write in it by.

        Raises
        ------
        StorageError
            If nothing can be written there.
        """
        return mark(open_objects(self.folder), self.folder)

    def remove(self) -> None:
        """Remove the folder; what still computes writes nothing into it any more."""
        _remove(self._parent, self._name)

    def __enter__(self) -> Scratch:
        """Return itself."""
        with contextlib.suppress(StorageError):
            for name in open_objects(self._parent).names("", drafts=True):
                if name.startswith(PREFIX):
                    holder = read_holder(open_objects(f"{self._parent}/{name}"))
                    if holder is not None and is_alive(holder) is False:
                        _remove(self._parent, name)
        return self

    def __exit__(self, *reason: object) -> None:
        """Remove the folder."""
        self.remove()


def _remove(parent: str, name: str) -> None:
    """Remove a folder; whose it was last, so that the next start can go on if this process is killed meanwhile."""
    with contextlib.suppress(StorageError):
        inside = open_objects(f"{parent}/{name}")
        for each in inside.names("", drafts=True):
            if each != NAME:
                inside.remove(each)
        open_objects(parent).remove(name)
