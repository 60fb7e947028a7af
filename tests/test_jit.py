import os
import subprocess
import sys

import numpy as np
import pytest
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


SCALED = """
from helper import {names}
from vimvol.jit import compiled

@compiled({signatures})
def call(x):
    return {returned}

print(call(1.0))
"""
HELPER = """
import numba

FACTOR = {factor}

@numba.njit
def twice(x):
    return x * FACTOR

def bound(inner):
    @numba.njit
    def outer(x):
        return inner(x)
    return outer

scaled = bound(twice)
"""


@pytest.mark.parametrize("signatures", ["", '"f8(f8)"'])
@pytest.mark.parametrize(("names", "returned"), [("scaled", "scaled(x)"), ("FACTOR", "FACTOR * x")])
def test_what_a_function_is_compiled_with_is_compiled_anew_once_its_file_changed(tmp_path, signatures, names, returned):
    (tmp_path / "main.py").write_text(SCALED.format(names=names, returned=returned, signatures=signatures))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])}

    def run(factor: float) -> str:
        (tmp_path / "helper.py").write_text(HELPER.format(factor=factor))
        command = [sys.executable, "-B", str(tmp_path / "main.py")]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.strip()

    assert [run(2.0), run(2.0), run(3.0), run(2.0)] == ["2.0", "2.0", "3.0", "2.0"]
    assert list(tmp_path.glob("__pycache__/*.nbc")), "nothing was kept, so nothing was tested"


INTRINSIC = """
import numba
from numba.extending import intrinsic
from deeper import Maker

@intrinsic
def scaled(context, x):
    def generate(context, builder, signature, arguments):
        return Maker(builder).make(arguments[0])
    return x(x), generate
"""
DEEPER = """
from llvmlite import ir

class Maker:
    def __init__(self, builder):
        self.builder = builder

    def make(self, value):
        return self.builder.fmul(value, ir.Constant(value.type, {factor}))
"""


def test_what_an_intrinsic_is_made_with_counts(tmp_path):
    """A class of another file that the function within the intrinsic calls."""
    (tmp_path / "main.py").write_text(
        SCALED.format(names="scaled", returned="scaled(x)", signatures='"f8(f8)"').replace("helper", "intrinsics")
    )
    (tmp_path / "intrinsics.py").write_text(INTRINSIC)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])}

    def run(factor: float) -> str:
        (tmp_path / "deeper.py").write_text(DEEPER.format(factor=factor))
        command = [sys.executable, "-B", str(tmp_path / "main.py")]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.strip()

    assert [run(2.0), run(2.0), run(3.0)] == ["2.0", "2.0", "3.0"]
    assert list(tmp_path.glob("__pycache__/*.nbc")), "nothing was kept, so nothing was tested"


def test_loops_know_the_files_that_they_are_made_of():
    """Such as that of the rounding to bfloat16, which only intrinsics call."""
    from vimvol import jit
    from vimvol.models.loops import mixing, norm, resize, rms

    for kernel in (norm.moments, norm.scale, mixing.gate, resize.double, rms.scale_sum):
        files = {function.__code__.co_filename.rsplit("/", 1)[-1] for function in jit._compiled_in(kernel.py_func)}
        assert "lanes.py" in files
        assert any(function.__name__ in ("_widen", "_narrow") for function in jit._compiled_in(kernel.py_func))
