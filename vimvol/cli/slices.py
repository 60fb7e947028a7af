"""Ranges of slices, and shapes, on the command line."""

from __future__ import annotations

from vimvol.errors import InputError


def slices_of(text: str, what: str) -> tuple[int, int]:
    """Return first slice, and slice after the last, of a text like ``0:112``.

    Raises
    ------
    InputError
        If it is none, or holds no slice; ``what`` names what it was given for.
    """
    begin, colon, end = text.partition(":")
    if not (colon and begin.isdecimal() and end.isdecimal()):
        raise InputError(f"{what} {text!r} is no range of slices; write it as 0:112")
    if int(begin) >= int(end):
        raise InputError(f"{what} {text} holds no slice; give the first, and the one after the last, as 0:112")
    return int(begin), int(end)


def shape_of(text: str, what: str) -> tuple[int, int, int]:
    """Return the voxels along z, y, x of a text like ``16,128,128``.

    Raises
    ------
    InputError
        If it is none; ``what`` names what it was given for.
    """
    parts = [part.strip() for part in text.split(",")]
    if len(parts) != 3 or not all(part.isdecimal() and int(part) for part in parts):
        raise InputError(f"{what} {text!r} is no shape; write voxels along z, y, x as 16,128,128")
    z, y, x = map(int, parts)
    return z, y, x
