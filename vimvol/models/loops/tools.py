"""What compiled loops are made with: the decorator, polynomials, and bfloat16.

Importing a module of such loops compiles them, or loads what an earlier process compiled from the cache on the disk.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba.core import cgutils
from numba.extending import intrinsic

from vimvol import jit

f32 = np.float32
LOG2_E, LN_2 = f32(1.4426950408889634), f32(0.6931471805599453)
ROUND = f32(1.5 * 2**23)  # the last bits of a float of this size are an integer
LEAST = f32(-126)  # 2^LEAST is the smallest normal number
MANTISSA = np.int32(23)
# 2^f for |f| <= 1/2 and exact at 0, fitted for the least relative error, 9e-8.
P1, P2, P3, P4, P5 = (f32(v) for v in (0.6931469776, 0.2402224207, 0.0555073377, 0.0096715132, 0.0013264720))


def compiled(*signatures: str, sums: bool = False) -> Any:  # noqa: ANN401 - numba's dispatcher
    """Compile for these signatures alone; with ``sums``, sums may be taken in another order."""
    fast = {"contract", "nsz"} | ({"reassoc"} if sums else set())
    return jit.compiled(*signatures, error_model="numpy", fastmath=fast)


# A function that stays one of its own is there once a process. One that compiles and one that loads take it from
# different kernels, each of which may have joined multiplications and additions otherwise: results would differ.
inlined = numba.njit(nogil=True, forceinline=True, error_model="numpy", fastmath={"contract", "nsz"})
summing = numba.njit(nogil=True, forceinline=True, error_model="numpy", fastmath={"contract", "nsz", "reassoc"})


@intrinsic
def _bits(_context: Any, _x: Any) -> Any:  # noqa: ANN401
    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:  # noqa: ANN401
        return builder.bitcast(arguments[0], ir.IntType(32))

    return numba.int32(numba.float32), generate


@intrinsic
def _float(_context: Any, _x: Any) -> Any:  # noqa: ANN401
    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:  # noqa: ANN401
        return builder.bitcast(arguments[0], ir.FloatType())

    return numba.float32(numba.int32), generate


@intrinsic
def wide(_context: Any) -> Any:  # noqa: ANN401
    """Have the loops of the function that calls this use registers of 512 bits, where the processor has them.

    For most Intel processors LLVM prefers 256 bits, since the first ones with 512 ran slower for all that followed. Two
    of their three vector units do nothing then, which costs arithmetic loops up to half of their speed.
    """

    def generate(context: Any, builder: Any, _signature: Any, _arguments: Any) -> Any:  # noqa: ANN401
        # llvmlite knows attributes by name alone, and would refuse one with a value
        set.add(builder.function.attributes, '"prefer-vector-width"="512"')
        return context.get_dummy_value()

    return numba.void(), generate


@intrinsic
def multiply_add(_context: Any, _x: Any, _y: Any, _z: Any) -> Any:  # noqa: ANN401
    """Return ``x * y + z`` of float32: in one instruction, rounded once, where the processor has it."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:  # noqa: ANN401
        kind = ir.FloatType()
        function = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(kind, [kind, kind, kind]), "llvm.fmuladd.f32"
        )
        return builder.call(function, arguments)

    return numba.float32(numba.float32, numba.float32, numba.float32), generate


@inlined
def _power(rounded, f):
    """Return 2^(k + f) of an integer k, given as ``k + ROUND``, and |f| <= 1/2."""
    p = ((((P5 * f + P4) * f + P3) * f + P2) * f + P1) * f + f32(1)
    return _float(np.int32(_bits(p) + np.int32(_bits(rounded) << MANTISSA)))


@inlined
def exp2(x):
    """Return 2^x for x < 127, 2^-126 where it is less. Relative error 1.5e-7."""
    x = x if x > LEAST else LEAST
    rounded = x + ROUND
    return _power(rounded, x - (rounded - ROUND))


@inlined
def exp2_product(x, y):
    """Return ``exp2(x * y)``."""
    return exp2(x * y)


@inlined
def exp2_near(x, y):
    """Return ``exp2(x * y)`` where the product is known to be `LEAST` to 127, in fewer instructions."""
    rounded = multiply_add(x, y, ROUND)
    return _power(rounded, multiply_add(x, y, ROUND - rounded))


@intrinsic
def fetch(_context: Any, _address: Any) -> Any:  # noqa: ANN401
    """Ask for the cache line at an address, which need not exist, without waiting for it."""

    def generate(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:  # noqa: ANN401
        kind = ir.IntType(32)
        pointer = builder.inttoptr(arguments[0], ir.IntType(8).as_pointer())
        asked = ir.FunctionType(ir.VoidType(), [pointer.type, kind, kind, kind])
        function = cgutils.get_or_insert_function(builder.module, asked, "llvm.prefetch.p0")
        reading, second_level, data = (ir.Constant(kind, value) for value in (0, 2, 1))
        builder.call(function, [pointer, reading, second_level, data])
        return context.get_dummy_value()

    return numba.void(numba.intp), generate
