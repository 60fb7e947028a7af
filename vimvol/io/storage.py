"""Where bytes lie: zarr stores by path or URL, and single objects in them."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import zarr
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import collect_aiterator, sync

from vimvol.address import is_url
from vimvol.errors import InputError, MissingExtraError
from vimvol.io.errors import one_line, storage_errors

if TYPE_CHECKING:
    from zarr.abc.store import Store

_DRAFT = re.compile(r"\.[0-9a-f]{32}\.partial$|^\.(?!lock\.).+\.[0-9a-f]{32}$")
"""Names of drafts: those of zarr, and those of `vimvol.io.objects` but for the lock, which is written at any time."""

NODE_METADATA = ("zarr.json", ".zarray", ".zgroup", ".zattrs")
"""Names of the objects that tell what a zarr array or group is, of v3 and of v2."""


def join(url: str, *parts: str) -> str:
    """Append the parts to a path or URL; empty parts are left out."""
    return "/".join([url.rstrip("/"), *(p.strip("/") for p in parts if p.strip("/"))])


def local_path(path: str) -> Path:
    """Return the path of what is written to the file system alone.

    Raises
    ------
    InputError
        If it is the URL of an object store; as a path it would be a folder by the name of the scheme.
    """
    path = path.removeprefix("file://")
    if is_url(path):
        raise InputError(f"{path} is in an object store, where this cannot be written; give a path of the file system")
    return Path(path)


@contextlib.contextmanager
def drafted(target: Path) -> Iterator[Path]:
    """Yield a path to write a folder at, which then takes the place of the target: it is whole or not there.

    The draft lies beside the target. Where writing fails or is stopped, it is removed; one of a killed process is
    written anew.

    Raises
    ------
    StorageError
        If it cannot be written.
    """
    draft = target.with_name(f".{target.name}.partial")
    with storage_errors(f"writing {target}"):
        shutil.rmtree(draft, ignore_errors=True)
        try:
            yield draft
            draft.rename(target)
        except BaseException:
            shutil.rmtree(draft, ignore_errors=True)
            raise


def open_store(url: str, *, read_only: bool = True) -> Store:
    """Open a zarr store: the one place that knows what kinds of storage there are.

    Parameters
    ----------
    url
        Path of a folder, ``file://`` URL, or the URL of an object store that fsspec knows (``s3://`` ...).
    read_only
        Whether writing is refused.

    Raises
    ------
    MissingExtraError
        If the URL needs a package that is not installed.
    InputError
        If no installed package knows the scheme.
    """
    if url.startswith("file://"):
        url = url.removeprefix("file://")
    if not is_url(url):
        return zarr.storage.LocalStore(url, read_only=read_only)
    scheme = url.split("://", 1)[0]
    try:
        return zarr.storage.FsspecStore.from_url(url, read_only=read_only)
    except ImportError as error:
        raise MissingExtraError(
            f"{url} cannot be opened ({one_line(error)}); install the fsspec package for {scheme}://"
        ) from None
    except ValueError as error:
        raise InputError(
            f"{url} cannot be opened ({one_line(error)}); use a path, or a scheme that fsspec knows"
        ) from None


def holds_node(url: str) -> bool:
    """Tell whether a zarr v3 array or group is there."""
    return get_object(open_store(url), "zarr.json") is not None


def get_object(store: Store, key: str) -> bytes | None:
    """Return the bytes of an object; none where there is none."""
    if isinstance(store, zarr.storage.LocalStore):  # without a detour through zarr's event loop, which takes longer
        try:
            return (store.root / key).read_bytes()
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            return None
    buffer = sync(store.get(key, default_buffer_prototype()))
    return None if buffer is None else buffer.to_bytes()


def put_object(store: Store, key: str, data: bytes) -> None:
    """Write an object; it appears whole or, where that fails, not at all (stores rename or upload in one step)."""
    sync(store.set(key, default_buffer_prototype().buffer.from_bytes(data)))


def make_durable(path: Path) -> None:
    """Wait until a local file and its name in the folder would survive a loss of power; nothing where there is none."""
    if path.is_file():
        _flush(path)
        flush_folder(path.parent)


def make_node_durable(url: str) -> None:
    """Wait until the metadata of a zarr array or group and its name would survive a loss of power.

    Nothing is done for a URL: an object store has what it took.
    """
    if not is_url(url):
        for name in NODE_METADATA:
            make_durable(Path(url) / name)
        flush_folder(Path(url).parent)


def flush_folder(folder: Path) -> None:
    """Wait until the names in a folder would survive a loss of power."""
    if os.name == "posix":  # elsewhere a folder cannot be opened
        _flush(folder)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_drafts(folder: Path) -> None:
    """Remove what writers that were killed left below a folder: files that were to be renamed once they were whole.

    Nobody may be writing there.
    """
    for parent, _, names in os.walk(folder):
        for name in names:
            if _DRAFT.search(name):
                (Path(parent) / name).unlink(missing_ok=True)


def list_names(store: Store, prefix: str) -> list[str]:
    """Return the names of the objects and folders right below ``prefix``; none where the store cannot list."""
    return list(collect_aiterator(store.list_dir(prefix))) if store.supports_listing else []
