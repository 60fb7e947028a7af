"""What N5 and precomputed share: addresses, their JSON, and arrays read by tensorstore, which is an optional package.

Small files of a folder are read without it; whatever is behind a URL, and every array, with it.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from numpy.typing import NDArray

from vimvol.address import is_url, without_format
from vimvol.errors import InputError, MissingExtraError, StorageError, VimvolError, install_text
from vimvol.io.errors import one_line
from vimvol.io.storage import join

_LIMIT = "ZARR_THREADING__MAX_WORKERS"
"""Environment variable that bounds the threads of zarr in a worker, and those of tensorstore with them."""
_RETRIES = {"max_retries": 5, "initial_delay": "500ms", "max_delay": "5s"}
"""Of a request; tensorstore itself goes on for a quarter of an hour. The engine tries a block again."""
_STATUS = re.compile(r"([A-Z]{2}[A-Z_]+): ")
_DETAIL = re.compile(r" \[[A-Za-z][A-Za-z_ -]*='")
"""Begins what tensorstore appends to its messages for programmers."""
_DENIED = {"PERMISSION_DENIED", "UNAUTHENTICATED"}
_DAMAGED = {"FAILED_PRECONDITION", "INVALID_ARGUMENT", "DATA_LOSS", "OUT_OF_RANGE", "UNIMPLEMENTED"}
_AWS_VARIABLES = (
    "AWS_PROFILE",
    "AWS_ROLE_ARN",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_SHARED_CREDENTIALS_FILE",
    "AWS_CONFIG_FILE",
)
_AWS_FILES = ("~/.aws/credentials", "~/.aws/config")
"""Besides a key in the environment, what tells that there are credentials for S3."""

_used_in: int | None = None
"""Process that has started tensorstore's threads."""


class Array:
    """An array of tensorstore whose first voxel has the index 0, read anew each time: nothing is cached.

    Parameters
    ----------
    store
        An open ``tensorstore.TensorStore``.
    """

    def __init__(self, store: Any) -> None:  # noqa: ANN401 - of an optional package
        self._store = store

    def __getitem__(self, selection: Any, /) -> NDArray[Any]:  # noqa: ANN401 - integers and slices
        """Return the selected part, in memory with the first axis fastest, as these formats store their chunks."""
        with _translated():
            part: NDArray[Any] = self._store[selection].read(order="F").result()
        return part

    @property
    def written_together(self) -> tuple[int, ...]:
        """Voxels along each axis that are stored in one object: a chunk, or a shard of several."""
        return tuple(self._store.chunk_layout.write_chunk.shape)


def open_array(path: str, dataset: str, spec: Mapping[str, Any], *, channel: int | None = None) -> Array:
    """Open an array whose metadata are known, without a look at what is stored.

    Parameters
    ----------
    path, dataset
        Folder or URL of the container, and folder inside that the driver takes for its own.
    spec
        The rest of tensorstore's specification: driver and metadata.
    channel
        Index along an axis named ``channel`` to take, which is then gone; none leaves all axes.

    Raises
    ------
    MissingExtraError
        If tensorstore is not installed.
    ValueError
        If the metadata are not such as tensorstore can read; its text is one clause.
    """
    library = load(path)
    with _translated():
        opening = {**spec, "kvstore": _kvstore(library, join(path, dataset))}
        store = library.open(opening, context=_context(), read=True, open=True, assume_metadata=True).result()
        if channel is not None:
            store = store[library.d["channel"][channel]]
        return Array(store[library.d[:].translate_to[0]])


def read_json(path: str, name: str) -> Any | None:  # noqa: ANN401 - whatever JSON holds
    """Return what a JSON file of a container holds; none where there is no such file.

    Raises
    ------
    InputError
        If it is no JSON.
    MissingExtraError
        If the container is behind a URL and tensorstore is not installed.
    OSError
        If it cannot be read.
    """
    data = _read(path, name)
    if data is None:
        return None
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{join(path, name)} is no intact JSON ({one_line(error)}); restore it") from None


def local_folder(path: str) -> Path | None:
    """Return the folder of a container; none where it is behind a URL."""
    plain = without_format(path)
    return None if is_url(plain) else Path(plain)


def load(path: str) -> ModuleType:
    """Return the package tensorstore.

    Raises
    ------
    MissingExtraError
        If it is not installed.
    StorageError
        If the process was forked from one that has used it: without the threads that stayed there it would end.
    """
    global _used_in
    try:
        import tensorstore
    except ImportError as error:
        raise MissingExtraError(
            f"{path} is read with tensorstore, which cannot be loaded ({one_line(error)}); "
            + install_text("tensorstore")
        ) from None
    if _used_in not in (None, os.getpid()):
        raise StorageError(
            f"{path} cannot be read in a process forked from one that read with tensorstore; start it with "
            "multiprocessing's 'spawn'"
        )
    _used_in = os.getpid()
    return tensorstore


def _read(path: str, name: str) -> bytes | None:
    folder = local_folder(path)
    if folder is not None:
        try:
            return (folder / name).read_bytes()
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            return None
    library = load(path)
    try:
        with _translated():
            store = library.KvStore.open(_kvstore(library, path), context=_context()).result()
            found = store.read(name).result()
    except ValueError as error:
        raise InputError(f"{join(path, name)} cannot be read ({error}); check the address") from None
    return found.value if found.state == "value" else None


def _kvstore(library: ModuleType, path: str) -> dict[str, Any]:
    """Return tensorstore's specification of a folder or of what is below a URL."""
    folder = local_folder(path)
    if folder is not None:
        return {"driver": "file", "path": f"{os.path.normpath(folder)}/"}  # without "..", as keys of scales may have
    try:
        spec = library.KvStore.Spec(without_format(path))
        spec.path = spec.path.rstrip("/") + "/"
        found: dict[str, Any] = spec.to_json()
    except ValueError as error:
        raise InputError(f"{path} cannot be opened ({one_line(error)}); use a path, gs://, s3:// or https://") from None
    return found | _s3() if found["driver"] == "s3" else found


def _s3() -> dict[str, Any]:
    """Return endpoint, region and credentials of S3 from the environment; without credentials, nobody's.

    Tensorstore does not look for the first two, and for the last on every machine longer than it takes to read.
    """
    named = {
        "endpoint": ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"),
        "aws_region": ("AWS_REGION", "AWS_DEFAULT_REGION"),
    }
    found: dict[str, Any] = {}
    for name, variables in named.items():
        value = next(filter(None, map(os.environ.get, variables)), None)
        if value is not None and (name == "endpoint" or "endpoint" in found):  # of Amazon, the bucket tells its region
            found[name] = value
    if os.environ.get("AWS_ACCESS_KEY_ID"):
        kind = "environment"
    elif any(map(os.environ.get, _AWS_VARIABLES)) or any(Path(f).expanduser().exists() for f in _AWS_FILES):
        kind = "default"
    else:
        kind = "anonymous"
    return found | {"aws_credentials": {"type": kind}}


def _context() -> Any:  # noqa: ANN401 - of an optional package
    return _made_context(os.environ.get(_LIMIT, ""))


@functools.lru_cache(maxsize=1)
def _made_context(limit: str) -> Any:  # noqa: ANN401
    """Return what all reading shares: threads as many as the environment allows, no memory that grows."""
    import tensorstore

    settings: dict[str, Any] = {"cache_pool": {"total_bytes_limit": 0}}
    settings |= {f"{kind}_request_retries": _RETRIES for kind in ("http", "gcs", "s3")}
    if limit.isdigit() and int(limit) > 0:
        # those that decode; those that wait for a disk take no core, and so few are not worth waiting for each other
        settings["data_copy_concurrency"] = {"limit": int(limit)}
        settings["file_io_concurrency"] = {"limit": 4}
    return tensorstore.Context(settings)


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    """Turn tensorstore's errors, which are all of one type, into those that `storage_errors` tells apart."""
    try:
        yield
    except VimvolError:
        raise
    except (ValueError, NotImplementedError, RuntimeError, KeyError, IndexError, OverflowError) as error:
        text = _DETAIL.split(one_line(error))[0]
        status = _STATUS.match(text)
        reason = text[status.end() :] if status else text
        if status and status[1] in _DENIED:
            raise PermissionError(errno.EACCES, f"permission denied ({reason})") from error
        if status and status[1] not in _DAMAGED:
            raise OSError(f"{status[1].lower().replace('_', ' ')}: {reason}") from error
        raise ValueError(reason) from error
