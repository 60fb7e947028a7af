"""One section: where its voxels are, which neurites they belong to, and how far from a membrane."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vimvol.geometry import Block
from vimvol.sample import neurites
from vimvol.sample.noise import Double, Float, hash_array, key, normal, spline_noise
from vimvol.sample.spec import SampleSpec

JITTER = 6.0
"""Standard deviation of the misalignment of serial sections, nm."""


@dataclass(frozen=True)
class Section:
    """A piece of a section; (Y, X) voxels.

    Attributes
    ----------
    index, rows, columns
        Voxel coordinates: the section's, (Y,) and (X,).
    z
        Position of the section's middle, nm.
    bent
        Coordinates of the voxels (Y, X), nm.
    leaves, bodies, cells
        Neurites near by, their bodies here, and whose cell every voxel lies in.
    """

    spec: SampleSpec
    index: int
    rows: NDArray[np.int64]
    columns: NDArray[np.int64]
    z: float
    bent: neurites.Bent
    leaves: neurites.Leaves
    bodies: neurites.Bodies
    cells: neurites.Cells

    @classmethod
    def cut(cls, spec: SampleSpec, index: int, block: Block, halo: int = 0) -> Section:
        """Return the section ``index`` of a block and ``halo`` voxels around it."""
        wide = block.grow((0, halo, halo))
        rows, columns = (np.arange(wide.begin[a], wide.end[a]) for a in (1, 2))
        z = (index + 0.5) * spec.voxel_size[0]
        bent = neurites.bend(spec, z, *_aligned(spec, index, rows, columns))
        leaves = neurites.leaves_near(spec, (bent.y.min(), bent.x.min()), (bent.y.max(), bent.x.max()))
        bodies = neurites.bodies_at(spec, leaves, z)
        return cls(spec, index, rows, columns, z, bent, leaves, bodies, neurites.find_cells(bodies, bent.y, bent.x))

    @property
    def labels(self) -> NDArray[np.uint64]:
        """(Y, X) labels, from 1 on."""
        return np.asarray(self.leaves.ids.astype(np.uint64)[self.cells.first])

    @property
    def flat_y(self) -> Double:
        """(Y,) straight positions of the rows, nm."""
        return _positions(self.rows, self.spec.voxel_size[1])

    @property
    def flat_x(self) -> Double:
        """(X,) straight positions of the columns, nm."""
        return _positions(self.columns, self.spec.voxel_size[2])

    def smooth(self, name: int, spacing: float, depth: float) -> Float:
        """Return smooth noise (Y, X) in [-1, 1] with lattice points ``spacing`` (y, x) and ``depth`` (z) nm apart."""
        stream = key(self.spec.seed, 4, name)
        return spline_noise(stream, (depth, spacing, spacing), self.z, self.flat_y, self.flat_x)

    def membrane(self) -> tuple[Float, Float]:
        """Return the distance from the membrane, nm, and its darkness in [0, 1]; both (Y, X).

        A section shows the sum over its thickness. A membrane that crosses it obliquely moves sideways on the way and
        leaves a broad, pale band: its profile is averaged over that way.
        """
        spec, gap = self.spec, self.cells.gap
        gy, gx = np.gradient(gap, spec.voxel_size[1], spec.voxel_size[2])
        slope = np.maximum(np.sqrt(gy * gy + gx * gx), 0.5)
        depth = gap / slope
        step = 0.5 * spec.voxel_size[0]
        bent = neurites.bend(spec, self.z + step, *_aligned(spec, self.index, self.rows, self.columns))
        above = neurites.bodies_at(spec, self.leaves, self.z + step)
        first, second = (neurites.distance(above, i, bent.y, bent.x) for i in (self.cells.first, self.cells.second))
        way = np.abs(second - first - gap) / slope
        width = 0.5 * spec.membrane_width * (1.05 + 0.9 * self.smooth(5, 160.0, 100.0))
        if spec.look.thickened:
            width += 20.0 * np.clip(5.0 * (self.smooth(8, 260.0, 120.0) + 0.15 * spec.look.thickened - 0.3), 0.0, 1.0)
        return depth.astype(np.float32), _smeared(depth, width, way).astype(np.float32)


def _aligned(
    spec: SampleSpec, index: int, rows: NDArray[np.int64], columns: NDArray[np.int64]
) -> tuple[Double, Double]:
    """Return the positions, nm, of rows and columns, moved by the misalignment of their section."""
    y, x = _positions(rows, spec.voxel_size[1]), _positions(columns, spec.voxel_size[2])
    if not spec.serial_sections:
        return y, x
    h = hash_array(key(spec.seed, 3), np.array([index]))
    dy, dx = (JITTER * np.clip(normal(h, part).astype(np.float64), -2.0, 2.0) for part in (0, 1))
    return y + dy, x + dx


def _positions(indices: NDArray[np.int64], size: float) -> Double:
    """Return the middles of voxels, nm."""
    return np.asarray((indices + 0.5) * size, dtype=np.float64)


def bump(t: NDArray[np.floating], width: float) -> Float:
    """Return a smooth bump of height 1 at 0 that ends at ± ``width``."""
    q = np.maximum(1.0 - (t / width) ** 2, 0.0)
    return np.asarray((q * q).astype(np.float32))


def _smeared(t: Double, width: NDArray[np.floating], way: Double) -> Double:
    """Return the mean of a `bump` over ``t`` ± ``way``."""
    way = np.maximum(way, 0.05 * width)

    def primitive(s: Double) -> Double:
        s = np.clip(s / width, -1.0, 1.0)
        q = s * s
        return s * (1.0 - q * (2.0 / 3.0 - q / 5.0)) * width

    return (primitive(t + way) - primitive(t - way)) / (2.0 * way)
