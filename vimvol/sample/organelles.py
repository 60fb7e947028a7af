"""What lies inside neurites: mitochondria, microtubules and vesicles, placed by hashes and followed along z."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vimvol.sample.neurites import Bodies, Leaves
from vimvol.sample.noise import Double, Float, Hash, hash_array, mix, uniform

SLOT = 1000.0
"""Length along z, nm, that holds at most one mitochondrion of a row."""
SMALLEST = 60.0
"""Radius of a body, nm, below which a neurite carries no mitochondria."""
NOWHERE = 1e4
"""Distance, nm, from a thing that is not there."""


@dataclass(frozen=True)
class Mitochondria:
    """Ellipses in one section, one row of them: arrays of (N,), one entry a neurite, nm.

    Attributes
    ----------
    y, x
        Centres, in bent coordinates.
    long, short
        Half axes; 0 where there is none.
    dy, dx
        Direction of the long axis.
    cut
        How far from its tip the section cuts it, 0-1.
    """

    y: Double
    x: Double
    long: Double
    short: Double
    dy: Double
    dx: Double
    cut: Double


def mitochondria_at(leaves: Leaves, bodies: Bodies, z: float, row: int, share: float) -> Mitochondria:
    """Return the mitochondria of a row (0 or 1) that the section at ``z`` nm cuts.

    ``share`` is how many there are, relative to what is common. They lie in slots along z, close to the body of their
    neurite, with which they move.
    """
    phase = uniform(mix(leaves.keys), 2) + 0.5 * row  # so that not all begin in the same section
    slot = np.floor(z / SLOT + phase).astype(np.int64)
    h = hash_array(leaves.keys, np.array([11 + row]), slot)
    g = mix(h + np.uint64(1))
    half_length = SLOT * (0.3 + 0.2 * uniform(h, 0))
    middle = (slot - phase) * SLOT + half_length + (SLOT - 2 * half_length) * uniform(h, 1)
    cut = np.clip(1.0 - ((z - middle) / half_length) ** 2, 0.0, 1.0)
    # Rows lie on either side of the body's middle, and only thick neurites have the second.
    side = 1.0 - 2.0 * row
    short = np.minimum(bodies.radius * (0.7 + 0.35 * uniform(h, 2)), 110.0 + 120.0 * uniform(g, 0)) * np.sqrt(cut)
    long = np.minimum(short * (1.1 + 0.9 * uniform(h, 3)), np.maximum(1.4 * bodies.radius, short))
    there = (bodies.radius > SMALLEST * (1 + 1.5 * row)) & (uniform(g, 1) < share * (0.7, 0.8)[row]) & (cut > 0)
    dy, dx = _direction(g)
    play = np.maximum(bodies.radius - long, 0.0) * 0.8
    away_y, away_x = _direction(leaves.keys)
    y = bodies.centre[:, 0] + side * away_y * play + (2 * uniform(g, 2) - 1) * bodies.core[:, 0] * 0.7
    x = bodies.centre[:, 1] + side * away_x * play + (2 * uniform(g, 3) - 1) * bodies.core[:, 1] * 0.7
    return Mitochondria(y, x, np.where(there, long, 0.0), np.where(there, short, 0.0), dy, dx, cut)


def _direction(h: Hash) -> tuple[Double, Double]:
    """Return a unit vector for each hash, without trigonometry."""
    a = 2.0 * uniform(mix(h + np.uint64(7)), 0) - 1.0
    b = 2.0 * uniform(mix(h + np.uint64(7)), 1) - 1.0
    length = np.sqrt(a * a + b * b) + 1e-3
    return a / length, b / length


@dataclass(frozen=True)
class Grains:
    """Small round things, at most one in a cell of space, e.g. vesicles.

    Attributes
    ----------
    cell, depth
        Extent of a cell in the section and across sections, nm.
    radius
        Smallest and largest radius, nm; the largest fits into a cell twice.
    """

    cell: float
    depth: float
    radius: tuple[float, float]

    def outline(self, stream: int, z: float, y: Double, x: Double, density: Float) -> tuple[Float, Float]:
        """Return the distance of voxels from the outline of their grain, and a number that belongs to the grain.

        Parameters
        ----------
        stream
            Names the grains; see `vimvol.sample.noise.key`.
        z, y, x
            Position of the section, its rows (Y,) and its columns (X,), nm.
        density
            Probability that a cell has a grain, for every voxel (Y, X).

        Returns
        -------
        distance
            (Y, X) nm, negative inside, large where there is no grain.
        number
            (Y, X) in [0, 1).
        """
        iy = np.floor(y / self.cell).astype(np.int64)
        layer = np.floor(np.array([z / self.depth])).astype(np.int64)
        row = hash_array(stream, layer, iy)
        shifted = x[None, :] + (uniform(row) * self.cell)[:, None]  # every row of cells by itself: no pattern shows
        ix = np.floor(shifted / self.cell).astype(np.int64)
        h = hash_array(row[:, None], ix)
        number = uniform(h, 3)
        size = self.radius[0] + (self.radius[1] - self.radius[0]) * number
        play = self.cell - 2.0 * size
        dy = (y - iy * self.cell)[:, None] - (size + play * uniform(h, 1))
        dx = (shifted - ix * self.cell) - (size + play * uniform(h, 2))
        away = np.sqrt(dy * dy + dx * dx) - size
        return np.where(uniform(h, 0) < density, away, NOWHERE).astype(np.float32), number.astype(np.float32)
