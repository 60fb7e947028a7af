"""Failures of storage as one line."""

from __future__ import annotations

import contextlib
import errno
import os
import traceback
from collections.abc import Iterator, Mapping

from vimvol.errors import DeniedError, DiskFullError, InputError, StorageError, VimvolError

HINTS = {
    errno.ENOSPC: "free space, or files where df -i shows none left, or write elsewhere, then run again",
    errno.EDQUOT: "the quota of space or of files is used up: free some or write elsewhere, then run again",
    errno.EFBIG: "the file system or a limit of the process allows no larger file: use a smaller shard",
    errno.EACCES: "ask for the right, or choose another path",
    errno.EPERM: "ask for the right, or choose another path",
    errno.EROFS: "choose a path that can be written",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
}
"""What to do, by ``errno``; of every other, what is kept is told."""

KINDS: dict[int, type[StorageError]] = {
    errno.ENOSPC: DiskFullError,
    errno.EDQUOT: DiskFullError,
    errno.EACCES: DeniedError,
    errno.EPERM: DeniedError,
}
"""What else than a `StorageError` is raised, by ``errno``."""

_REMOTE = {"aiobotocore", "aiohttp", "botocore", "fsspec", "gcsfs", "google", "s3fs", "urllib3"}
"""Packages that reach object stores, and whose errors are no ``OSError``."""

_WAYS = ("fsspec", "zarr.storage._fsspec")
"""Modules on the way to whatever is behind a URL. What comes through them may be of any type, of packages, too, that
are not known here (``azure`` ...): it is told by where it was raised."""


@contextlib.contextmanager
def storage_errors(what: str, *, decoding: bool = False, hints: Mapping[int, str] = HINTS) -> Iterator[None]:
    """Turn failures of storage into one line of `StorageError`.

    Parameters
    ----------
    what
        What is being done, with its place, e.g. ``"writing [0:32, 0:512, 0:512] of out.zarr"``.
    decoding
        Whether errors of codecs (``RuntimeError``, ``ValueError`` ...) mean damaged data, too.
    hints
        What to do, by ``errno``.

    Raises
    ------
    StorageError
        In place of an ``OSError`` (`DiskFullError` where space ran out, `DeniedError` where a right is missing) or
        whatever an object store raises; with ``decoding``, of any that is no `VimvolError`.
    """
    try:
        yield
    except VimvolError:
        raise
    except OSError as error:
        hint = hints.get(error.errno or 0, "check the storage, then run again; finished blocks are kept")
        reason = error.strerror or one_line(error)
        if error.errno and "errno = " in reason:  # of what HDF5 says, the number alone is for people
            reason = os.strerror(error.errno)
        kind = KINDS.get(error.errno or 0, StorageError)
        inside = kind is DeniedError and error.filename is not None and str(error.filename) not in what
        place = f" ({error.filename})" if inside else ""
        raise kind(f"{what}: {reason}{place}; {hint}") from error
    except MemoryError:
        raise
    except Exception as error:
        if type(error).__module__.split(".")[0] in _REMOTE or _from_afar(error):
            raise StorageError(f"{what}: {one_line(error)}; check address, network and credentials") from error
        if not decoding:
            raise
        raise StorageError(
            f"{what}: {one_line(error)}; the stored data are damaged or of an unknown encoding, restore this part"
        ) from error


@contextlib.contextmanager
def as_given() -> Iterator[None]:
    """Make of a missing right a mistake of the user: around the reading of what was given, before anything is written.

    Also a decorator.

    Raises
    ------
    InputError
        In place of `DeniedError`.
    """
    try:
        yield
    except DeniedError as error:
        raise InputError(str(error)) from error.__cause__


def _from_afar(error: BaseException) -> bool:
    """Tell whether an error was raised on the way to a store behind a URL."""
    names = (frame.f_globals.get("__name__", "") for frame, _ in traceback.walk_tb(error.__traceback__))
    return any(name == way or name.startswith(f"{way}.") for name in names for way in _WAYS)


def one_line(error: BaseException) -> str:
    """Return the text of an error on one line; its type where it has no text."""
    return " ".join(str(error).split()) or type(error).__name__
