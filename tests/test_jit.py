import numpy as np
from numba.core import caching

from vimvol.jit import compiled


def total(values):
    result = 0.0
    for value in values:
        result += value
    return result


def test_a_compiled_function_computes_the_same():
    assert compiled()(total)(np.arange(5.0)) == 10.0


def test_without_a_place_for_a_cache_it_is_compiled_all_the_same(monkeypatch):
    monkeypatch.setattr(caching.CacheImpl, "_locator_classes", [])
    assert compiled()(total)(np.arange(5.0)) == 10.0
