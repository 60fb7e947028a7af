"""What the engine asks of a place that keeps its small objects; `vimvol.io.objects` has the places."""

from __future__ import annotations

from typing import Protocol


class Objects(Protocol):
    """Small objects by name, ``folder/folder/name``, in a folder or an object store.

    An object appears whole or not at all, and on return from a method what it did would survive a loss of power.
    Every method raises `vimvol.errors.StorageError` where the storage fails.
    """

    def names(self, folder: str) -> list[str]:
        """Return the names of what lies right in a folder, sorted; none where there is no such folder."""
        ...

    def get(self, name: str) -> bytes | None:
        """Return an object; none where there is none."""
        ...

    def put(self, name: str, data: bytes) -> None:
        """Write an object, in place of one of the same name."""
        ...

    def create(self, name: str, data: bytes) -> bool:
        """Write an object unless there is one of this name; tell whether it was written."""
        ...

    def move(self, name: str, to: str) -> bool:
        """Give an object the name of another, in place of it; tell whether there was one to move."""
        ...

    def remove(self, name: str) -> None:
        """Remove an object, or a folder and all that is in it; nothing where there is none."""
        ...
