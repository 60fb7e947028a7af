"""Connected pieces: of the maxima of a volume, and of labels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vimvol.jit import compiled


def label_maxima(values: NDArray[np.float32]) -> NDArray[np.uint32]:
    """Give numbers to the maxima of positive values: connected voxels none of whose neighbours is higher.

    Parameters
    ----------
    values
        (Y, X) or (Z, Y, X) float32, finite. Of a voxel all 8 or 26 around it are neighbours.

    Returns
    -------
    numpy.ndarray
        uint32 of that shape; 1..n in C order of the first voxel, 0 elsewhere.
    """
    volume = np.ascontiguousarray(values if values.ndim == 3 else values[None])
    labels = np.zeros(volume.shape, np.uint32)
    # no two new numbers are neighbours; what is not used is never touched
    parents = np.empty(volume.size // 2 + 2, np.uint32)
    _number(labels.reshape(-1), parents, _join_maxima(volume, labels, parents))
    return labels.reshape(values.shape)


def label_pieces(labels: NDArray[np.uint32]) -> tuple[NDArray[np.uint32], int]:
    """Give numbers to the pieces of labels that are connected along the axes.

    Parameters
    ----------
    labels
        (Y, X) or (Z, Y, X) uint32; 0 stays 0.

    Returns
    -------
    pieces : numpy.ndarray
        uint32 of that shape; 1..n in C order of the first voxel, 0 elsewhere.
    n : int
        Number of pieces.
    """
    volume = labels if labels.ndim == 3 else labels[None]
    pieces = np.zeros(volume.shape, np.uint32)
    parents = np.empty(volume.size + 1, np.uint32)
    n = _number(pieces.reshape(-1), parents, _join_pieces(volume, pieces, parents))
    return pieces.reshape(labels.shape), n


@compiled()
def _join_maxima(values: NDArray[np.float32], labels: NDArray[np.uint32], parents: NDArray[np.uint32]) -> int:
    """Give maxima numbers, and join those of neighbours; return the next number."""
    depth, height, width = values.shape
    n = 1
    for z in range(depth):
        for y in range(height):
            row = values[z, y]
            for x in range(width):
                value = row[x]
                if value <= 0 or (x > 0 and row[x - 1] > value) or (x + 1 < width and row[x + 1] > value):
                    continue
                highest = True
                for w in range(max(z - 1, 0), min(z + 2, depth)):
                    for v in range(max(y - 1, 0), min(y + 2, height)):
                        for u in range(max(x - 1, 0), min(x + 2, width)):
                            highest &= values[w, v, u] <= value
                    if not highest:
                        break
                if not highest:
                    continue
                number = np.uint32(0)
                for w in range(max(z - 1, 0), z + 1):
                    for v in range(max(y - 1, 0), min(y + 2, height)):
                        for u in range(max(x - 1, 0), min(x + 2, width)):
                            if labels[w, v, u] > 0:
                                number = _union(parents, number, labels[w, v, u])
                if number == 0:
                    number = parents[n] = np.uint32(n)
                    n += 1
                labels[z, y, x] = number
    return n


@compiled()
def _join_pieces(labels: NDArray[np.uint32], pieces: NDArray[np.uint32], parents: NDArray[np.uint32]) -> int:
    """Give voxels the number of the same label before them, and join numbers that meet; return the next number."""
    depth, height, width = labels.shape
    n = 1
    for z in range(depth):
        for y in range(height):
            row, into = labels[z, y], pieces[z, y]
            above, numbers_above = labels[z, max(y - 1, 0)], pieces[z, max(y - 1, 0)]
            behind, numbers_behind = labels[max(z - 1, 0), y], pieces[max(z - 1, 0), y]
            before, number = np.uint32(0), np.uint32(0)
            for x in range(width):
                label = row[x]
                if label == 0:
                    before = label
                    continue
                if label != before:
                    number = np.uint32(0)
                    before = label
                if y > 0 and above[x] == label and numbers_above[x] != number:
                    number = _union(parents, number, numbers_above[x])
                if z > 0 and behind[x] == label and numbers_behind[x] != number:
                    number = _union(parents, number, numbers_behind[x])
                if number == 0:
                    number = parents[n] = np.uint32(n)
                    n += 1
                into[x] = number
    return n


@compiled()
def _union(parents: NDArray[np.uint32], one: np.uint32, other: np.uint32) -> np.uint32:
    """Join two numbers, the first of which may be 0, none; return the smaller of their roots."""
    while parents[other] != other:
        parents[other] = parents[parents[other]]
        other = parents[other]
    if one == 0:
        return other
    while parents[one] != one:
        parents[one] = parents[parents[one]]
        one = parents[one]
    if one < other:
        parents[other] = one
        return one
    parents[one] = other
    return other


@compiled()
def _number(labels: NDArray[np.uint32], parents: NDArray[np.uint32], end: int) -> int:
    """Give numbers to the roots of ``1 .. end - 1`` in their order, and write them; return how many there are."""
    n = 0
    for i in range(1, end):
        # a root is smaller than what hangs on it, so its number stands there already
        if parents[i] == i:
            n += 1
            parents[i] = n
        else:
            parents[i] = parents[parents[i]]
    for i in range(len(labels)):
        if labels[i] > 0:
            labels[i] = parents[labels[i]]
    return n
