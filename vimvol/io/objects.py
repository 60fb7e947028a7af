"""Small objects by name, in a folder or an object store: where the engine keeps its records and its lock."""

from __future__ import annotations

import contextlib
import os
import shutil
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from zarr.core.sync import sync

from vimvol.address import is_url, without_format
from vimvol.io.errors import storage_errors
from vimvol.io.storage import flush_folder, get_object, join, list_names, open_store, put_object


@dataclass(frozen=True)
class FolderObjects:
    """Objects as the files of a folder, which need not exist yet. Files whose names begin with a dot are drafts."""

    folder: str

    def names(self, folder: str, *, drafts: bool = False) -> list[str]:
        """Return the names of what lies right in a folder, sorted; those that begin with a dot only where asked."""
        with storage_errors(f"listing {join(self.folder, folder)}"):
            try:
                names = (entry.name for entry in os.scandir(self._path(folder)))
                return sorted(name for name in names if drafts or not name.startswith("."))
            except (FileNotFoundError, NotADirectoryError):
                return []

    def get(self, name: str) -> bytes | None:
        """Return an object; none where there is none."""
        with storage_errors(f"reading {join(self.folder, name)}"):
            try:
                return self._path(name).read_bytes()
            except (FileNotFoundError, NotADirectoryError):
                return None

    def put(self, name: str, data: bytes) -> None:
        """Write an object in one step: under another name first, then renamed."""
        path = self._path(name)
        with storage_errors(f"writing {path}"):
            with self._draft(path, data) as draft:
                draft.replace(path)
            flush_folder(path.parent)

    def create(self, name: str, data: bytes) -> bool:
        """Write an object unless there is one; of several that try at once, one succeeds, on NFS too."""
        path = self._path(name)
        with storage_errors(f"writing {path}"):
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
            except FileExistsError:
                return False
            try:
                with os.fdopen(descriptor, "wb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
            except BaseException:  # an empty object would say that somebody has it
                path.unlink(missing_ok=True)
                raise
            flush_folder(path.parent)
        return True

    def move(self, name: str, to: str) -> bool:
        """Give an object the name of another, in place of it, in one step; tell whether there was one to move."""
        path, target = self._path(name), self._path(to)
        with storage_errors(f"writing {target}"):
            try:
                path.replace(target)
            except FileNotFoundError:
                return False
            flush_folder(target.parent)
        return True

    def remove(self, name: str) -> None:
        """Remove an object, or a folder and all that is in it."""
        path = self._path(name)
        with storage_errors(f"removing {path}"):
            if path.is_dir():
                shutil.rmtree(path)
            elif path.exists():
                path.unlink(missing_ok=True)
            else:
                return
            flush_folder(path.parent)

    def _path(self, name: str) -> Path:
        return Path(self.folder) / name

    @contextlib.contextmanager
    def _draft(self, path: Path, data: bytes) -> Iterator[Path]:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
        try:
            with draft.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            yield draft
        except BaseException:
            with contextlib.suppress(OSError):
                draft.unlink(missing_ok=True)
            raise


@dataclass(frozen=True)
class StoreObjects:
    """Objects of an object store, below a URL."""

    url: str

    def names(self, folder: str, *, drafts: bool = False) -> list[str]:  # noqa: ARG002 - a store has none
        """Return the names of what lies right in a folder, sorted."""
        with storage_errors(f"listing {join(self.url, folder)}"):
            return sorted(name.rstrip("/") for name in list_names(open_store(self.url), folder))

    def get(self, name: str) -> bytes | None:
        """Return an object; none where there is none, as in what is N5 or precomputed, where none is ever put."""
        if without_format(self.url) != self.url:
            return None
        with storage_errors(f"reading {join(self.url, name)}"):
            return get_object(open_store(self.url), name)

    def put(self, name: str, data: bytes) -> None:
        """Write an object; a store takes it whole or not at all."""
        with storage_errors(f"writing {join(self.url, name)}"):
            put_object(open_store(self.url, read_only=False), name, data)

    def create(self, name: str, data: bytes) -> bool:
        """Write an object unless there is one; stores that cannot decide it in one step may let two pass at once."""
        if self.get(name) is not None:
            return False
        self.put(name, data)
        return self.get(name) == data

    def move(self, name: str, to: str) -> bool:
        """Give an object the name of another, in place of it; for a moment it has both names."""
        data = self.get(name)
        if data is None:
            return False
        self.put(to, data)
        self.remove(name)
        return True

    def remove(self, name: str) -> None:
        """Remove an object, or a folder and all that is in it."""
        with storage_errors(f"removing {join(self.url, name)}"):
            store = open_store(self.url, read_only=False)
            sync(store.delete(name))
            sync(store.delete_dir(name))


def open_objects(url: str) -> FolderObjects | StoreObjects:
    """Return the objects below a path or URL.

    Parameters
    ----------
    url
        Path of a folder, or a URL that `vimvol.io.storage.open_store` knows; neither need exist.
    """
    url = url.removeprefix("file://")
    return StoreObjects(url) if is_url(url) else FolderObjects(url)
