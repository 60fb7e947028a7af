"""Maps whose channels are innermost in memory, halved and doubled in size, on a CPU.

PyTorch doubles a single map on one thread. Shapes: C channels, a multiple of `LANES`; float32, or bfloat16 as int16
bits. Every function works on some of the rows.
"""

from __future__ import annotations

from vimvol.models.loops.lanes import LANES, blended_lanes, maximum_lanes, widened
from vimvol.models.loops.rows import index
from vimvol.models.loops.tools import compiled, f32, wide

NEAR, FAR = f32(0.75), f32(0.25)


@compiled(*(f"void({t}[:,:,::1], i8, i8, {t}[:,:,::1])" for t in ("f4", "i2")))
def halve(x, begin, end, out):
    """Write the maximum of each 2 x 2 pixels of (2 Y, 2 X, C), to rows ``begin`` to ``end`` of out (Y, X, C)."""
    wide()
    values, results = x.reshape(-1), out.reshape(-1)
    width, channels = x.shape[1], x.shape[2]
    for row in range(begin, end):
        for column in range(width // 2):
            to = (row * (width // 2) + column) * channels
            first = (2 * row * width + 2 * column) * channels
            second = first + width * channels
            for k in range(0, channels, LANES):
                a, b = first + k, second + k
                maximum_lanes(values, a, a + channels, b, b + channels, results, to + k)


@compiled(*(f"void({t}[:,:,::1], i8, i8, f4[::1], {t}[:,:,::1])" for t in ("f4", "i2")))
def double(x, begin, end, scratch, out):
    """Write (Y, X, C), interpolated bilinearly between the centres of pixels, to out (2 Y, 2 X, C).

    Rows ``begin`` to ``end`` of out are written; scratch is (X * C,). Beyond the edge lies the pixel at the edge.
    """
    wide()
    height, width, channels = x.shape
    size = width * channels
    values, results = x.reshape(-1), out.reshape(-1)
    for row in range(begin, end):
        near = row // 2
        far = min(max(near + (1 if row % 2 else -1), 0), height - 1)
        a, b = index(near * size), index(far * size)
        for i in range(size):
            k = index(i)
            scratch[k] = NEAR * widened(values[a + k]) + FAR * widened(values[b + k])
        for column in range(width):
            at = column * channels
            left, right = max(at - channels, 0), min(at + channels, size - channels)
            to = (row * 2 * width + 2 * column) * channels
            for k in range(0, channels, LANES):
                blended_lanes(scratch, at + k, NEAR, left + k, FAR, results, to + k)
                blended_lanes(scratch, at + k, NEAR, right + k, FAR, results, to + channels + k)
