"""Addresses of volumes, ``PATH[:DATASET]``, and what can be told of them without opening anything.

Loads the standard library alone: a command finds out that an input is missing before it loads what reads one.
"""

from __future__ import annotations

import contextlib
import difflib
import re
from collections.abc import Iterator
from pathlib import Path

from vimvol.errors import InputError

_FORMAT = re.compile(r"^(?:n5|precomputed)://")
"""What may stand before a path or URL to tell the format of what is there, as in neuroglancer."""


def is_url(path: str) -> bool:
    """Tell whether ``path`` is a URL (``scheme://...``) and no path of the file system."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", path) is not None


def without_format(path: str) -> str:
    """Return a path or URL without the name of a format before it: ``precomputed://gs://bucket`` is ``gs://bucket``."""
    return _FORMAT.sub("", path)


def with_format(name: str, url: str) -> str:
    """Return a URL with the name of the format of what is there before it, unless that is zarr."""
    named = f"{name}://{url}"
    return named if _FORMAT.match(named) else url


def absolute(path: str) -> str:
    """Return a local path made absolute, so that a worker with another working directory finds it; a URL as it is.

    A ``file://`` URL is a local path. The name of a format before either stays.
    """
    plain = without_format(path)
    if plain != path:
        return path.removesuffix(plain) + absolute(plain)
    path = path.removeprefix("file://")
    return path.rstrip("/") if is_url(path) else str(_local(path).absolute())


def parse_address(address: str) -> tuple[str, str]:
    """Split ``PATH[:DATASET]``.

    A path that exists as such wins; then the longest part before a colon that exists; then the part before the last
    colon. The colons of a URL's schemes and port and of a drive letter never separate.

    Returns
    -------
    tuple of str
        Path or URL, and dataset without slashes at its ends, empty for none.
    """
    splits = list(_splits(address))
    if is_url(address):
        path, dataset = splits[0] if splits else (address, "")
    elif exists(address):
        path, dataset = address, ""
    else:
        existing = (split for split in splits if exists(split[0]))
        path, dataset = next(existing, splits[0] if splits else (address, ""))
    return path, dataset.strip("/")


def check_there(address: str) -> None:
    """Make sure that the file or folder of an address is there; what is behind a URL is not looked at.

    Raises
    ------
    InputError
        If it is not, or in a folder that may not be entered.
    """
    path = without_format(absolute(parse_address(address)[0]))
    if not is_url(path) and not exists(path):
        raise InputError(f"{path} does not exist; {_near(Path(path))}")


def check_output_there(out: str) -> None:
    """Make sure that the output of a run is there, as far as its path tells; a URL is not looked at.

    Raises
    ------
    InputError
        If it is not.
    """
    if not is_url(path := absolute(out)) and not exists(path):
        raise no_output(out)


def no_output(out: str) -> InputError:
    """Return the error for a path or URL at which there is no output of a run."""
    if text := mistaken_text(out):
        return InputError(text)
    return InputError(f"{out} does not exist, so there is no segmentation to work on; run vimvol segment first")


def mistaken_text(out: str) -> str:
    """Return what is likely wrong with the path of an output that is not there; empty where nothing shows.

    It names an array in an output, or there is something of a similar name.
    """
    if is_url(out) or exists(out):
        return ""
    for path, _ in _splits(out):
        if exists(path):
            return (
                f"{out} names what lies in {path}; give the output of a run alone, {path}, and a segmentation beside "
                "the run's own by --name"
            )
    near = _near(Path(out))
    return f"{out} does not exist; {near}" if "did you mean" in near else ""


def _splits(address: str) -> Iterator[tuple[str, str]]:
    """Yield the ways to split an address, from the last colon to the first."""
    first = 0
    if is_url(address):
        first = address.rindex("://") + 3  # the last: the name of a format may stand before a URL
        first = address.find("/", first) if "/" in address[first:] else len(address)
    elif len(address) > 2 and address[0].isalpha() and address[1] == ":" and address[2] in "\\/":
        first = 2
    colon = address.rfind(":", first)
    while colon > 0:
        yield address[:colon], address[colon + 1 :]
        colon = address.rfind(":", first, colon)


def _local(path: str) -> Path:
    try:
        return Path(path).expanduser()
    except RuntimeError:  # there is no such user, so it is a name like any other
        return Path(path)


def is_file(path: str | Path) -> bool:
    """Tell whether there is a file; of a folder, it is none.

    Raises
    ------
    InputError
        If that cannot be told for want of rights.
    """
    return exists(path) and _local(str(path)).is_file()


def exists(path: str | Path) -> bool:
    """Tell whether there is a file or folder; raises as `is_file` does."""
    try:
        return _local(str(path)).exists()
    except PermissionError:
        raise InputError(
            f"{path} lies in a folder that may not be entered; ask for the right, or choose another"
        ) from None
    except OSError:  # such as a name that is too long for one
        return False


def _near(path: Path) -> str:
    parent = path.parent
    while not exists(parent):
        path, parent = parent, parent.parent
    beside: list[str] = []
    with contextlib.suppress(OSError):  # a folder that may be entered, and not listed
        beside = [p.name for p in parent.iterdir()]
    close = difflib.get_close_matches(path.name, beside, n=3, cutoff=0.6)
    if close:
        which = "did you mean that?" if len(close) == 1 else "did you mean one of these?"
        return f"in {parent} there is {', '.join(close)}: {which}"
    return f"{parent} has no {path.name!r}: check the spelling and the working directory"
