"""The selective scan on a CPU, compiled by numba.

Channels are innermost in memory and in the loops, so that a vector register holds the same state of several channels
and the recurrence runs along L without ever mixing them. A call works on `WIDTH` channels, whose states stay in the
first-level cache; calls on other channels, sequences and directions are independent of it. Loops over channels have a
constant length and run over scratch that is given from outside: only then does LLVM unroll and vectorise them.

Shapes: B batch, L positions, D channels, N states a channel; float32 throughout.
"""

from __future__ import annotations

import numpy as np

from vimvol.models.loops.tools import LN_2, LOG2_E, compiled, exp2, f32, inlined, summing

WIDTH = 64
"""Channels of a call."""

CHUNK = 16
"""Positions from one state that is kept to the next; those between are computed again for the gradients."""

# atanh(s) / s in powers of s^2 for s <= 1/3, fitted; relative error 1e-8.
T1, T2, T3, T4 = (f32(v) for v in (0.3333320622, 0.2001051361, 0.1400901052, 0.1395116012))


def forward_scratch(states: int) -> int:
    """Return how many float32 `forward` needs to work in."""
    return (2 * states + 3 * CHUNK + 2) * WIDTH


def backward_scratch(states: int) -> int:
    """Return how many float32 `backward` needs to work in."""
    return ((2 * CHUNK + 4) * states + 6 * CHUNK + 4) * WIDTH


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
def _load(row, first, target):
    """Copy the channels of a block, and zeros where there are fewer."""
    width = min(WIDTH, len(row) - first)
    for k in range(WIDTH):
        target[k] = row[first + k] if k < width else f32(0)


@inlined
def _load_rows(rows, first, begin, count, back, target):
    """Copy the channels of a block at ``count`` positions (count, WIDTH); zeros where there are fewer channels.

    Rows lie far apart in memory: fetched together, they wait for it together.
    """
    length, width = rows.shape[0], min(WIDTH, rows.shape[1] - first)
    for i in range(count):
        at, to = length - 1 - begin - i if back else begin + i, i * WIDTH
        if width == WIDTH:
            for k in range(WIDTH):
                target[to + k] = rows[at, first + k]
        else:
            for k in range(WIDTH):
                target[to + k] = rows[at, first + k] if k < width else f32(0)


@inlined
def _store_rows(source, rows, first, begin, count, back):
    """Copy (count, WIDTH) to the channels of a block; the inverse of `_load_rows`."""
    length, width = rows.shape[0], min(WIDTH, rows.shape[1] - first)
    for i in range(count):
        at, to = length - 1 - begin - i if back else begin + i, i * WIDTH
        if width == WIDTH:
            for k in range(WIDTH):
                rows[at, first + k] = source[to + k]
        else:
            for k in range(width):
                rows[at, first + k] = source[to + k]


@inlined
def _load_decay(a, first, target):
    """Copy A (D, N) of a block to (N, WIDTH), in powers of two."""
    width = min(WIDTH, len(a) - first)
    for n in range(a.shape[1]):
        for k in range(WIDTH):
            target[n * WIDTH + k] = LOG2_E * a[first + k, n] if k < width else f32(0)


@inlined
def _prepare(u, delta, first, begin, count, back, bias, soft, steps, fed, x):
    """Load the rows of a chunk: the input, the step, and their product, which feeds the states."""
    _load_rows(delta, first, begin, count, back, steps)
    _load_rows(u, first, begin, count, back, x)
    for i in range(count):
        for k in range(WIDTH):
            steps[i * WIDTH + k] += bias[k]
    if soft:
        for k in range(count * WIDTH):
            steps[k] = softplus(steps[k])
    for k in range(count * WIDTH):
        fed[k] = steps[k] * x[k]


@inlined
def _advance(h, a, steps, fed, b, c, begin, count, back, y):
    """Move all states on by ``count`` positions and add what they give to y (count, WIDTH)."""
    length, states = b.shape
    for i in range(count):
        at, row = length - 1 - begin - i if back else begin + i, i * WIDTH
        for n in range(states):
            to, b_n, c_n = n * WIDTH, b[at, n], c[at, n]
            for k in range(WIDTH):
                state = exp2(steps[row + k] * a[to + k]) * h[to + k] + fed[row + k] * b_n
                h[to + k] = state
                y[row + k] += state * c_n


@compiled(
    "void(f4[:,:,::1], f4[:,:,::1], f4[:,::1], f4[:,:,::1], f4[:,:,::1], f4[::1], f4[::1], b1, b1, "
    "f4[:,:,::1], f4[:,:,::1], f4[:,:,:,::1], f4[::1], i8, i8)"
)
def forward(u, delta, a, b, c, d, bias, soft, back, y, last, kept, scratch, batch, block):
    """Scan a block of channels of a sequence.

    Parameters
    ----------
    u, delta
        (B, L, D).
    a
        (D, N).
    b, c
        (B, L, N).
    d, bias
        (D,).
    soft
        Whether the step is softplus of delta and bias.
    back
        Whether the scan begins at the last position.
    y
        (B, L, D), to be filled.
    last
        (B, D, N), to be filled with the states after the scan.
    kept
        (B, blocks, chunks, N * WIDTH), to be filled with the states before every chunk; empty if not wanted.
    scratch
        At least `forward_scratch` float32.
    batch, block
        Which sequence and channels.
    """
    length, states, first = u.shape[1], a.shape[1], block * WIDTH
    size, rows = states * WIDTH, CHUNK * WIDTH
    h, decay, rest = scratch[:size], scratch[size : 2 * size], scratch[2 * size :]
    steps, fed, x = rest[:rows], rest[rows : 2 * rows], rest[2 * rows : 3 * rows]
    shift, skip = rest[3 * rows : 3 * rows + WIDTH], rest[3 * rows + WIDTH : 3 * rows + 2 * WIDTH]
    _load_decay(a, first, decay)
    _load(bias, first, shift)
    _load(d, first, skip)
    for k in range(size):
        h[k] = f32(0) * decay[k]  # a decay that is no number stays visible: `exp2` would hide it
    for begin in range(0, length, CHUNK):
        count = min(CHUNK, length - begin)
        if kept.size:
            target = kept[batch, block, begin // CHUNK]
            for k in range(size):
                target[k] = h[k]
        _prepare(u[batch], delta[batch], first, begin, count, back, shift, soft, steps, fed, x)
        for i in range(count):
            for k in range(WIDTH):
                x[i * WIDTH + k] *= skip[k]
        _advance(h, decay, steps, fed, b[batch], c[batch], begin, count, back, x)
        _store_rows(x, y[batch], first, begin, count, back)
    for k in range(min(WIDTH, len(a) - first)):
        for n in range(states):
            last[batch, first + k, n] = h[n * WIDTH + k]


@inlined
def _replay(h, decays, a, steps, fed, b, begin, count, back):
    """Compute the states of a chunk again: h (count + 1, N, WIDTH) from the first, and by what they decayed."""
    length, states = b.shape
    size = states * WIDTH
    for i in range(count):
        at, row = length - 1 - begin - i if back else begin + i, i * WIDTH
        for n in range(states):
            to, b_n = n * WIDTH, b[at, n]
            now, then = i * size + to, (i + 1) * size + to
            for k in range(WIDTH):
                decay = exp2(steps[row + k] * a[to + k])
                decays[now + k] = decay
                h[then + k] = decay * h[now + k] + fed[row + k] * b_n


@summing
def _retreat(h, decays, a, steps, fed, b, c, begin, count, back, dy, carry, sum_a, reach, exponent, grad_b, grad_c):
    """Move the gradients of all states back through a chunk.

    ``reach``, the gradient of what is fed, and ``exponent``, of the step through the decay, are (count, WIDTH).
    """
    length, states = b.shape
    size = states * WIDTH
    for i in range(count - 1, -1, -1):
        at = length - 1 - begin - i if back else begin + i
        # An index that could be negative would be wrapped around, and a loop with such an index is not vectorised.
        row = np.uint64(i * WIDTH)
        for column in range(WIDTH):
            reach[row + np.uint64(column)] = exponent[row + np.uint64(column)] = f32(0)
        for n in range(states):
            b_n, c_n = b[at, n], c[at, n]
            to, before = np.uint64(n * WIDTH), np.uint64(i * size + n * WIDTH)
            after = np.uint64((i + 1) * size + n * WIDTH)
            sum_b = sum_c = f32(0)
            for column in range(WIDTH):
                k = np.uint64(column)
                g = carry[to + k] + c_n * dy[row + k]
                sum_b += g * fed[row + k]
                sum_c += dy[row + k] * h[after + k]
                reach[row + k] += g * b_n
                g *= decays[before + k]
                carry[to + k] = g
                g *= h[before + k]
                sum_a[to + k] += g * steps[row + k]
                exponent[row + k] += g * a[to + k]
            grad_b[at, n] = sum_b
            grad_c[at, n] = sum_c


@compiled(
    "void(f4[:,:,::1], f4[:,:,::1], f4[:,::1], f4[:,:,::1], f4[:,:,::1], f4[::1], f4[::1], b1, b1, f4[:,:,:,::1], "
    "f4[:,:,::1], f4[:,:,::1], f4[:,:,::1], f4[:,:,::1], f4[:,:,::1], f4[:,:,:,::1], f4[:,:,:,::1], f4[:,::1], "
    "f4[:,::1], f4[::1], i8, i8)"
)
def backward(
    u,
    delta,
    a,
    b,
    c,
    d,
    bias,
    soft,
    back,
    kept,
    grad_y,
    grad_last,
    grad_u,
    grad_delta,
    grad_a,
    grad_b,
    grad_c,
    grad_d,
    grad_bias,
    scratch,
    batch,
    block,
):
    """Fill the gradients of a block of channels of a sequence.

    Parameters
    ----------
    u, delta, a, b, c, d, bias, soft, back, kept
        As given to and filled by `forward`.
    grad_y, grad_last
        Gradients of y (B, L, D) and of the last state (B, D, N).
    grad_u, grad_delta
        (B, L, D), to be filled.
    grad_a, grad_d, grad_bias
        (B, D, N), (B, D), (B, D), to be filled and then summed over B.
    grad_b, grad_c
        (blocks, B, L, N), to be filled and then summed over blocks.
    scratch
        At least `backward_scratch` float32.
    batch, block
        Which sequence and channels.
    """
    length, states, first = u.shape[1], a.shape[1], block * WIDTH
    size, rows, width = states * WIDTH, CHUNK * WIDTH, min(WIDTH, len(a) - block * WIDTH)
    h, rest = scratch[: (CHUNK + 1) * size], scratch[(CHUNK + 1) * size :]
    decays, rest = rest[: CHUNK * size], rest[CHUNK * size :]
    decay, carry, sum_a = rest[:size], rest[size : 2 * size], rest[2 * size : 3 * size]
    rest = rest[3 * size :]
    steps, fed, x = rest[:rows], rest[rows : 2 * rows], rest[2 * rows : 3 * rows]
    dy, reach, exponent = rest[3 * rows : 4 * rows], rest[4 * rows : 5 * rows], rest[5 * rows : 6 * rows]
    rest = rest[6 * rows :]
    shift, skip = rest[:WIDTH], rest[WIDTH : 2 * WIDTH]
    sum_d, sum_bias = rest[2 * WIDTH : 3 * WIDTH], rest[3 * WIDTH : 4 * WIDTH]
    _load_decay(a, first, decay)
    _load(bias, first, shift)
    _load(d, first, skip)
    for k in range(size):
        sum_a[k] = carry[k] = f32(0)
    for k in range(width):
        for n in range(states):
            carry[n * WIDTH + k] = grad_last[batch, first + k, n]
    for k in range(WIDTH):
        sum_d[k] = sum_bias[k] = f32(0)
    for chunk in range((length - 1) // CHUNK, -1, -1):
        begin, source = chunk * CHUNK, kept[batch, block, chunk]
        count = min(CHUNK, length - begin)
        for k in range(size):
            h[k] = source[k]
        _prepare(u[batch], delta[batch], first, begin, count, back, shift, soft, steps, fed, x)
        _load_rows(grad_y[batch], first, begin, count, back, dy)
        b_rows, c_rows = b[batch], c[batch]
        _replay(h, decays, decay, steps, fed, b_rows, begin, count, back)
        to_b, to_c = grad_b[block, batch], grad_c[block, batch]
        _retreat(
            h,
            decays,
            decay,
            steps,
            fed,
            b_rows,
            c_rows,
            begin,
            count,
            back,
            dy,
            carry,
            sum_a,
            reach,
            exponent,
            to_b,
            to_c,
        )
        for i in range(count):
            for k in range(WIDTH):
                at = i * WIDTH + k
                sum_d[k] += dy[at] * x[at]
                dy[at] = dy[at] * skip[k] + reach[at] * steps[at]
                slope = softplus_slope(steps[at]) if soft else f32(1)
                exponent[at] = (exponent[at] * LN_2 + reach[at] * x[at]) * slope
                sum_bias[k] += exponent[at]
        _store_rows(dy, grad_u[batch], first, begin, count, back)
        _store_rows(exponent, grad_delta[batch], first, begin, count, back)
    for k in range(width):
        grad_d[batch, first + k] = sum_d[k]
        grad_bias[batch, first + k] = sum_bias[k]
        for n in range(states):
            grad_a[batch, first + k, n] = sum_a[n * WIDTH + k]
