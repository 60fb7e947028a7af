"""What both directions of the compiled scan share: rows of channels copied in and out, and the size of a step.

All of these functions are compiled into those of `vimvol.models.loops.scan` and of `vimvol.models.loops.gradients`.
"""

from __future__ import annotations

import numpy as np

from vimvol.models.loops.tools import LEAST, LOG2_E, exp2, f32, fetch, inlined, wide

WIDTH = 64
"""Channels of a block."""

CHUNK = 16
"""Positions from one state that is kept to the next; those between are computed again for the gradients."""

# log(1 + e) / e in powers of e for e <= 1, fitted for the least relative error; 1.2e-7 with that of rounding.
L1, L2, L3, L4 = (f32(v) for v in (-0.4999964833, 0.3332132399, -0.2485716343, 0.191536516))
L5, L6, L7, L8 = (f32(v) for v in (-0.1375379562, 0.07920445502, -0.03006573953, 0.005364810582))


@inlined
def softplus(x):
    """Return log(1 + e^x) with a small relative error, however small it is."""
    size = x if x > f32(0) else -x
    e = exp2(-LOG2_E * size)
    p = ((((((L8 * e + L7) * e + L6) * e + L5) * e + L4) * e + L3) * e + L2) * e + L1
    positive = f32(0.5) * (x + size)  # keeps what is no number, where a comparison would not
    return positive + e * (p * e + f32(1))


@inlined
def softplus_slope(y):
    """Return the derivative of softplus where it is y, 1 - e^-y, with a small relative error."""
    small = (
        (((-f32(1 / 6) * y + f32(1)) * y * f32(1 / 5) - f32(1)) * y * f32(1 / 4) + f32(1)) * y * f32(1 / 3) - f32(1)
    ) * y
    small = (small * f32(0.5) + f32(1)) * y
    return small if y < f32(0.25) else f32(1) - exp2(-LOG2_E * y)


@inlined
def index(i):
    """Return an index as one that cannot be negative: it would be wrapped around, and its loop not vectorised."""
    return np.uint64(i)


@inlined
def copy(source, target):
    """Copy a vector."""
    wide()
    for k in range(len(source)):
        target[k] = source[k]


@inlined
def address(rows, first, begin, back):
    """Return where the channels from ``first`` on begin at a position, which may lie beyond the last."""
    at = len(rows) - 1 - begin if back else begin
    return rows.ctypes.data + 4 * (at * rows.shape[1] + first)


@inlined
def fetch_row(ahead, offset):
    """Ask for the channels of a block in each of some arrays, ``offset`` bytes behind the addresses that are given."""
    for line in range(WIDTH // 16):
        for base in ahead:
            fetch(base + offset + 64 * line)


@inlined
def load_decay(a, first, target, fastest):
    """Copy A (D, N) of a block to (N, WIDTH), in powers of two; and the strongest of every channel to (WIDTH,)."""
    width = min(WIDTH, len(a) - first)
    for k in range(WIDTH):
        fastest[k] = f32(0)
    for n in range(a.shape[1]):
        for k in range(WIDTH):
            decay = LOG2_E * a[first + k, n] if k < width else f32(0)
            target[n * WIDTH + k] = decay
            fastest[k] = min(fastest[k], decay)


@inlined
def load_steps(delta, u, at, low, channels, bias, soft, steps, fed, to):
    """Make steps of a row of delta, and their products with u, which feed the states.

    Parameters
    ----------
    delta, u
        (L, D), of which row ``at`` is taken, ``channels`` from ``low`` on.
    bias
        (channels,), added to delta.
    soft
        Whether the step is softplus of the sum.
    steps, fed
        To be filled from ``to`` on.
    """
    wide()
    at, low, to = index(at), index(low), index(to)
    if soft:
        for i in range(channels):
            k = index(i)
            steps[to + k] = softplus(delta[at, low + k] + bias[k])
    else:
        for i in range(channels):
            k = index(i)
            steps[to + k] = delta[at, low + k] + bias[k]
    for i in range(channels):
        k = index(i)
        fed[to + k] = steps[to + k] * u[at, low + k]


@inlined
def lower(steps, to, channels, fastest, least):
    """Keep up the least product, so far, of a step of a row, from ``to`` on, and the strongest decay of its channel."""
    wide()
    to = index(to)
    for i in range(channels):
        k = index(i)
        product = steps[to + k] * fastest[k]
        least[k] = product if product < least[k] else least[k]


@inlined
def scale_row(rows, at, low, channels, factor, target, to):
    """Multiply row ``at``, ``channels`` from ``low`` on, by a factor each; fill ``target`` from ``to`` on."""
    wide()
    at, low, to = index(at), index(low), index(to)
    for i in range(channels):
        k = index(i)
        target[to + k] = rows[at, low + k] * factor[k]


@inlined
def load_row(rows, at, low, channels, target, to):
    """Copy row ``at``, ``channels`` from ``low`` on, to ``target`` from ``to`` on."""
    wide()
    at, low, to = index(at), index(low), index(to)
    for i in range(channels):
        k = index(i)
        target[to + k] = rows[at, low + k]


@inlined
def store_row(source, to, channels, rows, at, low):
    """Copy ``channels`` from ``to`` on to row ``at``, from ``low`` on; the inverse of `load_row`."""
    wide()
    at, low, to = index(at), index(low), index(to)
    for i in range(channels):
        k = index(i)
        rows[at, low + k] = source[to + k]


@inlined
def reaches_far(least):
    """Tell whether a state decays by more than `LEAST` powers of two in a step, by what `lower` kept up."""
    far = f32(0)
    for k in range(WIDTH):
        far = min(far, least[k])
    return far < LEAST
