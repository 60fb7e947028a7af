"""The root mean square norm of a sum, on a CPU, in one pass.

Shapes: L positions, E channels; float32, or bfloat16 as int16 bits. Every function works on some of the positions.
"""

from __future__ import annotations

import math

from vimvol.models.loops.lanes import narrowed, widened
from vimvol.models.loops.rows import index
from vimvol.models.loops.tools import compiled, f32, summing, wide


@summing
def squares(x):
    """Return the sum of the squares of a vector."""
    wide()
    total = f32(0)
    for k in range(len(x)):
        total += x[k] * x[k]
    return total


@compiled(*(f"void({t}[:,::1], f4[:,::1], f4[::1], f4, i8, i8, f4[:,::1], {t}[:,::1])" for t in ("f4", "i2")))
def scale_sum(h, residual, weight, epsilon, begin, end, total, out):
    """Write ``h + residual`` to total, and that by ``weight`` and its root mean square to out; all are (L, E)."""
    wide()
    channels = h.shape[1]
    for place in range(begin, end):
        at = index(place)
        for i in range(channels):
            k = index(i)
            total[at, k] = residual[at, k] + widened(h[at, k])
        factor = f32(1 / math.sqrt(squares(total[place]) / channels + epsilon))
        for i in range(channels):
            k = index(i)
            out[at, k] = narrowed(total[at, k] * factor * weight[k], h[at, k])
