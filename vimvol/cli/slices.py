"""Ranges of slices on the command line."""

from __future__ import annotations

from vimvol.errors import InputError


def slices_of(text: str, what: str) -> tuple[int, int]:
    """Return first slice, and slice after the last, of a text like ``0:112``.

    Raises
    ------
    InputError
        If it is none; ``what`` names what it was given for.
    """
    begin, colon, end = text.partition(":")
    if not (colon and begin.isdecimal() and end.isdecimal()):
        raise InputError(f"{what} {text!r} is no range of slices; write it as 0:112")
    return int(begin), int(end)
