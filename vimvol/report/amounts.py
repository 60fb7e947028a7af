"""Times, bytes on disks and bytes of memory as people read them."""

from __future__ import annotations

from collections.abc import Mapping

from rich.filesize import decimal


def clock_text(seconds: float) -> str:
    """Return a time as ``m:ss`` or ``h:mm:ss``."""
    minutes, rest = divmod(int(seconds + 0.5), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def count_text(number: int, one: str, several: str = "") -> str:
    """Return a number of things: ``1 segment``, ``2 segments``; where the plural is no added s, it is ``several``."""
    return f"{number} {one if number == 1 else several or one + 's'}"


def parts_text(seconds: float, parts: Mapping[str, float], rest: str) -> str:
    """Return a time and what it went to, whole seconds; parts of less than half a second are left to the rest.

    Parameters
    ----------
    seconds
        The time.
    parts
        Seconds by what took them, as ``in the stages``.
    rest
        What the others went to.
    """
    shown = {what: round(part) for what, part in parts.items() if round(part)}
    if not shown:
        return f"{seconds:.0f} s"
    left = max(0, round(seconds) - sum(shown.values()))
    texts = [f"{part} {what}" for what, part in ({rest: left} | shown).items() if part]
    return f"{seconds:.0f} s: {', '.join(texts)}"


def disk_text(size: int) -> str:
    """Return bytes in decimal units, as disks are sold."""
    return decimal(size)


def memory_text(size: int) -> str:
    """Return bytes of memory in GiB."""
    return f"{size / 2**30:.2f} GiB"
