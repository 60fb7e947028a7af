"""Times, bytes on disks and bytes of memory as people read them."""

from __future__ import annotations

from rich.filesize import decimal


def clock_text(seconds: float) -> str:
    """Return a time as ``m:ss`` or ``h:mm:ss``."""
    minutes, rest = divmod(int(seconds + 0.5), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def disk_text(size: int) -> str:
    """Return bytes in decimal units, as disks are sold."""
    return decimal(size)


def memory_text(size: int) -> str:
    """Return bytes of memory in GiB."""
    return f"{size / 2**30:.2f} GiB"
