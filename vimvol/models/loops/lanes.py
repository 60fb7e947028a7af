"""Bfloat16 in compiled loops, and explicit vector instructions for loops over the few channels of a pixel.

LLVM makes none of such loops by itself: arrays may overlap, and to find out takes as long as the loop. An instruction
works on `LANES` values in a row, of arrays (M,), from an index on: float32, or bfloat16 as int16 bits, which are
computed in float32 and rounded once.
"""

from __future__ import annotations

from typing import Any

import numba
from llvmlite import ir
from numba.core import cgutils
from numba.extending import intrinsic

LANES = 16
"""Values of a vector: a register of 512 bits, or two of 256."""

FLAGS = ("contract", "nsz")

_FLOAT, _INT, _SHORT = ir.FloatType(), ir.IntType(32), ir.IntType(16)


@intrinsic
def scaled_lanes(_context: Any, x: Any, i: Any, vectors: Any, j: Any, slope: Any, out: Any, to: Any) -> Any:  # noqa: ANN401
    """Write ``(x - mean) * factor + shift``, what is negative multiplied by ``slope``.

    Mean, factor and shift are the rows of ``vectors`` (3, K), from ``j`` on.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:  # noqa: ANN401
        lanes = _Lanes(context, builder, signature, arguments)
        rows = [ir.Constant(ir.IntType(64), row) for row in range(3)]
        value = lanes.load(0, arguments[1])
        mean, factor, shift = (lanes.load(2, row, arguments[3]) for row in rows)
        value = builder.fadd(builder.fmul(builder.fsub(value, mean, FLAGS), factor, FLAGS), shift, FLAGS)
        kept = builder.fcmp_ordered(">=", value, ir.Constant(value.type, [0.0] * LANES))
        value = builder.select(kept, value, builder.fmul(value, lanes.spread(4), FLAGS))
        return lanes.store(value, 5, arguments[6])

    return numba.void(x, i, vectors, j, slope, out, to), generate


@intrinsic
def blended_lanes(_context: Any, x: Any, i: Any, near: Any, j: Any, far: Any, out: Any, to: Any) -> Any:  # noqa: ANN401
    """Write ``near * x[i] + far * x[j]``; both weights are float32."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:  # noqa: ANN401
        lanes = _Lanes(context, builder, signature, arguments)
        parts = [builder.fmul(lanes.load(0, arguments[at]), lanes.spread(at + 1), FLAGS) for at in (1, 3)]
        return lanes.store(builder.fadd(*parts, FLAGS), 5, arguments[6])

    return numba.void(x, i, near, j, far, out, to), generate


@intrinsic
def maximum_lanes(_context: Any, x: Any, i: Any, j: Any, k: Any, m: Any, out: Any, to: Any) -> Any:  # noqa: ANN401
    """Write the maximum of x at four indices; what is no number is more than any."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:  # noqa: ANN401
        lanes = _Lanes(context, builder, signature, arguments)
        most, *others = (lanes.load(0, index) for index in arguments[1:5])
        for other in others:
            kept = builder.or_(builder.fcmp_ordered(">=", most, other), builder.fcmp_unordered("uno", most, most))
            most = builder.select(kept, most, other)
        return lanes.store(most, 5, arguments[6])

    return numba.void(x, i, j, k, m, out, to), generate


@intrinsic
def widened(_context: Any, x: Any) -> Any:  # noqa: ANN401
    """Return a float32 as it is, and the bits of a bfloat16, given as int16, as a float32."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:  # noqa: ANN401
        if x == numba.float32:
            return arguments[0]
        return _widen(builder, arguments[0])

    return numba.float32(x), generate


@intrinsic
def narrowed(_context: Any, x: Any, like: Any) -> Any:  # noqa: ANN401
    """Return a float32 as it is if ``like`` is one, and otherwise rounded to a bfloat16, as the bits of an int16."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:  # noqa: ANN401
        if like == numba.float32:
            return arguments[0]
        return _narrow(builder, arguments[0])

    return like(x, like), generate


class _Lanes:
    """Loads and stores of vectors in the arrays that an intrinsic was given, by the number of the argument."""

    def __init__(self, context: Any, builder: Any, signature: Any, arguments: Any) -> None:  # noqa: ANN401
        self.context, self.builder, self.kinds, self.arguments = context, builder, signature.args, arguments

    def load(self, number: int, *index: Any) -> Any:  # noqa: ANN401
        """Return `LANES` values as float32."""
        value = self.builder.load(self._place(number, index), align=2)
        return _widen(self.builder, value) if self._element(number) is _SHORT else value

    def store(self, value: Any, number: int, *index: Any) -> Any:  # noqa: ANN401
        """Write float32 values, rounded where the array has bfloat16; return what a function without a value does."""
        value = _narrow(self.builder, value) if self._element(number) is _SHORT else value
        self.builder.store(value, self._place(number, index), align=2)
        return self.context.get_dummy_value()

    def spread(self, number: int) -> Any:  # noqa: ANN401
        """Return a vector of a number that was given."""
        empty = ir.Constant(ir.VectorType(_FLOAT, LANES), ir.Undefined)
        one = self.builder.insert_element(empty, self.arguments[number], ir.Constant(_INT, 0))
        return self.builder.shuffle_vector(one, empty, ir.Constant(ir.VectorType(_INT, LANES), [0] * LANES))

    def _element(self, number: int) -> Any:  # noqa: ANN401
        return _SHORT if self.kinds[number].dtype == numba.int16 else _FLOAT

    def _place(self, number: int, index: Any) -> Any:  # noqa: ANN401
        kind = self.kinds[number]
        array = self.context.make_array(kind)(self.context, self.builder, self.arguments[number])
        at = cgutils.get_item_pointer(self.context, self.builder, kind, array, index)
        return self.builder.bitcast(at, ir.VectorType(self._element(number), LANES).as_pointer())


def _same(kind: Any, like: Any) -> Any:  # noqa: ANN401
    """Return a type, or the vector of it that has as many lanes as ``like``."""
    return ir.VectorType(kind, like.count) if isinstance(like, ir.VectorType) else kind


def _constant(kind: Any, value: int) -> Any:  # noqa: ANN401
    return ir.Constant(kind, [value] * kind.count if isinstance(kind, ir.VectorType) else value)


def _widen(builder: Any, bits: Any) -> Any:  # noqa: ANN401
    """Return the float32 of the bits of a bfloat16, or of several."""
    kind = _same(_INT, bits.type)
    high = builder.shl(builder.zext(bits, kind), _constant(kind, 16))
    return builder.bitcast(high, _same(_FLOAT, bits.type))


def _narrow(builder: Any, value: Any) -> Any:  # noqa: ANN401
    """Return the bits of the bfloat16 next to a float32, or to several."""
    kind = _same(_INT, value.type)
    bits = builder.bitcast(value, kind)
    odd = builder.and_(builder.lshr(bits, _constant(kind, 16)), _constant(kind, 1))
    nearest = builder.add(bits, builder.add(odd, _constant(kind, 0x7FFF)))
    # Rounding would carry the bits of what is no number into the sign.
    number = builder.fcmp_ordered("ord", value, value)
    chosen = builder.select(number, nearest, _constant(kind, 0x7FC00000))
    return builder.trunc(builder.lshr(chosen, _constant(kind, 16)), _same(_SHORT, value.type))
