"""What computing takes of a process: processor time, memory at its peak, bytes read and written.

Linux tells all of it by ``/proc``; other systems processor time and, of the memory, the peak since the process began.
"""

from __future__ import annotations

import contextlib
import ctypes
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

if sys.platform != "win32":
    import resource

_PROC = Path("/proc/self")
_RESET_PEAK = "5"
"""What makes a process forget its peak, see proc(5) on ``clear_refs``."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What some blocks took.

    Attributes
    ----------
    cpu
        Seconds of processor time, of all threads.
    peak
        Bytes of memory of the process at most, whatever holds them; 0 where it is not known.
    read, written
        Bytes that files gave and took, compressed as they are stored; 0 where it is not known.
    """

    cpu: float = 0.0
    peak: int = 0
    read: int = 0
    written: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.cpu + other.cpu, max(self.peak, other.peak), self.read + other.read, self.written + other.written
        )


class Meter:
    """Measures the calls of this process, several of which may run at once in threads.

    What threads take together is counted once, with the one that asks first.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._running = 0
        self._stage: str | None = None
        self._since = Usage()

    def begin(self, stage: str) -> None:
        """Begin a call; with the first of a stage the peak of the memory begins anew."""
        with self._lock:
            if not self._running:
                if stage != self._stage:
                    forget_peak()
                self._stage, self._since = stage, _counters()
            self._running += 1

    def take(self) -> Usage:
        """Return what was taken since this was last asked, or since the call began."""
        with self._lock:
            before, now = self._since, _counters()
            self._since = now
        return Usage(now.cpu - before.cpu, now.peak, now.read - before.read, now.written - before.written)

    def end(self) -> None:
        """End a call."""
        with self._lock:
            self._running -= 1


METER = Meter()
"""The one of this process."""


def memory_of_process() -> int:
    """Return the bytes of memory that this process has now; 0 where it is not known."""
    return _kibibytes("VmRSS") << 10


def release_memory() -> None:
    """Give memory back to the system that was freed but is kept to be used again, where glibc does that."""
    with contextlib.suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)


def _counters() -> Usage:
    """Return what this process took since it began."""
    read = written = 0
    with contextlib.suppress(OSError, ValueError):
        numbers = dict(line.split(": ") for line in (_PROC / "io").read_text().splitlines())
        read, written = int(numbers["rchar"]), int(numbers["wchar"])
    return Usage(time.process_time(), peak_of_process(), read, written)


def peak_of_process() -> int:
    """Return the bytes of memory that this process had at most since `forget_peak`; 0 where it is not known.

    On other systems than Linux, since it began.
    """
    if found := _kibibytes("VmHWM"):
        return found << 10
    if sys.platform == "win32":
        return 0
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most << 10


def _kibibytes(name: str) -> int:
    """Return a number of ``/proc/self/status``; 0 where there is none."""
    with contextlib.suppress(OSError):
        for line in (_PROC / "status").read_text().splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1])
    return 0


def forget_peak() -> None:
    """Let the peak of this process begin anew, where the system can."""
    with contextlib.suppress(OSError):
        (_PROC / "clear_refs").write_text(_RESET_PEAK)
