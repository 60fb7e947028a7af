"""Compiled loops: one decorator, so that every kernel is compiled, cached and threaded by the same rules."""

from __future__ import annotations

import contextlib
import functools
import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any, TypeVar

import numba
import numpy as np
from numba.core.caching import FunctionCache
from numba.core.dispatcher import Dispatcher

Function = TypeVar("Function", bound=Callable[..., Any])


def compiled(*signatures: str, **options: Any) -> Callable[[Function], Function]:  # noqa: ANN401 - whatever numba takes
    """Compile a function of numbers and arrays, at its first call or for some signatures at once.

    The machine code is kept on disk beside the source or in the user's cache folder; where neither can be written,
    every process compiles anew. The function takes one thread and releases the lock of the interpreter.

    Parameters
    ----------
    *signatures
        Compile for these alone, when the function is defined, in their order, so that processes that do so at the
        same time write the same files, each as a whole.
    **options
        More options of ``numba.njit``, e.g. ``fastmath``, ``error_model``.
    """

    def decorate(function: Function) -> Function:
        result: Any = numba.njit(nogil=True, **options)(function)
        with contextlib.suppress(RuntimeError):  # no place for a cache
            result._cache = _Cache(function)
        for signature in signatures:
            result.compile(signature)
        if signatures:
            result.disable_compile()
        return result  # type: ignore[no-any-return]

    return decorate


class _Cache(FunctionCache):  # type: ignore[misc]
    """numba's cache on disk, which besides knows the functions and constants that are compiled into this one.

    numba compiles anew where the file of a function changed, but takes what it finds where another did that these are
    from: after an upgrade, or an edit, old machine code would run on arrays of a new layout.
    """

    def load_overload(self, sig: Any, target_context: Any) -> Any:  # noqa: ANN401 - numba has no types
        """Return what is kept; none where it cannot be read."""
        try:
            return super().load_overload(sig, target_context)
        except OSError:
            return None

    def save_overload(self, sig: Any, data: Any) -> None:  # noqa: ANN401
        """Keep machine code, unless it cannot be written."""
        try:
            super().save_overload(sig, data)
        except OSError:
            return

    def _index_key(self, sig: Any, codegen: Any) -> tuple[Any, ...]:  # noqa: ANN401
        functions = _compiled_in(self._py_func)
        digests = sorted({_digest(function.__code__.co_filename) for function in functions})
        constants = sorted({text for function in functions for text in _constants(function)})
        return (*super()._index_key(sig, codegen), tuple(digests), tuple(constants))


def _compiled_in(function: FunctionType) -> list[FunctionType]:
    """Return a function and all compiled ones that it calls, and they call."""
    found: dict[CodeType, FunctionType] = {}
    left = [function]
    while left:
        one = left.pop()
        if one.__code__ not in found:
            found[one.__code__] = one
            left += _called(one)
    return list(found.values())


def _constants(function: FunctionType) -> Iterator[str]:
    """Yield the numbers of other modules, or of its own, that a function names, with their values."""
    for name in _names(function.__code__):
        value = function.__globals__.get(name)
        if isinstance(value, int | float | np.generic | tuple):
            yield f"{name} = {value!r}"


def _called(function: FunctionType) -> Iterator[FunctionType]:
    """Yield the functions that a compiled one may call, by its names and what it is closed over.

    An intrinsic is made by Python that runs while it is compiled, so what that calls counts, too, but for the compiler.
    """
    closed = [cell.cell_contents for cell in function.__closure__ or ()]
    for value in [*map(function.__globals__.get, _names(function.__code__)), *closed]:
        if isinstance(value, Dispatcher):
            yield value.py_func
        elif isinstance(definition := getattr(value, "_defn", None), FunctionType):  # of an intrinsic
            yield definition
        elif isinstance(value, FunctionType) and _is_own(value):
            yield value
        elif isinstance(value, type) and _is_own(value):
            yield from (member for member in vars(value).values() if isinstance(member, FunctionType))


def _is_own(value: FunctionType | type) -> bool:
    return value.__module__.partition(".")[0] not in ("numba", "llvmlite", "numpy")


def _names(code: CodeType) -> list[str]:
    """Return the names in a function, and in those that are defined within it."""
    inner = [name for constant in code.co_consts if isinstance(constant, CodeType) for name in _names(constant)]
    return [*code.co_names, *inner]


@functools.cache
def _digest(path: str) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()
