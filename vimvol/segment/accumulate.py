"""Compiled loops over the voxels of a block: sums over touching pairs, and over the voxels of fragments."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vimvol.jit import compiled
from vimvol.segment.edges import BINS, HIGHEST
from vimvol.segment.faces import BACKWARD

_SHIFT = 5
# a pair's value, 0..510, falls into the bin of what is left without its lowest bits
assert HIGHEST >> _SHIFT == BINS - 1


class PairSums(NamedTuple):
    """Sums over pairs of voxels, by edge; edges in no order.

    Attributes
    ----------
    keys
        (E,) int64, ``smaller << 32 | larger``.
    sums
        (E, 2, 2) int64, sums of the values and of their squares; the second axis tells pairs within a slice (0) from
        pairs across slices (1).
    extremes
        (E, 2, 2) uint16, smallest and largest value.
    histograms
        (E, 2, BINS) uint32.
    """

    keys: NDArray[np.int64]
    sums: NDArray[np.int64]
    extremes: NDArray[np.uint16]
    histograms: NDArray[np.uint32]

    @classmethod
    def zeros(cls, capacity: int) -> PairSums:
        """Return room for edges without a pair."""
        extremes = np.zeros((capacity, 2, 2), np.uint16)
        extremes[..., 0] = HIGHEST
        histograms = np.zeros((capacity, 2, BINS), np.uint32)
        return cls(np.empty(capacity, np.int64), np.zeros((capacity, 2, 2), np.int64), extremes, histograms)

    def resized(self, n: int, capacity: int) -> PairSums:
        """Return the first ``n`` edges with room for ``capacity``."""
        result = PairSums.zeros(capacity)
        result.keys[:n], result.sums[:n] = self.keys[:n], self.sums[:n]
        result.extremes[:n], result.histograms[:n] = self.extremes[:n], self.histograms[:n]
        return result


def pair_sums(
    labels: NDArray[np.int64],
    boundaries: NDArray[np.uint8],
    faces: NDArray[np.uint8],
    begin: tuple[int, ...],
    end: tuple[int, ...],
    across: bool,
) -> PairSums:
    """Sum over the pairs of touching voxels of different fragments.

    Parameters
    ----------
    labels
        (Z, Y, X) int64, below 2^31, contiguous; 0 is outside.
    boundaries
        uint8 of that shape, contiguous.
    faces
        uint8 of that shape, contiguous: where fragments go on behind the faces of their tiles; pairs that both tiles
        see inside one fragment count as without a boundary.
    begin, end
        Corners of the block whose pairs count: those whose voxel nearer to the origin lies in it.
    across
        Whether pairs along z count.
    """
    n, row, rows = 0, 0, (end[0] - begin[0]) * (end[1] - begin[1])
    found = PairSums.zeros(1024 + 3 * labels.shape[2])
    while True:
        slots = np.full(1 << (4 * len(found.keys)).bit_length(), -1, np.int64)
        row, n = _sum_rows(labels, boundaries, faces, begin, end, across, row, n, slots, *found)
        if row == rows:
            return found.resized(n, n)
        found = found.resized(n, 4 * len(found.keys))


@compiled()
def _find(key: int, keys: NDArray[np.int64], slots: NDArray[np.int64], n: int) -> int:
    """Return the number of a key in an open hash table; ``n``, and entered as that, if it is new."""
    mask = len(slots) - 1
    slot = ((key * 0x5851F42D4C957F2D) >> 20) & mask
    while slots[slot] >= 0 and keys[slots[slot]] != key:
        slot = (slot + 1) & mask
    if slots[slot] < 0:
        slots[slot] = n
        keys[n] = key
    return int(slots[slot])


@compiled()
def _sum_rows(
    labels: NDArray[np.int64],
    boundaries: NDArray[np.uint8],
    faces: NDArray[np.uint8],
    begin: tuple[int, ...],
    end: tuple[int, ...],
    across: bool,
    row: int,
    n: int,
    slots: NDArray[np.int64],
    keys: NDArray[np.int64],
    sums: NDArray[np.int64],
    extremes: NDArray[np.uint16],
    histograms: NDArray[np.uint32],
) -> tuple[int, int]:
    """Add rows from a number on to the ``n`` edges there are, until all are done or there may be no room.

    Returns the next row, and the number of edges. ``slots`` are empty.
    """
    depth, height, width = labels.shape
    rows_of_slice = end[1] - begin[1]
    for i in range(n):
        _find(keys[i], keys, slots, i)
    while row < (end[0] - begin[0]) * rows_of_slice and n + 3 * width <= len(keys):
        z, y = begin[0] + row // rows_of_slice, begin[1] + row % rows_of_slice
        row += 1
        for direction in range(3):
            dz, dy, dx = int(direction == 2), int(direction == 1), int(direction == 0)
            if z + dz >= depth or y + dy >= height or (direction == 2 and not across):
                continue
            axis = 2 - direction
            stop = min(end[2], width - dx)
            x = begin[2]
            while x < stop:
                a, b = labels[z, y, x], labels[z + dz, y + dy, x + dx]
                if a == b or a == 0 or b == 0:
                    x += 1
                    continue
                i = _find((a << 32) | b if a < b else (b << 32) | a, keys, slots, n)
                n = max(n, i + 1)
                total, squares = 0, 0
                smallest, largest = int(extremes[i, dz, 0]), int(extremes[i, dz, 1])
                # an edge mostly goes on for some voxels
                while x < stop and labels[z, y, x] == a and labels[z + dz, y + dy, x + dx] == b:
                    value = int(boundaries[z, y, x]) + int(boundaries[z + dz, y + dy, x + dx])
                    # times, as 0 and the value are integers of two kinds to the compiler, which would make them floats
                    value *= 1 - int(
                        (faces[z, y, x] >> axis) & (faces[z + dz, y + dy, x + dx] >> (BACKWARD + axis)) & 1
                    )
                    total += value
                    squares += value * value
                    smallest, largest = min(smallest, value), max(largest, value)
                    histograms[i, dz, value >> _SHIFT] += 1
                    x += 1
                sums[i, dz, 0] += total
                sums[i, dz, 1] += squares
                extremes[i, dz, 0], extremes[i, dz, 1] = smallest, largest
    return row, n


@compiled()
def voxel_sums(labels: NDArray[np.int64], begin: tuple[int, ...], end: tuple[int, ...], n: int) -> NDArray[np.int64]:
    """Sum over the voxels of fragments in a block.

    Parameters
    ----------
    labels
        (Z, Y, X) int64 in 0..n, contiguous; 0 is outside.
    begin, end
        Corners of the block.
    n
        Number of labels.

    Returns
    -------
    numpy.ndarray
        (n, 12) int64, for label i + 1 in row i: voxels, the sums of z, y, x, and of zz, yy, xx, zy, zx, yx, in
        coordinates of the array, and the pairs of its voxels that touch within a slice and across slices; a pair counts
        if its voxel nearer to the origin lies in the block, and both in the array.
    """
    depth, height, width = labels.shape
    result = np.zeros((n, 12), np.int64)
    for z in range(begin[0], end[0]):
        for y in range(begin[1], end[1]):
            x = begin[2]
            while x < end[2]:
                start, label = x, labels[z, y, x]
                while x < end[2] and labels[z, y, x] == label:
                    x += 1
                if label == 0:
                    continue
                i = label - 1
                count = x - start
                # sums of x and of its square over a run of neighbours
                first = count * (start + x - 1) // 2
                second = ((x - 1) * x * (2 * x - 1) - (start - 1) * start * (2 * start - 1)) // 6
                result[i, 0] += count
                result[i, 1] += count * z
                result[i, 2] += count * y
                result[i, 3] += first
                result[i, 4] += count * z * z
                result[i, 5] += count * y * y
                result[i, 6] += second
                result[i, 7] += count * z * y
                result[i, 8] += first * z
                result[i, 9] += first * y
                within = count - 1 + int(x < width and labels[z, y, min(x, width - 1)] == label)
                if y + 1 < height:
                    for k in range(start, x):
                        within += int(labels[z, y + 1, k] == label)
                result[i, 10] += within
                if z + 1 < depth:
                    across = 0
                    for k in range(start, x):
                        across += int(labels[z + 1, y, k] == label)
                    result[i, 11] += across
    return result
