"""Threads for compiled functions that let go of Python's lock.

On Linux they are those of PyTorch's OpenMP: those of another pool would share the cores with them, since OpenMP's
threads wait busily for the next operator of a network. numba's own layers of threads either fail when two Python
threads enter them, or bring another OpenMP. As many threads work as PyTorch would use, so that whoever limits PyTorch,
as a Dask worker does, limits these too.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

Task = Callable[[], object]

_CALLBACK = ctypes.CFUNCTYPE(None, ctypes.c_void_p)

_lock = threading.Lock()
_helpers: ThreadPoolExecutor | None = None
_forked = False


def run(tasks: Sequence[Task]) -> None:
    """Run all tasks, in any order, on at most `torch.get_num_threads` threads, of which the caller's is one.

    An exception in a task is raised here, once no task runs any more.
    """
    threads = torch.get_num_threads()
    if min(threads, len(tasks)) < 2:
        for task in tasks:
            task()
        return
    queue = iter(tasks)  # a list iterator hands an item to one thread only
    # A forked process has none of its parent's threads, and OpenMP would wait for them.
    team = None if _forked else _team()
    errors = _on_helpers(queue, min(threads, len(tasks))) if team is None else _on_team(team, queue, threads)
    if errors:
        raise errors[0]


@functools.cache
def _team() -> Any:  # noqa: ANN401 - a foreign function
    """Return the entry to a parallel region of the OpenMP that PyTorch is linked with; none where it has no such.

    GNU's OpenMP exports it, and LLVM's and Intel's do for programs that GNU's compiler made.
    """
    try:
        # A name is looked up in the library and in those that it depends on, so this is PyTorch's OpenMP, no other.
        return ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libtorch_cpu.so")).GOMP_parallel
    except (OSError, AttributeError):
        return None


def _on_team(team: Any, queue: Iterator[Task], threads: int) -> list[BaseException]:  # noqa: ANN401
    """Run a queue on OpenMP's threads; return what was raised.

    There are always as many as PyTorch uses, as a team of another size would be made anew.
    """
    errors: list[BaseException] = []

    def part(_: object) -> None:
        try:
            _drain(queue)
        except BaseException as error:  # behind the foreign function it would be lost
            errors.append(error)

    with _signals_caught(part, errors):
        team(_CALLBACK(part), None, ctypes.c_uint(threads), ctypes.c_uint(0))
    return errors


@contextlib.contextmanager
def _signals_caught(callback: object, errors: list[BaseException]) -> Iterator[None]:
    """Collect what the handler of a signal raises at the edges of a callback, outside its ``try``.

    Python could only report it as unraisable there, and go on. Signals are handled in the main thread alone.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    hook = sys.unraisablehook

    def keep(raised: Any) -> None:  # noqa: ANN401 - sys.UnraisableHookArgs
        if raised.object is callback and raised.exc_value is not None:
            errors.append(raised.exc_value)
        else:
            hook(raised)

    sys.unraisablehook = keep
    try:
        yield
    finally:
        sys.unraisablehook = hook


def _on_helpers(queue: Iterator[Task], threads: int) -> list[BaseException]:
    """Run a queue on the caller's thread and on helpers of our own; return what was raised."""
    errors: list[BaseException] = []
    futures = [_executor().submit(_drain, queue) for _ in range(threads - 1)]
    try:
        _drain(queue)
    except BaseException as error:  # raised by the caller, once the helpers are done
        errors.append(error)
    # Helpers that are still busy for another caller have nothing left to do here.
    begun = [future for future in futures if not future.cancel()]
    return errors + [raised for future in begun if (raised := future.exception()) is not None]


def _drain(queue: Iterator[Task]) -> None:
    for task in queue:
        task()


def _executor() -> ThreadPoolExecutor:
    global _helpers
    with _lock:
        if _helpers is None:
            _helpers = ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="scan")
        return _helpers


def _forget() -> None:
    """Start anew in a forked process, which has none of its parent's threads."""
    global _helpers, _lock, _forked
    _helpers, _lock, _forked = None, threading.Lock(), True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
