"""What surrounds the scan in a Mamba block, on a CPU: its short convolution and its gate, each in one pass.

PyTorch takes several passes through memory for each. Shapes: L positions, D channels, W = 2 D columns, of which the
first D are what is mixed and the last D the gate; float32, or bfloat16 as int16 bits. Every function works on some of
the positions.
"""

from __future__ import annotations

from vimvol.models.loops.lanes import narrowed, widened
from vimvol.models.loops.rows import index
from vimvol.models.loops.tools import LOG2_E, compiled, exp2, f32, inlined, wide

MOST = f32(126)


@inlined
def silu(x):
    """Return x / (1 + e^-x), which is 0 where the exponential would overflow."""
    power = -LOG2_E * x
    far = power >= MOST
    return (f32(0) * x if far else x) / (f32(1) + exp2(f32(0) if far else power))


@compiled(*(f"void({t}[:,::1], f4[:,::1], f4[::1], b1, i8, i8, f4[:,::1])" for t in ("f4", "i2")))
def convolve(z, weight, bias, back, begin, end, out):
    """Write ``silu(bias + sum over j of weight[j] * z[l - j])`` to ``out``; ``z[l + j]`` where ``back``.

    Parameters
    ----------
    z
        (L, W); before the first position, or behind the last, it is 0.
    weight, bias
        (taps, D), of which the first belongs to the position itself, and (D,).
    begin, end
        Positions to write.
    out
        (L, D).
    """
    wide()
    (taps, channels), length = weight.shape, len(z)
    for place in range(begin, end):
        at = index(place)
        for i in range(channels):
            k = index(i)
            out[at, k] = bias[k] + weight[0, k] * widened(z[at, k])
        for j in range(1, taps):
            seen = place + j if back else place - j
            if 0 <= seen < length:
                other, tap = index(seen), index(j)
                for i in range(channels):
                    k = index(i)
                    out[at, k] += weight[tap, k] * widened(z[other, k])
        for i in range(channels):
            k = index(i)
            out[at, k] = silu(out[at, k])


@compiled(*(f"void(f4[:,::1], f4[:,::1], {t}[:,::1], f4, i8, i8, {t}[:,::1])" for t in ("f4", "i2")))
def gate(first, second, z, factor, begin, end, out):
    """Write ``factor * (first + second) * silu(the last D columns of z)`` to ``out``; all are (L, D) but z (L, W)."""
    wide()
    channels = first.shape[1]
    behind = z.shape[1] - channels
    for place in range(begin, end):
        at = index(place)
        for i in range(channels):
            k = index(i)
            given = z[at, index(behind) + k]
            value = (first[at, k] + second[at, k]) * silu(widened(given)) * factor
            out[at, k] = narrowed(value, given)
