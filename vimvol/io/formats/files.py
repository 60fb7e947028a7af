"""The files of a folder, or a sample of them, as an identity of what is stored in it."""

from __future__ import annotations

import itertools
import os
import stat
from collections.abc import Iterator
from pathlib import Path

_MOST_FILES = 2000
"""Files whose size and time are looked at."""


def stamps(folder: Path, *, portable: bool = False) -> Iterator[bytes]:
    """Yield name, size and time of the files below a folder.

    Of more than 2000 files those are looked at that are spread evenly over all, and the times of their folders, which
    tell of files that were replaced by others. A change in place of another file is not seen.

    Parameters
    ----------
    folder
        The folder.
    portable
        Leave the sizes of folders out, which depend on the file system and on what has been in them before.
    """
    few = list(itertools.islice(_files(folder), _MOST_FILES + 1))
    looked = few if len(few) <= _MOST_FILES else _spread_files(folder, _MOST_FILES)
    for name, entry in looked:
        found = entry.stat()
        size = 0 if portable and stat.S_ISDIR(found.st_mode) else found.st_size
        yield f"{name}:{size}:{found.st_mtime_ns};".encode()


def entries(folder: Path) -> list[os.DirEntry[str]]:
    """Return what lies right in a folder, by name."""
    with os.scandir(folder) as found:
        return sorted(found, key=lambda entry: entry.name)


def _files(folder: Path, prefix: str = "") -> Iterator[tuple[str, os.DirEntry[str]]]:
    for entry in entries(folder):
        if entry.is_dir():
            yield from _files(Path(entry.path), f"{prefix}{entry.name}/")
        else:
            yield prefix + entry.name, entry


def _spread_files(folder: Path, most: int, prefix: str = "") -> Iterator[tuple[str, os.DirEntry[str] | Path]]:
    """Yield a folder and at most so many files, spread evenly over its entries and those of the folders in it."""
    yield prefix, folder
    inside = entries(folder)
    folders = sum(entry.is_dir() for entry in inside)
    if len(inside) <= most:  # folders share what files leave: of 8 for 3 folders, they get 2, 3 and 3
        after = iter(_shares(most - len(inside) + folders, folders))
        shares = [next(after) if entry.is_dir() else 1 for entry in inside]
    else:
        shares = _shares(most, len(inside))
    for entry, share in zip(inside, shares, strict=True):
        if share and entry.is_dir():
            yield from _spread_files(Path(entry.path), share, f"{prefix}{entry.name}/")
        elif share:
            yield prefix + entry.name, entry


def _shares(number: int, parts: int) -> list[int]:
    return [(i + 1) * number // parts - i * number // parts for i in range(parts)]
