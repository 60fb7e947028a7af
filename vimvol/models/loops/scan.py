"""The selective scan on a CPU, compiled by numba.

Channels are innermost in memory and in the loops, so that a vector register holds the same state of several channels
and the recurrence runs along L without ever mixing them. A call works on `WIDTH` channels, whose states stay in the
first-level cache; calls on other channels, sequences and directions are independent of it. Loops over channels have a
constant length and run over scratch that is given from outside: only then does LLVM unroll and vectorise them.

Shapes: B batch, L positions, D channels, N states a channel; float32 throughout.
"""

from __future__ import annotations

from vimvol.models.loops.tools import LN_2, LOG2_E, compiled, exp2, f32, inlined, summing

WIDTH = 64
"""Channels of a call."""

CHUNK = 16
"""Positions from one state that is kept to the next; those between are computed again for the gradients."""

# atanh(s) / s in powers of s^2 for s <= 1/3, fitted; relative error 1e-8.
T1, T2, T3, T4 = (f32(v) for v in (0.3333320622, 0.2001051361, 0.1400901052, 0.1395116012))


def forward_scratch(states: int) -> int:
    """Return how many float32 `forward` needs to work in."""
    return (2 * states + 5) * WIDTH


def backward_scratch(states: int) -> int:
    """Return how many float32 `backward` needs to work in."""
    return ((2 * CHUNK + 4) * states + 3 * CHUNK + 8) * WIDTH


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
def sigmoid(x):
    """Return 1 / (1 + e^-x), the derivative of softplus."""
    size = x if x > f32(0) else -x
    e = exp2(-LOG2_E * size)
    return (f32(1) if x > f32(0) else e) / (f32(1) + e)


@inlined
def _load(row, first, target):
    """Copy the channels of a block, and zeros where there are fewer."""
    width = min(WIDTH, len(row) - first)
    if width == WIDTH:
        for k in range(WIDTH):
            target[k] = row[first + k]
    else:
        for k in range(width):
            target[k] = row[first + k]
        for k in range(width, WIDTH):
            target[k] = f32(0)


@inlined
def _store(source, row, first):
    width = min(WIDTH, len(row) - first)
    if width == WIDTH:
        for k in range(WIDTH):
            row[first + k] = source[k]
    else:
        for k in range(width):
            row[first + k] = source[k]


@inlined
def _load_decay(a, first, target):
    """Copy A (D, N) of a block to (N, WIDTH), in powers of two."""
    width = min(WIDTH, len(a) - first)
    for n in range(a.shape[1]):
        for k in range(WIDTH):
            target[n * WIDTH + k] = LOG2_E * a[first + k, n] if k < width else f32(0)


@inlined
def _step(delta, first, bias, soft, step):
    _load(delta, first, step)
    for k in range(WIDTH):
        step[k] += bias[k]
    if soft:
        for k in range(WIDTH):
            step[k] = softplus(step[k])


@inlined
def _advance(h, a, step, fed, b, c, y):
    """Move all states on by one position and add what they give to y (WIDTH,)."""
    for n in range(len(b)):
        at, b_n, c_n = n * WIDTH, b[n], c[n]
        for k in range(WIDTH):
            state = exp2(step[k] * a[at + k]) * h[at + k] + fed[k] * b_n
            h[at + k] = state
            y[k] += state * c_n


@compiled(
    "void(f4[:,:,::1], f4[:,:,::1], f4[:,::1], f4[:,:,::1], f4[:,:,::1], f4[::1], f4[::1], b1, b1, "
    "f4[:,:,::1], f4[:,:,::1], f4[:,:,:,::1], f4[::1], i8, i8)"
)
def forward(u, delta, a, b, c, d, bias, soft, reverse, y, last, kept, scratch, batch, block):
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
    reverse
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
    size = states * WIDTH
    h, decay, rest = scratch[:size], scratch[size : 2 * size], scratch[2 * size :]
    step, fed, row = rest[:WIDTH], rest[WIDTH : 2 * WIDTH], rest[2 * WIDTH : 3 * WIDTH]
    shift, skip = rest[3 * WIDTH : 4 * WIDTH], rest[4 * WIDTH : 5 * WIDTH]
    _load_decay(a, first, decay)
    _load(bias, first, shift)
    _load(d, first, skip)
    for k in range(size):
        h[k] = f32(0) * decay[k]  # a decay that is no number stays visible: `exp2` would hide it
    for i in range(length):
        at = length - 1 - i if reverse else i
        if kept.size and i % CHUNK == 0:
            target = kept[batch, block, i // CHUNK]
            for k in range(size):
                target[k] = h[k]
        _step(delta[batch, at], first, shift, soft, step)
        _load(u[batch, at], first, row)
        for k in range(WIDTH):
            fed[k] = step[k] * row[k]
            row[k] *= skip[k]
        _advance(h, decay, step, fed, b[batch, at], c[batch, at], row)
        _store(row, y[batch, at], first)
    for k in range(min(WIDTH, len(a) - first)):
        for n in range(states):
            last[batch, first + k, n] = h[n * WIDTH + k]


@inlined
def _replay(h, after, decays, a, step, fed, b):
    """Move states h on by one position into ``after``, and keep by what they decayed."""
    for n in range(len(b)):
        at, b_n = n * WIDTH, b[n]
        for k in range(WIDTH):
            decay = exp2(step[k] * a[at + k])
            decays[at + k] = decay
            after[at + k] = decay * h[at + k] + fed[k] * b_n


@summing
def _retreat(before, after, decays, a, step, fed, b, c, grad_y, carry, grad_a, reach, exponent, grad_b, grad_c):
    """Move the gradients of all states back by one position."""
    for n in range(len(b)):
        at, b_n, c_n = n * WIDTH, b[n], c[n]
        sum_b = sum_c = f32(0)
        for k in range(WIDTH):
            g = carry[at + k] + c_n * grad_y[k]
            sum_b += g * fed[k]
            sum_c += grad_y[k] * after[at + k]
            reach[k] += g * b_n
            g *= decays[at + k]
            carry[at + k] = g
            g *= before[at + k]
            grad_a[at + k] += g * step[k]
            exponent[k] += g * a[at + k]
        grad_b[n] = sum_b
        grad_c[n] = sum_c


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
    reverse,
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
    u, delta, a, b, c, d, bias, soft, reverse, kept
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
    size, width = states * WIDTH, min(WIDTH, len(a) - block * WIDTH)
    h, scratch = scratch[: (CHUNK + 1) * size], scratch[(CHUNK + 1) * size :]
    decays, scratch = scratch[: CHUNK * size], scratch[CHUNK * size :]
    decay, scratch = scratch[:size], scratch[size:]
    carry, scratch = scratch[:size], scratch[size:]
    sum_a, scratch = scratch[:size], scratch[size:]
    steps, scratch = scratch[: CHUNK * WIDTH], scratch[CHUNK * WIDTH :]
    feds, scratch = scratch[: CHUNK * WIDTH], scratch[CHUNK * WIDTH :]
    inputs, scratch = scratch[: CHUNK * WIDTH], scratch[CHUNK * WIDTH :]
    shift, skip = scratch[:WIDTH], scratch[WIDTH : 2 * WIDTH]
    dy, reach = scratch[2 * WIDTH : 3 * WIDTH], scratch[3 * WIDTH : 4 * WIDTH]
    exponent, sum_d = scratch[4 * WIDTH : 5 * WIDTH], scratch[5 * WIDTH : 6 * WIDTH]
    sum_bias, slope = scratch[6 * WIDTH : 7 * WIDTH], scratch[7 * WIDTH : 8 * WIDTH]
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
        begin, end = chunk * CHUNK, min(length, (chunk + 1) * CHUNK)
        source = kept[batch, block, chunk]
        for k in range(size):
            h[k] = source[k]
        for i in range(begin, end):
            at, j = length - 1 - i if reverse else i, i - begin
            row = slice(j * WIDTH, (j + 1) * WIDTH)
            step, fed, x = steps[row], feds[row], inputs[row]
            _step(delta[batch, at], first, shift, soft, step)
            _load(u[batch, at], first, x)
            for k in range(WIDTH):
                fed[k] = step[k] * x[k]
            _replay(
                h[j * size : (j + 1) * size],
                h[(j + 1) * size : (j + 2) * size],
                decays[j * size : (j + 1) * size],
                decay,
                step,
                fed,
                b[batch, at],
            )
        for i in range(end - 1, begin - 1, -1):
            at, j = length - 1 - i if reverse else i, i - begin
            row = slice(j * WIDTH, (j + 1) * WIDTH)
            step, fed, x = steps[row], feds[row], inputs[row]
            _load(grad_y[batch, at], first, dy)
            for k in range(WIDTH):
                reach[k] = exponent[k] = f32(0)
            _retreat(
                h[j * size : (j + 1) * size],
                h[(j + 1) * size : (j + 2) * size],
                decays[j * size : (j + 1) * size],
                decay,
                step,
                fed,
                b[batch, at],
                c[batch, at],
                dy,
                carry,
                sum_a,
                reach,
                exponent,
                grad_b[block, batch, at],
                grad_c[block, batch, at],
            )
            if soft:
                _load(delta[batch, at], first, slope)
                for k in range(WIDTH):
                    slope[k] = sigmoid(slope[k] + shift[k])
            else:
                for k in range(WIDTH):
                    slope[k] = f32(1)
            for k in range(WIDTH):
                sum_d[k] += dy[k] * x[k]
                dy[k] = dy[k] * skip[k] + reach[k] * step[k]
                exponent[k] = (exponent[k] * LN_2 + reach[k] * x[k]) * slope[k]
                sum_bias[k] += exponent[k]
            _store(dy, grad_u[batch, at], first)
            _store(exponent, grad_delta[batch, at], first)
    _store(sum_d, grad_d[batch], first)
    _store(sum_bias, grad_bias[batch], first)
    for k in range(width):
        for n in range(states):
            grad_a[batch, first + k, n] = sum_a[n * WIDTH + k]
