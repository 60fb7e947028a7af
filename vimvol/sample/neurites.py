"""The shapes of neurites: a random tiling of the section, rounded bodies in its tiles, and the cells around them.

A section is cut into rectangles by random splits. Every rectangle holds one neurite's body, a rounded box that
wanders and swells along z but never leaves its rectangle. A point belongs to the neurite whose body is nearest (the
additively weighted Voronoi diagram of the bodies), in coordinates that smooth noise has bent (`bend`). What follows:

- every neurite is there in every section, since it owns at least its body; so the ids are known without looking;
- in a section it is one piece: on the way from a point to the nearest body, that body stays the nearest;
- from section to section the pieces overlap, since bodies move slowly.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from vimvol.sample.noise import (
    Double,
    Hash,
    hash_array,
    key,
    mix,
    normal,
    spline_noise,
    spline_weights,
    uniform,
    weighted,
)
from vimvol.sample.spec import SampleSpec

ROOT = 10
"""Side of the squares in which splitting starts, in neurite sizes."""
LARGEST = 7.0
"""Width of the largest rectangle, in the same."""
WANDER = 0.2
"""Share of a rectangle that is left to the body's wandering."""
WANDER_LENGTH = 1400.0
"""Distance along z over which bodies change place and calibre, nm."""
TILE = 64
"""Voxels (y, x) for which candidates are chosen together."""
FAR = 1e9
"""Distance, nm, of a neurite that is not there."""

# Amplitude and spacing of the noise that bends outlines, in neurite sizes, and its spacing along z in nm. The ratio of
# amplitude to spacing is the slope: the sum stays so small that the plane does not fold over and pieces stay whole.
BENDS = ((4.0, 6.4, 2400.0), (1.3, 1.7, 1300.0), (0.52, 0.62, 700.0), (0.17, 0.24, 350.0))
COARSE = 2
"""How many of these do not deform organelles."""


@dataclass(frozen=True)
class Leaves:
    """Neurites: one rectangle each, N in all. Lengths in nm, axes (y, x).

    Attributes
    ----------
    ids
        (N,) labels, from 1 on.
    keys
        (N,) hash of each, from which its properties come.
    centre, half
        (N, 2) centre and half extent of the rectangles.
    """

    ids: NDArray[np.int64]
    keys: Hash
    centre: Double
    half: Double

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class Bodies:
    """The rounded boxes of neurites in one section: what lies within ``radius`` (N,) of ``centre`` ± ``core``."""

    centre: Double
    core: Double
    radius: Double


@dataclass(frozen=True)
class Cells:
    """Which neurites are near each voxel of a section; arrays of (Y, X).

    Attributes
    ----------
    first, second
        Index of the nearest and the second nearest neurite.
    gap
        How much farther the second is than the first, nm: 0 on the membrane.
    """

    first: NDArray[np.int64]
    second: NDArray[np.int64]
    gap: Double


def leaves_near(spec: SampleSpec, low: tuple[float, float], high: tuple[float, float]) -> Leaves:
    """Return the neurites that can be first or second nearest to a point between ``low`` and ``high`` (y, x), nm."""
    counts, size = _roots(spec)
    # A body is at most a root's diagonal away from a point of that root, and another one at most a root further.
    reach = 2.0 * float(np.hypot(size[0], size[1])) + max(size)
    first = [int(np.clip((a - reach) // s, 0, n - 1)) for a, s, n in zip(low, size, counts, strict=True)]
    last = [int(np.clip((b + reach) // s, 0, n - 1)) for b, s, n in zip(high, size, counts, strict=True)]
    rows, columns = np.mgrid[first[0] : last[0] + 1, first[1] : last[1] + 1]
    roots = (rows * counts[1] + columns).ravel()
    owner, keys, box = _split(spec, roots)
    starts = _first_ids(spec)
    # Leaves come sorted by root; the rank within the root is the distance to the root's first leaf.
    begins = np.searchsorted(owner, owner)
    ids = starts[owner] + (np.arange(len(owner)) - begins)
    return Leaves(ids, keys, (box[:, :2] + box[:, 2:]) / 2, (box[:, 2:] - box[:, :2]) / 2)


def count_neurites(spec: SampleSpec) -> int:
    """Return the number of neurites of the volume: labels are 1 to this."""
    return int(_first_ids(spec)[-1]) - 1


@lru_cache(maxsize=4)
def _first_ids(spec: SampleSpec) -> NDArray[np.int64]:
    """Return the first label of every root, and the label after the last."""
    total = int(np.prod(_roots(spec)[0]))
    counts = np.zeros(total, dtype=np.int64)
    for begin in range(0, total, 4096):  # by parts, so that a huge volume needs little memory
        end = min(begin + 4096, total)
        owner, _, _ = _split(spec, np.arange(begin, end))
        counts[begin:end] = np.bincount(owner - begin, minlength=end - begin)
    return np.concatenate([[1], 1 + np.cumsum(counts)])


def _roots(spec: SampleSpec) -> tuple[tuple[int, int], tuple[float, float]]:
    """Return number and size, nm, of the roots along (y, x): they fill the section exactly."""
    side = ROOT * spec.neurite_size
    ny, nx = (max(1, round(e / side)) for e in spec.extent)
    return (ny, nx), (spec.extent[0] / ny, spec.extent[1] / nx)


def _split(spec: SampleSpec, roots: NDArray[np.int64]) -> tuple[NDArray[np.int64], Hash, Double]:
    """Return root, hash and box (y0, x0, y1, x1) in nm of all leaves of some roots, sorted by root."""
    counts, size = _roots(spec)
    corner = np.stack([roots // counts[1] * size[0], roots % counts[1] * size[1]], axis=1)
    box = np.concatenate([corner, corner + np.array(size)], axis=1)
    keys = hash_array(key(spec.seed, 1), roots)
    owner = roots
    mood = normal(keys, 3).astype(np.float64)  # regions of fine and of coarse neurites
    largest = min(LARGEST * spec.neurite_size, 0.4 * min(spec.extent))  # a small volume has several neurites, too
    done: list[tuple[NDArray[np.int64], Hash, Double]] = []
    while len(owner):
        sides = box[:, 2:] - box[:, :2]
        width = np.sqrt(sides[:, 0] * sides[:, 1])
        mood = 0.75 * mood + 0.66 * normal(keys, 2)
        # Rounded, so that a last bit of the exponential, which may depend on the length of the array, changes nothing.
        stop = width <= spec.neurite_size * np.round(np.exp(0.75 * mood + 0.75), 6)
        stop &= width < largest
        stop |= sides.max(axis=1) < 0.95 * spec.neurite_size
        done.append((owner[stop], keys[stop], box[stop]))
        owner, keys, box, mood = (a[~stop] for a in (owner, keys, box, mood))
        keys, box = _halve(keys, box)
        owner, mood = np.repeat(owner, 2), np.repeat(mood, 2)
    owner, keys, box = (np.concatenate(parts) for parts in zip(*done, strict=True))
    order = np.lexsort((keys, owner))
    return owner[order], keys[order], box[order]


def _halve(keys: Hash, box: Double) -> tuple[Hash, Double]:
    """Cut boxes across their longer side, somewhere between 30 and 70 %."""
    rows = np.arange(len(box))
    sides = box[:, 2:] - box[:, :2]
    axis = (sides[:, 1] > sides[:, 0]).astype(np.int64)
    cut = box[rows, axis] + sides[rows, axis] * (0.3 + 0.4 * uniform(keys, 1))
    children = np.repeat(box, 2, axis=0)
    children[2 * rows, axis + 2] = cut
    children[2 * rows + 1, axis] = cut
    seeds = np.repeat(keys, 2)
    seeds[1::2] += np.uint64(0x632BE59BD9B4E019)
    return mix(seeds + np.uint64(1)), children


def bodies_at(spec: SampleSpec, leaves: Leaves, z: float) -> Bodies:
    """Return the bodies in the section at ``z`` nm."""
    room = leaves.half * (1.0 - WANDER)
    drift = np.stack([_along_z(leaves.keys, 1, z), _along_z(leaves.keys, 2, z)], axis=1)
    calibre = 0.85 + 0.15 * _along_z(leaves.keys, 3, z)
    # Large neurites fill their room and become round; small ones give way and fill what is left between them.
    size = leaves.half.min(axis=1) / spec.neurite_size
    thickness = np.clip(0.55 + 0.43 * (size - 1) / (size + 1) + 0.3 * uniform(leaves.keys, 0), 0.3, 0.95)
    radius = room.min(axis=1) * thickness * calibre
    length = uniform(leaves.keys, 3)[:, None]
    core = (room - room.min(axis=1)[:, None]) * length
    play = room - radius[:, None] - core
    offset = np.stack([2.0 * uniform(mix(leaves.keys), part) - 1.0 for part in (0, 1)], axis=1)
    return Bodies(leaves.centre + drift * leaves.half * WANDER + offset * play, core, radius)


def _along_z(keys: Hash, channel: int, z: float) -> Double:
    """Return (N,) smooth noise in [-1, 1] along z, one course a neurite."""
    index, weights = spline_weights(np.array([z / WANDER_LENGTH]))
    values = [2.0 * uniform(hash_array(keys, np.array([channel]), index + k)) - 1.0 for k in range(4)]
    return np.asarray(weighted(weights, values))


@dataclass(frozen=True)
class Bent:
    """Bent coordinates of the voxels of a section: arrays of (Y, X), nm.

    Attributes
    ----------
    y, x
        Bent at all scales: in these, neurites are nearest-body cells.
    coarse_y, coarse_x
        Bent at the coarse scales alone; organelles are round in these.
    """

    y: Double
    x: Double
    coarse_y: Double
    coarse_x: Double


def bend(spec: SampleSpec, z: float, y: Double, x: Double) -> Bent:
    """Return the bent coordinates of the section at ``z`` nm, with rows at ``y`` (Y,) and columns at ``x`` (X,) nm.

    Towards the border of the volume the displacement across it fades, so that neurites do not leave and come back.
    """
    zero = np.zeros((len(y), len(x)))
    coarse = y[:, None] + zero, x[None, :] + zero
    for scale in range(COARSE):
        coarse = _bend_once(spec, scale, z, y, x, coarse)
    fine = coarse
    for scale in range(COARSE, len(BENDS)):
        fine = _bend_once(spec, scale, z, y, x, fine)
    return Bent(*fine, *coarse)


def _bend_once(
    spec: SampleSpec, scale: int, z: float, y: Double, x: Double, bent: tuple[Double, Double]
) -> tuple[Double, Double]:
    amplitude, spacing, length = BENDS[scale]
    height, size = amplitude * spec.neurite_size, spacing * spec.neurite_size
    moves = [spline_noise(key(spec.seed, 2, scale, axis), (length, size, size), z, y, x) for axis in (0, 1)]
    fade = [
        height * np.clip(np.minimum(p, extent - p) / (0.7 * height), 0.0, 1.0)
        for p, extent in zip((y, x), spec.extent, strict=True)
    ]
    return bent[0] + moves[0] * fade[0][:, None], bent[1] + moves[1] * fade[1]


def find_cells(bodies: Bodies, y: Double, x: Double) -> Cells:
    """Find the two nearest neurites of every point; ``y`` and ``x`` of (Y, X) in nm, bent."""
    first = np.zeros(y.shape, dtype=np.int64)
    second = np.zeros(y.shape, dtype=np.int64)
    gap = np.empty(y.shape)
    for row in range(0, y.shape[0], TILE):
        for column in range(0, y.shape[1], TILE):
            tile = (slice(row, row + TILE), slice(column, column + TILE))
            _nearest_two(bodies, y[tile], x[tile], first[tile], second[tile], gap[tile])
    return Cells(first, second, gap)


def _nearest_two(
    bodies: Bodies,
    y: Double,
    x: Double,
    first: NDArray[np.int64],
    second: NDArray[np.int64],
    gap: Double,
) -> None:
    nearest = np.full(y.shape, FAR)
    next_one = np.full(y.shape, 2 * FAR)
    for i in _candidates(bodies, y, x):  # ascending, and only a strictly nearer one replaces: ties go to the lower id
        d = distance(bodies, i, y, x)
        nearer = d < nearest
        between = (d < next_one) & ~nearer
        np.copyto(next_one, nearest, where=nearer)
        np.copyto(second, first, where=nearer)
        np.copyto(nearest, d, where=nearer)
        np.copyto(first, i, where=nearer)
        np.copyto(next_one, d, where=between)
        np.copyto(second, i, where=between)
    gap[...] = next_one - nearest


def _candidates(bodies: Bodies, y: Double, x: Double) -> NDArray[np.int64]:
    """Return, ascending, all bodies that can be first or second nearest somewhere in the bounding box of the points."""
    middle = np.array([(y.min() + y.max()) / 2, (x.min() + x.max()) / 2])
    half = np.array([(y.max() - y.min()) / 2, (x.max() - x.min()) / 2])
    apart = np.abs(bodies.centre - middle)
    least = np.maximum(apart - half - bodies.core, 0.0)
    most = np.maximum(apart + half - bodies.core, 0.0)
    lower = np.hypot(least[:, 0], least[:, 1]) - bodies.radius
    upper = np.hypot(most[:, 0], most[:, 1]) - bodies.radius
    limit = np.partition(upper, 1)[1] if len(upper) > 1 else FAR
    return np.flatnonzero(lower <= limit + 1e-6)


def distance(bodies: Bodies, index: NDArray[np.int64] | np.int64, y: Double, x: Double) -> Double:
    """Return the distance, nm, of points to the surface of bodies: negative inside by at most the radius."""
    dy = np.maximum(np.abs(y - bodies.centre[index, 0]) - bodies.core[index, 0], 0.0)
    dx = np.maximum(np.abs(x - bodies.centre[index, 1]) - bodies.core[index, 1], 0.0)
    return np.asarray(np.sqrt(dy * dy + dx * dx) - bodies.radius[index])
