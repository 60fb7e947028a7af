"""What both directions of the compiled scan share: blocks of channels copied in and out, and the size of a step.

As `vimvol.models.loops.scan`, which compiles these functions into its own: whoever edits them touches it.
"""

from __future__ import annotations

from vimvol.models.loops.tools import LOG2_E, exp2, f32, inlined

WIDTH = 64
"""Channels of a block."""

CHUNK = 16
"""Positions from one state that is kept to the next; those between are computed again for the gradients."""

# atanh(s) / s in powers of s^2 for s <= 1/3, fitted; relative error 1e-8.
T1, T2, T3, T4 = (f32(v) for v in (0.3333320622, 0.2001051361, 0.1400901052, 0.1395116012))


@inlined
def softplus(x):
    """Return log(1 + e^x) with a small relative error, however small it is."""
    size = x if x > f32(0) else -x
    e = exp2(-LOG2_E * size)
    s = e / (f32(2) + e)  # log(1 + e) = 2 atanh(s)
    q = s * s
    series = (((T4 * q + T3) * q + T2) * q + T1) * q + f32(1)
    positive = f32(0.5) * (x + size)  # keeps what is no number, where a comparison would not
    return positive + f32(2) * s * series


@inlined
def softplus_slope(y):
    """Return the derivative of softplus where it is y, 1 - e^-y, with a small relative error."""
    small = (
        (((-f32(1 / 6) * y + f32(1)) * y * f32(1 / 5) - f32(1)) * y * f32(1 / 4) + f32(1)) * y * f32(1 / 3) - f32(1)
    ) * y
    small = (small * f32(0.5) + f32(1)) * y
    return small if y < f32(0.25) else f32(1) - exp2(-LOG2_E * y)


@inlined
def load_row(row, first, target):
    """Copy the channels of a block, and zeros where there are fewer."""
    given = row[first : first + WIDTH]
    if len(given) == WIDTH:
        for k in range(WIDTH):
            target[k] = given[k]
    else:
        for k in range(WIDTH):
            target[k] = given[k] if k < len(given) else f32(0)


@inlined
def load_rows(rows, first, begin, count, back, target):
    """Copy channels from ``first`` on at ``count`` positions to (blocks, CHUNK, WIDTH), zeros where there are none.

    Rows are read whole, in the order of memory, which the processor then fetches ahead of the copy.
    """
    length = len(rows)
    blocks = len(target) // (CHUNK * WIDTH)
    for i in range(count):
        at = length - 1 - begin - i if back else begin + i
        for j in range(blocks):
            to = (j * CHUNK + i) * WIDTH
            load_row(rows[at], first + j * WIDTH, target[to : to + WIDTH])


@inlined
def store_rows(source, rows, first, begin, count, back):
    """Copy (blocks, CHUNK, WIDTH) to the channels from ``first`` on; the inverse of `load_rows`."""
    length = len(rows)
    blocks = len(source) // (CHUNK * WIDTH)
    for i in range(count):
        at = length - 1 - begin - i if back else begin + i
        for j in range(blocks):
            low, to = first + j * WIDTH, (j * CHUNK + i) * WIDTH
            given, target = source[to : to + WIDTH], rows[at, low : low + WIDTH]
            if len(target) == WIDTH:
                for k in range(WIDTH):
                    target[k] = given[k]
            else:
                for k in range(len(target)):
                    target[k] = given[k]


@inlined
def address(rows, first, begin, back):
    """Return where the channels from ``first`` on begin at a position, which may lie beyond the last."""
    at = len(rows) - 1 - begin if back else begin
    return rows.ctypes.data + 4 * (at * rows.shape[1] + first)


@inlined
def load_decay(a, first, target):
    """Copy A (D, N) of a block to (N, WIDTH), in powers of two."""
    width = min(WIDTH, len(a) - first)
    for n in range(a.shape[1]):
        for k in range(WIDTH):
            target[n * WIDTH + k] = LOG2_E * a[first + k, n] if k < width else f32(0)


@inlined
def prepare(steps, x, count, bias, soft, fed):
    """Make steps of the loaded ones, in place, and their product with the input, which feeds the states."""
    for i in range(count):
        for k in range(WIDTH):
            steps[i * WIDTH + k] += bias[k]
    if soft:
        for k in range(count * WIDTH):
            steps[k] = softplus(steps[k])
    for k in range(count * WIDTH):
        fed[k] = steps[k] * x[k]
