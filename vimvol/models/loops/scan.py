"""The selective scan on a CPU, compiled by numba.

Channels are innermost in memory and in the loops, so that a vector register holds the same state of several channels
and the recurrence runs along L without ever mixing them. A call works on blocks of `WIDTH` channels side by side, and
takes all of them through a chunk of positions before the next, so that it reads and writes memory in order. Calls on
other channels, sequences and directions are independent of it. Loops over channels have a constant length and run over
scratch that is given from outside: only then does LLVM unroll and vectorise them.

Shapes: B batch, L positions, D channels, N states a channel; float32 throughout.
"""

from __future__ import annotations

import numpy as np

from vimvol.models.loops.rows import (
    CHUNK,
    WIDTH,
    address,
    load_decay,
    load_row,
    load_rows,
    prepare,
    softplus_slope,
    store_rows,
)
from vimvol.models.loops.tools import LN_2, compiled, exp2, f32, fetch, inlined, summing


def forward_scratch(states: int, blocks: int) -> int:
    """Return how many float32 `forward` needs to work in, of which every block has some to itself."""
    return (CHUNK + blocks * (2 * CHUNK + 2 * states + 2)) * WIDTH


def backward_scratch(states: int, blocks: int) -> int:
    """Return how many float32 `backward` needs to work in, of which every block has some to itself."""
    return ((2 * CHUNK + 1) * states + 3 * CHUNK + blocks * (3 * CHUNK + 3 * states + 4)) * WIDTH


@inlined
def _advance(h, a, steps, fed, b, c, begin, count, back, y, ahead, stride):
    """Move all states on by ``count`` positions and add what they give to y (count, WIDTH).

    Meanwhile the rows that the next chunk will read are asked for, the first of every array at the addresses ``ahead``,
    ``stride`` bytes apart: a copy alone would wait for each of them.
    """
    length, states = b.shape
    for i in range(count):
        at, row = length - 1 - begin - i if back else begin + i, i * WIDTH
        for line in range(WIDTH // 16):
            for base in ahead:
                fetch(base + i * stride + 64 * line)
        for n in range(states):
            to, b_n, c_n = n * WIDTH, b[at, n], c[at, n]
            for k in range(WIDTH):
                state = exp2(steps[row + k] * a[to + k]) * h[to + k] + fed[row + k] * b_n
                h[to + k] = state
                y[row + k] += state * c_n


@compiled(
    "void(f4[:,:,::1], f4[:,:,::1], f4[:,::1], f4[:,:,::1], f4[:,:,::1], f4[::1], f4[::1], b1, b1, "
    "f4[:,:,::1], f4[:,:,::1], f4[:,:,:,::1], f4[::1], i8, i8, i8)"
)
def forward(u, delta, a, b, c, d, bias, soft, back, y, last, kept, scratch, batch, block, end):
    """Scan blocks of channels of a sequence.

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
    batch, block, end
        Which sequence, and the first block and the one after the last.
    """
    length, states = u.shape[1], a.shape[1]
    size, rows, each = states * WIDTH, CHUNK * WIDTH, (2 * states + 2) * WIDTH
    blocks, fed, rest = end - block, scratch[:rows], scratch[rows:]
    all_steps, all_x, own = rest[: blocks * rows], rest[blocks * rows : 2 * blocks * rows], rest[2 * blocks * rows :]
    for j in range(end - block):
        first, part = (block + j) * WIDTH, own[j * each : (j + 1) * each]
        h, decay = part[:size], part[size : 2 * size]
        load_decay(a, first, decay)
        load_row(bias, first, part[2 * size : 2 * size + WIDTH])
        load_row(d, first, part[2 * size + WIDTH :])
        for k in range(size):
            h[k] = f32(0) * decay[k]  # a decay that is no number stays visible: `exp2` would hide it
    stride = -4 * len(a) if back else 4 * len(a)
    for begin in range(0, length, CHUNK):
        count = min(CHUNK, length - begin)
        load_rows(delta[batch], block * WIDTH, begin, count, back, all_steps)
        load_rows(u[batch], block * WIDTH, begin, count, back, all_x)
        for j in range(blocks):
            part, first = own[j * each : (j + 1) * each], (block + j) * WIDTH
            steps, x = all_steps[j * rows : (j + 1) * rows], all_x[j * rows : (j + 1) * rows]
            h, decay = part[:size], part[size : 2 * size]
            shift, skip = part[2 * size : 2 * size + WIDTH], part[2 * size + WIDTH :]
            if kept.size:
                target = kept[batch, block + j, begin // CHUNK]
                for k in range(size):
                    target[k] = h[k]
            prepare(steps, x, count, shift, soft, fed)
            for i in range(count):
                for k in range(WIDTH):
                    x[i * WIDTH + k] *= skip[k]
            ahead = (address(delta[batch], first, begin + CHUNK, back), address(u[batch], first, begin + CHUNK, back))
            _advance(h, decay, steps, fed, b[batch], c[batch], begin, count, back, x, ahead, stride)
        store_rows(all_x, y[batch], block * WIDTH, begin, count, back)
    for j in range(end - block):
        first = (block + j) * WIDTH
        for k in range(min(WIDTH, len(a) - first)):
            for n in range(states):
                last[batch, first + k, n] = own[j * each + n * WIDTH + k]


@inlined
def _replay(h, decays, a, steps, fed, b, begin, count, back, ahead, stride):
    """Compute the states of a chunk again: h (count + 1, N, WIDTH) from the first, and by what they decayed.

    Meanwhile the rows of the next chunk are asked for, as by `_advance`.
    """
    length, states = b.shape
    size = states * WIDTH
    for i in range(count):
        at, row = length - 1 - begin - i if back else begin + i, i * WIDTH
        for line in range(WIDTH // 16):
            for base in ahead:
                fetch(base + i * stride + 64 * line)
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
    "f4[:,::1], f4[::1], i8, i8, i8)"
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
    end,
):
    """Fill the gradients of blocks of channels of a sequence.

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
    batch, block, end
        Which sequence, and the first block and the one after the last.
    """
    length, states = u.shape[1], a.shape[1]
    size, rows, each = states * WIDTH, CHUNK * WIDTH, (3 * states + 4) * WIDTH
    h, rest = scratch[: (CHUNK + 1) * size], scratch[(CHUNK + 1) * size :]
    decays, rest = rest[: CHUNK * size], rest[CHUNK * size :]
    fed, reach, exponent = rest[:rows], rest[rows : 2 * rows], rest[2 * rows : 3 * rows]
    blocks, rest = end - block, rest[3 * rows :]
    all_steps, all_x = rest[: blocks * rows], rest[blocks * rows : 2 * blocks * rows]
    all_dy, own = rest[2 * blocks * rows : 3 * blocks * rows], rest[3 * blocks * rows :]
    for j in range(end - block):
        first, part = (block + j) * WIDTH, own[j * each : (j + 1) * each]
        for k in range(each):
            part[k] = f32(0)
        load_decay(a, first, part[:size])
        for k in range(min(WIDTH, len(a) - first)):
            for n in range(states):
                part[size + n * WIDTH + k] = grad_last[batch, first + k, n]
        load_row(bias, first, part[3 * size : 3 * size + WIDTH])
        load_row(d, first, part[3 * size + WIDTH : 3 * size + 2 * WIDTH])
    b_rows, c_rows = b[batch], c[batch]
    stride = -4 * len(a) if back else 4 * len(a)
    for chunk in range((length - 1) // CHUNK, -1, -1):
        begin = chunk * CHUNK
        count = min(CHUNK, length - begin)
        load_rows(delta[batch], block * WIDTH, begin, count, back, all_steps)
        load_rows(u[batch], block * WIDTH, begin, count, back, all_x)
        load_rows(grad_y[batch], block * WIDTH, begin, count, back, all_dy)
        for j in range(blocks):
            part, source, first = own[j * each : (j + 1) * each], kept[batch, block + j, chunk], (block + j) * WIDTH
            steps, x, dy = all_steps[j * rows :], all_x[j * rows :], all_dy[j * rows :]
            decay, carry, sum_a = part[:size], part[size : 2 * size], part[2 * size : 3 * size]
            vectors = part[3 * size :]
            shift, skip = vectors[:WIDTH], vectors[WIDTH : 2 * WIDTH]
            sum_d, sum_bias = vectors[2 * WIDTH : 3 * WIDTH], vectors[3 * WIDTH :]
            for k in range(size):
                h[k] = source[k]
            prepare(steps, x, count, shift, soft, fed)
            ahead = (
                address(delta[batch], first, begin - CHUNK, back),
                address(u[batch], first, begin - CHUNK, back),
                address(grad_y[batch], first, begin - CHUNK, back),
            )
            _replay(h, decays, decay, steps, fed, b_rows, begin, count, back, ahead, stride)
            to_b, to_c = grad_b[block + j, batch], grad_c[block + j, batch]
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
                    steps[at] = (exponent[at] * LN_2 + reach[at] * x[at]) * slope
                    sum_bias[k] += steps[at]
        store_rows(all_dy, grad_u[batch], block * WIDTH, begin, count, back)
        store_rows(all_steps, grad_delta[batch], block * WIDTH, begin, count, back)
    for j in range(blocks):
        first, part = (block + j) * WIDTH, own[j * each : (j + 1) * each]
        vectors = part[3 * size :]
        for k in range(min(WIDTH, len(a) - first)):
            grad_d[batch, first + k] = vectors[2 * WIDTH + k]
            grad_bias[batch, first + k] = vectors[3 * WIDTH + k]
            for n in range(states):
                grad_a[batch, first + k, n] = part[2 * size + n * WIDTH + k]
