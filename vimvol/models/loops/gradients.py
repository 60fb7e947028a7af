"""The gradients of the selective scan on a CPU, compiled by numba.

As `vimvol.models.loops.scan`, chunk by chunk from the last to the first: the states of a chunk are computed again from
those before it, which the scan has kept, and then the gradients are moved back through it.

Shapes: B batch, L positions, D channels, N states a channel; float32 throughout.
"""

from __future__ import annotations

from vimvol.models.loops.rows import (
    CHUNK,
    WIDTH,
    address,
    copy,
    fetch_row,
    index,
    load_decay,
    load_row,
    load_steps,
    lower,
    reaches_far,
    softplus_slope,
    store_row,
)
from vimvol.models.loops.tools import LN_2, compiled, exp2_near, exp2_product, f32, inlined, summing, wide


def backward_scratch(states: int, blocks: int) -> int:
    """Return how many float32 `backward` needs to work in, for a block at a time and for all of its blocks."""
    return ((2 * CHUNK + 1) * states + blocks * (5 * CHUNK + 3 * states + 6)) * WIDTH


def _replaying(power):
    """Return what computes states again, by either way to decay."""

    @inlined
    def replay(h, decays, a, steps, fed, b, begin, count, back, span, ahead, stride):
        """Compute the states of a chunk again: h (count + 1, N, WIDTH) from the first, and by what they decayed.

        Meanwhile the rows of the next chunk are asked for, as by `_advancing`.
        """
        wide()
        length, states = b.shape
        size = states * WIDTH
        for i in range(count):
            at, row = length - 1 - begin - i if back else begin + i, slice(i * span, i * span + WIDTH)
            fetch_row(ahead, i * stride)
            step, feed = steps[row], fed[row]
            for n in range(states):
                to, b_n = n * WIDTH, b[at, n]
                now, then = i * size + to, (i + 1) * size + to
                for k in range(WIDTH):
                    decay = power(step[k], a[to + k])
                    decays[now + k] = decay
                    h[then + k] = decay * h[now + k] + feed[k] * b_n

    return replay


_replay, _replay_far = _replaying(exp2_near), _replaying(exp2_product)


@summing
def _retreat(
    h, decays, a, steps, fed, b, c, begin, count, back, dy, carry, sum_a, reach, exponent, grad_b, grad_c, span
):
    """Move the gradients of all states back through a chunk.

    ``reach``, the gradient of what is fed, and ``exponent``, of the step through the decay, have rows ``span`` apart,
    as those that are given, and are added to.
    """
    wide()
    length, states = b.shape
    size = states * WIDTH
    for i in range(count - 1, -1, -1):
        at = length - 1 - begin - i if back else begin + i
        row = index(i * span)
        for n in range(states):
            b_n, c_n = b[at, n], c[at, n]
            to, before = index(n * WIDTH), index(i * size + n * WIDTH)
            after = index((i + 1) * size + n * WIDTH)
            sum_b = sum_c = f32(0)
            for column in range(WIDTH):
                k = index(column)
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


@inlined
def _gather(u, at, low, channels, skip, soft, steps, reach, exponent, dy, to, sum_d, sum_bias):
    """Turn what a row, from ``to`` on, has gathered into gradients of u, in ``dy``, and of delta, in ``steps``."""
    wide()
    at, low, to = index(at), index(low), index(to)
    for i in range(channels):
        k = index(i)
        own, x = to + k, u[at, low + k]
        sum_d[k] += dy[own] * x
        dy[own] = dy[own] * skip[k] + reach[own] * steps[own]
        slope = softplus_slope(steps[own]) if soft else f32(1)
        steps[own] = (exponent[own] * LN_2 + reach[own] * x) * slope
        sum_bias[k] += steps[own]


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
    wide()
    (length, states), span = b.shape[1:], (end - block) * WIDTH
    size, low, high = states * WIDTH, block * WIDTH, min(end * WIDTH, len(a))
    channels, rows = high - low, CHUNK * span
    for k in range(len(scratch)):
        scratch[k] = f32(0)  # channels that there are not stay so
    h, rest = scratch[: (CHUNK + 1) * size], scratch[(CHUNK + 1) * size :]
    decays, rest = rest[: CHUNK * size], rest[CHUNK * size :]
    steps, fed, dy = rest[:rows], rest[rows : 2 * rows], rest[2 * rows : 3 * rows]
    reach, exponent, rest = rest[3 * rows : 4 * rows], rest[4 * rows : 5 * rows], rest[5 * rows :]
    shift, skip, fastest, least = (
        rest[:span],
        rest[span : 2 * span],
        rest[2 * span : 3 * span],
        rest[3 * span : 4 * span],
    )
    sum_d, sum_bias, rest = rest[4 * span : 5 * span], rest[5 * span : 6 * span], rest[6 * span :]
    all_a, all_carry, all_sums = (
        rest[: states * span],
        rest[states * span : 2 * states * span],
        rest[2 * states * span : 3 * states * span],
    )
    copy(bias[low:high], shift)
    copy(d[low:high], skip)
    for j in range(end - block):
        load_decay(a, low + j * WIDTH, all_a[j * size : (j + 1) * size], fastest[j * WIDTH : (j + 1) * WIDTH])
    for k in range(channels):
        for n in range(states):
            all_carry[k // WIDTH * size + n * WIDTH + k % WIDTH] = grad_last[batch, low + k, n]
    u_rows, delta_rows, dy_rows = u[batch], delta[batch], grad_y[batch]
    stride = -4 * len(a) if back else 4 * len(a)
    for chunk in range((length - 1) // CHUNK, -1, -1):
        begin = chunk * CHUNK
        count = min(CHUNK, length - begin)
        for k in range(span):
            least[k] = f32(0)
        for k in range(rows):
            reach[k] = exponent[k] = f32(0)
        for i in range(count):
            at, row = length - 1 - begin - i if back else begin + i, i * span
            load_steps(delta_rows, u_rows, at, low, channels, shift, soft, steps, fed, row)
            lower(steps, row, channels, fastest, least)
            load_row(dy_rows, at, low, channels, dy, row)
        for j in range(end - block):
            first, to, part = low + j * WIDTH, j * WIDTH, slice(j * size, (j + 1) * size)
            copy(kept[batch, block + j, chunk], h)
            ahead = (
                address(delta_rows, first, begin - CHUNK, back),
                address(u_rows, first, begin - CHUNK, back),
                address(dy_rows, first, begin - CHUNK, back),
            )
            given = h, decays, all_a[part], steps[to:], fed[to:], b[batch], begin, count, back, span, ahead, stride
            if reaches_far(least[to:]):
                _replay_far(*given)
            else:
                _replay(*given)
            _retreat(
                h,
                decays,
                all_a[part],
                steps[to:],
                fed[to:],
                b[batch],
                c[batch],
                begin,
                count,
                back,
                dy[to:],
                all_carry[part],
                all_sums[part],
                reach[to:],
                exponent[to:],
                grad_b[block + j, batch],
                grad_c[block + j, batch],
                span,
            )
        for i in range(count):
            at, row = length - 1 - begin - i if back else begin + i, i * span
            _gather(u_rows, at, low, channels, skip, soft, steps, reach, exponent, dy, row, sum_d, sum_bias)
            store_row(dy, row, channels, grad_u[batch], at, low)
            store_row(steps, row, channels, grad_delta[batch], at, low)
    copy(sum_d[:channels], grad_d[batch, low:high])
    copy(sum_bias[:channels], grad_bias[batch, low:high])
    for k in range(channels):
        for n in range(states):
            grad_a[batch, low + k, n] = all_sums[k // WIDTH * size + n * WIDTH + k % WIDTH]
