"""Distances to the nearest boundary, for the short ones that neurites have.

The squares are whole numbers, minimised axis by axis as by Saito & Toriwaki (1994), "New algorithms for Euclidean
distance transformation", Pattern Recognition 27:1551: along an axis no farther than the distances that remain, in
whole rows at a time, which is several times as fast as lower envelopes where boundaries are near.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import bioimage_cpp as bic
import numpy as np
from numpy.typing import NDArray

from vimvol.jit import compiled

_FAR = 2**14
"""Steps along an axis that no voxel is from a boundary."""

_NEAR = 64
"""Steps along a row up to which it is searched; beyond, lower envelopes are faster."""


def distances(inside: NDArray[np.bool_], spacing: Sequence[float]) -> NDArray[np.float32]:
    """Return the Euclidean distance of every voxel to the nearest one outside, 0 there.

    Parameters
    ----------
    inside
        (Y, X) or (Z, Y, X) bool, not all of it true.
    spacing
        Distance of voxels along each axis.

    Returns
    -------
    numpy.ndarray
        float32 of that shape, each the nearest to the exact distance if all voxels are 1 apart.
    """
    volume = inside if inside.ndim == 3 else inside[:, None]
    if all(step == 1 for step in spacing) and math.hypot(*inside.shape) < _FAR:
        result = np.empty(volume.shape, np.float32)
        squares = np.empty(volume.shape, np.int32)
        _along_z(np.ascontiguousarray(volume), squares)
        if _along_y(squares) and _along_x(squares, result):
            return result.reshape(inside.shape)
    return np.asarray(bic.distance.distance_transform(inside, sampling=spacing, number_of_threads=1))


@compiled()
def _along_z(inside: NDArray[np.bool_], squares: NDArray[np.int32]) -> None:
    """Write the squared distance (Z, Y, X) to the nearest voxel outside along z."""
    depth, height, width = squares.shape
    far, one = np.int32(_FAR), np.int32(1)
    for z in range(depth):
        for y in range(height):
            here, row = inside[z, y], squares[z, y]
            before = squares[max(z - 1, 0), y]
            for x in range(width):
                steps = before[x] + one if z > 0 else far
                row[x] = min(steps, far) if here[x] else np.int32(0)
    for z in range(depth - 1, -1, -1):
        for y in range(height):
            row = squares[z, y]
            if z + 1 < depth:
                after = squares[z + 1, y]
                for x in range(width):
                    row[x] = min(row[x], after[x] + one)
    for z in range(depth):
        for y in range(height):
            row = squares[z, y]
            for x in range(width):
                row[x] = row[x] * row[x]


@compiled()
def _along_y(squares: NDArray[np.int32]) -> bool:
    """Make squared distances along z such along z and y; tell whether all are short, else they are of no use."""
    depth, height, width = squares.shape
    plane = np.empty((height, width), np.int32)
    for z in range(depth):
        plane[:] = squares[z]
        for y in range(height):
            row = squares[z, y]
            largest = row.max()
            step = 1
            while step * step < largest and step < height:
                if step > _NEAR:
                    return False
                # beyond the edges of the plane stands the row itself, which changes nothing
                up = plane[y - step] if y >= step else row
                down = plane[y + step] if y + step < height else row
                largest = _lower(row, up, down, np.int32(step * step))
                step += 1
    return True


@compiled()
def _along_x(squares: NDArray[np.int32], result: NDArray[np.float32]) -> bool:
    """Write distances of squares along z and y; tell whether all are short, else they are of no use."""
    depth, height, width = squares.shape
    line = np.full(3 * width, _FAR * _FAR, np.int32)
    for z in range(depth):
        for y in range(height):
            row, out = squares[z, y], result[z, y]
            line[width : 2 * width] = row
            largest = row.max()
            step = 1
            while step * step < largest and step < width:
                if step > _NEAR:
                    return False
                left, right = line[width - step : 2 * width - step], line[width + step : 2 * width + step]
                largest = _lower(row, left, right, np.int32(step * step))
                step += 1
            for x in range(width):
                out[x] = np.sqrt(np.float32(row[x]))
    return True


@compiled()
def _lower(row: NDArray[np.int32], left: NDArray[np.int32], right: NDArray[np.int32], square: np.int32) -> np.int32:
    """Lower a row to the squares of two others, a step away; return its largest."""
    largest = np.int32(0)
    for x in range(len(row)):
        row[x] = min(row[x], min(left[x], right[x]) + square)
        largest = max(largest, row[x])
    return largest
