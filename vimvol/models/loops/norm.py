"""Instance norm of maps whose channels are innermost in memory.

PyTorch's own copies such maps to another layout and back. Shapes: P pixels, C channels of a map, W channels of an
output that maps lie in side by side; float32, or bfloat16 as int16 bits. Every function works on some of the pixels.
"""

from __future__ import annotations

import math

from vimvol.models.loops.lanes import LANES, narrowed, scaled_lanes, widened
from vimvol.models.loops.tools import compiled, f32, inlined, wide

ROWS = 256
"""Pixels that are summed in float32 before they join a sum in float64."""
SEEN = 16
"""Pixels whose mean stands for that of all where distances are measured from."""
GOLDEN = 0.6180339887498949
"""The fractions of its multiples lie evenly, so that pixels at these places are of rows all over a map; not of columns:
where the rows are a Fibonacci number or a few times one, as of the tiles of 576, columns are near each other."""


@inlined
def origin_of(x, k):
    """Return a value near the mean of channel k; a single pixel, as one at the edge, may be many deviations off."""
    total = 0.0
    for i in range(1, SEEN + 1):
        total += widened(x[int((i * GOLDEN) % 1.0 * len(x)), k])
    return f32(total / SEEN)


@compiled(*(f"void({t}[:,::1], i8, i8, f4[:,::1], f8[:,::1])" for t in ("f4", "i2")))
def moments(x, begin, end, scratch, sums):
    """Sum the distance from a place near the mean, and its square: accurate even where the mean is far from 0.

    Parameters
    ----------
    x
        (P, C).
    begin, end
        Pixels to sum.
    scratch
        (3, C).
    sums
        (2, C), to be filled.
    """
    wide()
    origin, first, second = scratch[0], scratch[1], scratch[2]
    channels = x.shape[1]
    for k in range(channels):
        origin[k] = origin_of(x, k)
        sums[0, k] = sums[1, k] = 0.0
    for low in range(begin, end, ROWS):
        high = min(low + ROWS, end)
        for k in range(channels):
            first[k] = second[k] = f32(0)
        p = low
        while p + 4 <= high:
            a, b, c, d = x[p], x[p + 1], x[p + 2], x[p + 3]
            for k in range(channels):
                o = origin[k]
                va, vb, vc, vd = widened(a[k]) - o, widened(b[k]) - o, widened(c[k]) - o, widened(d[k]) - o
                first[k] += (va + vb) + (vc + vd)
                second[k] += (va * va + vb * vb) + (vc * vc + vd * vd)
            p += 4
        while p < high:
            a = x[p]
            for k in range(channels):
                v = widened(a[k]) - origin[k]
                first[k] += v
                second[k] += v * v
            p += 1
        for k in range(channels):
            sums[0, k] += first[k]
            sums[1, k] += second[k]


@compiled(*(f"void({t}[:,::1], f8[:,:,::1], f4[::1], f4[::1], f4, f4[:,::1])" for t in ("f4", "i2")))
def finish(x, sums, weight, bias, epsilon, out):
    """Turn sums into what `scale` takes.

    Where a channel has little contrast about a mean far from 0, the rounded mean alone would be off by a good part of a
    deviation; what rounding it costs goes into the shift.

    Parameters
    ----------
    x
        (P, F * C), as `moments` was given; a row may hold F pixels side by side.
    sums
        (tasks, 2, F * C) of `moments`.
    weight, bias
        (C,) by which what is normalised is scaled, and moved.
    epsilon
        Added to the variance.
    out
        (3, F * C), to be filled with mean, factor and shift.
    """
    wide()
    pixels, width = x.shape
    channels = len(weight)
    fold = width // channels
    for c in range(channels):
        mean = squares = 0.0
        for k in range(c, width, channels):
            first = second = 0.0
            for task in range(len(sums)):
                first += sums[task, 0, k]
                second += sums[task, 1, k]
            part = first / pixels
            out[0, k] = origin_of(x, k)
            mean += out[0, k] + part
            squares += second - part * first  # about the mean of these pixels
        mean /= fold
        for k in range(c, width, channels):
            first = 0.0
            for task in range(len(sums)):
                first += sums[task, 0, k]
            off = out[0, k] + first / pixels - mean
            squares += pixels * off * off
        factor = weight[c] / math.sqrt(squares / (pixels * fold) + epsilon)
        rounded = f32(mean)
        shift = (rounded - mean) * factor + bias[c]
        for k in range(c, width, channels):
            out[0, k], out[1, k], out[2, k] = rounded, f32(factor), f32(shift)


@inlined
def _scale_row(x, values, p, vectors, slope, out, results, at):
    """Write a pixel of (P, C) to ``out`` (P, W) from channel ``at`` on; values and results are the same two, flat."""
    channels, width = x.shape[1], out.shape[1]
    whole = channels - channels % LANES
    for k in range(0, whole, LANES):
        scaled_lanes(values, p * channels + k, vectors, k, slope, results, p * width + at + k)
    for k in range(whole, channels):
        v = (widened(x[p, k]) - vectors[0, k]) * vectors[1, k] + vectors[2, k]
        out[p, at + k] = narrowed(v if v >= f32(0) else v * slope, x[p, k])


@compiled(*(f"void({t}[:,::1], f4[:,::1], f4, i8, i8, {t}[:,::1])" for t in ("f4", "i2")))
def scale(x, vectors, slope, begin, end, out):
    """Write ``(x - mean) * factor + shift`` of (P, C) to ``out`` (P, C).

    The three are the first C of ``vectors`` (3, C or more). What is negative is multiplied by ``slope``, at most 1.
    """
    wide()
    values, results = x.reshape(-1), out.reshape(-1)
    for p in range(begin, end):
        _scale_row(x, values, p, vectors, slope, out, results, 0)


@compiled(*(f"void({t}[:,::1], f4[:,::1], {t}[:,::1], f4[:,::1], f4, i8, i8, {t}[:,::1])" for t in ("f4", "i2")))
def scale_two(x, vectors, other, other_vectors, slope, begin, end, out):
    """Write two maps as `scale` does, one behind the other in every pixel, to ``out`` (P, C + other C).

    In one pass, since a processor that is given every second line of a page reads the lines between, too.
    """
    wide()
    values, others, results = x.reshape(-1), other.reshape(-1), out.reshape(-1)
    for p in range(begin, end):
        _scale_row(x, values, p, vectors, slope, out, results, 0)
        _scale_row(other, others, p, other_vectors, slope, out, results, x.shape[1])


@compiled(*(f"void({t}[:,::1], {t}[:,::1], i8, i8, f4[:,::1], f8[:,::1])" for t in ("f4", "i2")))
def gradient_moments(grad, y, begin, end, scratch, sums):
    """Sum the gradient (P, W) and its product with y (P, W) into sums (2, W); scratch is (2, W)."""
    wide()
    first, second = scratch[0], scratch[1]
    channels = y.shape[1]
    for k in range(channels):
        sums[0, k] = sums[1, k] = 0.0
    for low in range(begin, end, ROWS):
        for k in range(channels):
            first[k] = second[k] = f32(0)
        for p in range(low, min(low + ROWS, end)):
            g, v = grad[p], y[p]
            for k in range(channels):
                g_k = widened(g[k])
                first[k] += g_k
                second[k] += g_k * widened(v[k])
        for k in range(channels):
            sums[0, k] += first[k]
            sums[1, k] += second[k]


@compiled(*(f"void({t}[:,::1], {t}[:,::1], i8, i8, f4[::1], f4[::1], f4[::1], {t}[:,::1], i8)" for t in ("f4", "i2")))
def gradient(grad, y, begin, end, factor, mean, slope, out, at):
    """Write ``factor * (grad - mean - slope * y)`` to out (P, C).

    ``grad`` and ``y`` are (P, W), factor, mean and slope (W,); the channels of ``out`` begin at ``at`` in them.
    """
    wide()
    channels = out.shape[1]
    low, high = at, at + channels
    f, m, s = factor[low:high], mean[low:high], slope[low:high]
    for p in range(begin, end):
        g, v, target = grad[p, low:high], y[p, low:high], out[p]
        for k in range(channels):
            target[k] = narrowed(f[k] * (widened(g[k]) - m[k] - s[k] * widened(v[k])), g[k])
