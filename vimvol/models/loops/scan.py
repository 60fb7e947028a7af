"""The selective scan on a CPU, compiled by numba. Its gradients: `vimvol.models.loops.gradients`.

Channels are innermost in memory and in the loops, so that a vector register holds the same state of several channels
and the recurrence runs along L without ever mixing them. A call works on blocks of `WIDTH` channels side by side, and
takes all of them through a chunk of positions before the next, so that it reads and writes memory in order. Calls on
other channels, sequences and directions are independent of it. Loops over channels have a constant length and run over
scratch that is given from outside: only then does LLVM unroll and vectorise them.

Shapes: B batch, L positions, D channels, N states a channel; float32 throughout.
"""

from __future__ import annotations

from vimvol.models.loops.rows import (
    CHUNK,
    WIDTH,
    address,
    copy,
    fetch_row,
    load_decay,
    load_steps,
    lower,
    reaches_far,
    scale_row,
    store_row,
)
from vimvol.models.loops.tools import compiled, exp2_near, exp2_product, f32, inlined, wide


def forward_scratch(states: int, blocks: int) -> int:
    """Return how many float32 `forward` needs to work in; every row of them has all channels of its blocks."""
    return (3 * CHUNK + 2 * states + 4) * blocks * WIDTH


def _advancing(power):
    """Return what moves states on, by either way to decay."""

    @inlined
    def advance(h, a, steps, fed, b, c, begin, count, back, y, span, ahead, stride):
        """Move all states (N, WIDTH) on by ``count`` positions and add what they give to y.

        Rows of y, steps and fed are ``span`` apart. Meanwhile the rows that the next chunk will read are asked for,
        the first of every array at the addresses ``ahead``, ``stride`` bytes apart: a copy alone would wait for each.
        """
        wide()
        length, states = b.shape
        for i in range(count):
            at, row = length - 1 - begin - i if back else begin + i, slice(i * span, i * span + WIDTH)
            fetch_row(ahead, i * stride)
            step, feed, target = steps[row], fed[row], y[row]
            for n in range(states):
                to, b_n, c_n = n * WIDTH, b[at, n], c[at, n]
                for k in range(WIDTH):
                    state = power(step[k], a[to + k]) * h[to + k] + feed[k] * b_n
                    h[to + k] = state
                    target[k] += state * c_n

    return advance


_advance, _advance_far = _advancing(exp2_near), _advancing(exp2_product)


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
    wide()
    (length, states), span = b.shape[1:], (end - block) * WIDTH
    size, low, high = states * WIDTH, block * WIDTH, min(end * WIDTH, len(a))
    channels, rows = high - low, CHUNK * span
    for k in range(len(scratch)):
        scratch[k] = f32(0)  # channels that there are not stay so
    steps, fed, sums, rest = scratch[:rows], scratch[rows : 2 * rows], scratch[2 * rows : 3 * rows], scratch[3 * rows :]
    shift, skip, fastest, least = (
        rest[:span],
        rest[span : 2 * span],
        rest[2 * span : 3 * span],
        rest[3 * span : 4 * span],
    )
    decays, states_now = rest[4 * span : 4 * span + states * span], rest[4 * span + states * span :]
    copy(bias[low:high], shift)
    copy(d[low:high], skip)
    for j in range(end - block):
        load_decay(a, low + j * WIDTH, decays[j * size : (j + 1) * size], fastest[j * WIDTH : (j + 1) * WIDTH])
    for k in range(states * span):
        states_now[k] = f32(0) * decays[k]  # a decay that is no number stays visible: `exp2` would hide it
    u_rows, delta_rows, y_rows = u[batch], delta[batch], y[batch]
    stride = -4 * len(a) if back else 4 * len(a)
    for begin in range(0, length, CHUNK):
        count = min(CHUNK, length - begin)
        for k in range(span):
            least[k] = f32(0)
        for i in range(count):
            at, row = length - 1 - begin - i if back else begin + i, i * span
            load_steps(delta_rows, u_rows, at, low, channels, shift, soft, steps, fed, row)
            lower(steps, row, channels, fastest, least)
            scale_row(u_rows, at, low, channels, skip, sums, row)
        for j in range(end - block):
            first, to = low + j * WIDTH, j * WIDTH
            h, a_powers = states_now[j * size : (j + 1) * size], decays[j * size : (j + 1) * size]
            if kept.size:
                copy(h, kept[batch, block + j, begin // CHUNK])
            ahead = (address(delta_rows, first, begin + CHUNK, back), address(u_rows, first, begin + CHUNK, back))
            given = h, a_powers, steps[to:], fed[to:], b[batch], c[batch], begin, count, back, sums[to:], span, ahead
            if reaches_far(least[to:]):
                _advance_far(*given, stride)
            else:
                _advance(*given, stride)
        for i in range(count):
            at = length - 1 - begin - i if back else begin + i
            store_row(sums, i * span, channels, y_rows, at, low)
    for k in range(channels):
        j = k // WIDTH
        for n in range(states):
            last[batch, low + k, n] = states_now[j * size + n * WIDTH + k % WIDTH]
