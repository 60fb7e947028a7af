"""Memory of large maps that is kept from one forward pass on a CPU to the next.

A network allocates and frees maps of many megabytes. glibc asks the system for each and returns it, and the system
clears every page of it again, which is up to a fifth of the time of a network.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import sys
from collections.abc import Iterator, Mapping
from threading import Lock
from typing import Any

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -2, -3, -4

KEEP: Mapping[int, int] = {_MMAP_MAX: 0, _TRIM_THRESHOLD: -1, _TOP_PAD: 1 << 26}
"""Options of mallopt(3) by which all arrays lie on the heap, which does not shrink and grows by 64 MiB."""

USUAL: Mapping[int, int] = {_MMAP_MAX: 1 << 16, _MMAP_THRESHOLD: 1 << 25, _TRIM_THRESHOLD: 1 << 26, _TOP_PAD: 1 << 17}
"""Those that glibc moves to by itself where arrays are large; once any is set, it does so no longer."""

_lock = Lock()
_users = 0


@contextlib.contextmanager
def kept_memory() -> Iterator[None]:
    """Keep memory that is freed within; at the end give it back to the system.

    A process then holds on to its peak until the end. It may be entered several times at once. Only glibc on Linux
    is told; elsewhere this does nothing. In a thread other than the main one it works where all threads share the main
    heap (``MALLOC_ARENA_MAX=1`` in the environment of the process), since glibc's other heaps hold no large arrays.
    """
    global _users
    library = _glibc()
    if library is None:
        yield
        return
    with _lock:
        _users += 1
        if _users == 1:
            _set(library, KEEP)
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            if not _users:
                _set(library, USUAL)
                library.malloc_trim(0)


def _set(library: Any, options: Mapping[int, int]) -> None:  # noqa: ANN401 - ctypes has no types
    for name, value in options.items():
        library.mallopt(name, value)


@functools.cache
def _glibc() -> Any:  # noqa: ANN401
    """Return the C library of this process if it is glibc, and otherwise none."""
    if sys.platform != "linux":
        return None
    library = ctypes.CDLL(None)
    names = ("gnu_get_libc_version", "mallopt", "malloc_trim")
    return library if all(hasattr(library, name) for name in names) else None
