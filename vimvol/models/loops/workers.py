"""Threads for compiled functions that let go of Python's lock.

numba's own layers of threads either fail when two Python threads enter them, or bring another OpenMP beside PyTorch's.
Here as many threads work as PyTorch would use, so that whoever limits PyTorch, as a Dask worker does, limits these too.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Lock

import torch

Task = Callable[[], object]

_lock = Lock()
_helpers: ThreadPoolExecutor | None = None


def run(tasks: Sequence[Task]) -> None:
    """Run all tasks, in any order, on at most `torch.get_num_threads` threads, of which the caller's is one.

    An exception in a task is raised here, once no task runs any more.
    """
    threads = min(torch.get_num_threads(), len(tasks))
    if threads < 2:
        for task in tasks:
            task()
        return
    queue = iter(tasks)  # a list iterator hands an item to one thread only
    futures = [_executor().submit(_drain, queue) for _ in range(threads - 1)]
    try:
        _drain(queue)
    finally:
        # Helpers that are still busy for another caller have nothing left to do here.
        begun = [future for future in futures if not future.cancel()]
        errors = [error for future in begun if (error := future.exception()) is not None]
    if errors:
        raise errors[0]


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
    global _helpers, _lock
    _helpers, _lock = None, Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
