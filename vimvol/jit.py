"""Compiled loops: one decorator, so that every kernel is compiled, cached and threaded by the same rules."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numba

Function = TypeVar("Function", bound=Callable[..., Any])


def compiled(**options: Any) -> Callable[[Function], Function]:  # noqa: ANN401 - whatever numba takes
    """Compile a function of numbers and arrays at its first call.

    The machine code is kept on disk beside the source or in the user's cache folder; where neither can be written,
    every process compiles anew. The function takes one thread and releases the lock of the interpreter.

    Parameters
    ----------
    **options
        More options of ``numba.njit``, e.g. ``fastmath``, ``error_model``.
    """

    def decorate(function: Function) -> Function:
        try:
            result: Function = numba.njit(cache=True, nogil=True, **options)(function)
        except RuntimeError:  # no place for a cache
            result = numba.njit(nogil=True, **options)(function)
        return result

    return decorate
