"""Randomness that is a function of position: hashes, lookups and smooth noise.

Nothing here has a state, so a voxel gets the same value whichever block it is computed in. Per voxel there are only
integer operations, additions, multiplications, divisions and square roots: these are exactly defined, whereas ``exp``
or ``sin`` may differ in the last bit between the vectorised part of an array and its rest.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

Float = NDArray[np.float32]
Double = NDArray[np.float64]
Hash = NDArray[np.uint64]
Integer = NDArray[np.int64]

_MASK = (1 << 64) - 1
_STEP = 0x9E3779B97F4A7C15


def key(*parts: int) -> int:
    """Return the 64-bit hash of some integers; names the independent streams of a volume."""
    value = 0
    for part in parts:
        value = _mix_int((value + _STEP * (1 + (part & _MASK))) & _MASK)
    return value


def hash_array(start: int | Hash, *indices: Integer) -> Hash:
    """Return the 64-bit hash (splitmix64) of a key and integer coordinates, which broadcast.

    The last coordinate varies over the full array, so give the fastest axis last.
    """
    value = np.atleast_1d(np.asarray(start, dtype=np.uint64))
    for index in indices:
        salted = (np.atleast_1d(index).astype(np.uint64) + np.uint64(1)) * np.uint64(_STEP)
        value = mix(value + salted)
    return value


def mix(value: Hash) -> Hash:
    """Return the finalizer of splitmix64 of an array of at least one axis (Steele et al. 2014)."""
    value = value ^ (value >> np.uint64(30))
    value *= np.uint64(0xBF58476D1CE4E5B9)
    value ^= value >> np.uint64(27)
    value *= np.uint64(0x94D049BB133111EB)
    value ^= value >> np.uint64(31)
    return value


def _mix_int(value: int) -> int:
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
    return value ^ (value >> 31)


def uniform(value: Hash, part: int = 0) -> Double:
    """Return numbers in [0, 1) from one of the four 16-bit parts of hashes."""
    return _bits(value, part).astype(np.float64) / 65536.0


def normal(value: Hash, part: int = 0) -> Float:
    """Return standard normal numbers from one of the four 16-bit parts of hashes."""
    return _normal_table()[_bits(value, part)]


def _bits(value: Hash, part: int) -> NDArray[np.uint16]:
    return (value >> np.uint64(16 * part)).astype(np.uint16)


@lru_cache(maxsize=1)
def _normal_table() -> Float:
    # Rounded to 1/1024, so that a last bit of the quantile function on another machine does not show.
    quantiles = ndtri((np.arange(65536) + 0.5) / 65536.0)
    return np.asarray(np.round(quantiles * 1024) / 1024, dtype=np.float32)


def spline_weights(position: Double) -> tuple[Integer, Double]:
    """Return the first of four lattice points, and the (4, N) cubic B-spline weights, at positions in lattice units."""
    floor = np.floor(position)
    t = position - floor
    s = 1.0 - t
    near = (4.0 - 6.0 * t * t + 3.0 * t * t * t) / 6.0
    far = (4.0 - 6.0 * s * s + 3.0 * s * s * s) / 6.0
    return floor.astype(np.int64) - 1, np.stack([s * s * s / 6.0, near, far, t * t * t / 6.0])


def spline_noise(stream: int, spacing: tuple[float, float, float], z: float, y: Double, x: Double) -> Float:
    """Return smooth noise in [-1, 1] on one section, of standard deviation about 0.2.

    A cubic B-spline with uniform random coefficients on a lattice.

    Parameters
    ----------
    stream
        Names the noise; see `key`.
    spacing
        Distance of lattice points along (z, y, x), nm: half of the shortest wavelength.
    z, y, x
        Position of the section, its rows (Y,) ascending, and its columns (X,), nm.

    Returns
    -------
    array of (Y, X)
    """
    iz, wz = spline_weights(np.array([z / spacing[0]]))
    iy, wy = spline_weights(y / spacing[1])
    ix, wx = spline_weights(x / spacing[2])
    rows = np.arange(iy.min(), iy.max() + 4)
    columns = np.arange(ix.min(), ix.max() + 4)
    layers = (iz + np.arange(4))[:, None, None]
    lattice = 2.0 * uniform(hash_array(stream, layers, rows[:, None], columns)) - 1.0
    layer = weighted(wz[:, :, None], lattice)
    lines = weighted(wx[:, None, :], [layer[:, ix - columns[0] + k] for k in range(4)]).astype(np.float32)
    weights = wy.astype(np.float32)[:, :, None]
    plane = np.empty((len(y), len(x)), dtype=np.float32)
    # Rows between the same two lattice points share their four lines.
    starts = np.searchsorted(iy, rows[:-2])
    for row, (begin, end) in enumerate(itertools.pairwise(starts)):
        plane[begin:end] = weighted(weights[:, begin:end], lines[row : row + 4])
    return plane


def weighted(weights: NDArray[Any], values: Sequence[NDArray[Any]] | NDArray[Any]) -> NDArray[Any]:
    """Return the weighted sum of four arrays in a fixed order: a matrix product would sum by the shape of the block."""
    total = ((weights[0] * values[0] + weights[1] * values[1]) + weights[2] * values[2]) + weights[3] * values[3]
    return np.asarray(total)
