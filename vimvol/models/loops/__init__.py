"""Loops over arrays that numba compiles for the CPU; `load` gives a module of them."""

from __future__ import annotations

import functools
import importlib
from types import ModuleType


@functools.cache
def load(name: str) -> ModuleType | None:
    """Return a module of this package, compiled, or loaded from the cache of an earlier process.

    None where numba cannot be imported, or is switched off (``NUMBA_DISABLE_JIT``): Python would be far too slow.
    """
    try:
        from numba import config

        if getattr(config, "DISABLE_JIT", False):
            return None
        return importlib.import_module(f"vimvol.models.loops.{name}")
    except ImportError:
        return None
