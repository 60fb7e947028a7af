"""Kernels that make one level of a pyramid from the level below: mean for intensities, mode for ids."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def mean_downsample(array: NDArray[Any], factor: Sequence[int]) -> NDArray[Any]:
    """Average the voxels of every cell.

    Parameters
    ----------
    array
        (z, y, x) or (c, z, y, x), uint8, uint16 or float.
    factor
        Cell (z, y, x), each 1 or 2. A cell at the end of an odd axis counts the voxels that there are.

    Returns
    -------
    ndarray
        Same dtype and axes, extents divided by ``factor`` and rounded up. Integers are rounded, halves up; floats are
        summed in float64; a cell with a NaN is NaN.

    Raises
    ------
    ValueError
        If a factor is neither 1 nor 2, or the rank does not fit.
    """
    cells = _cells(array, factor)
    if array.dtype.kind == "f":
        mean = sum(cells[1:], start=cells[0].astype(np.float64)) / len(cells)
        return mean.astype(array.dtype)
    wide = np.uint16 if array.dtype == np.uint8 else np.uint32 if array.dtype == np.uint16 else np.uint64
    total = np.full(cells[0].shape, len(cells) // 2, dtype=wide)
    for cell in cells:
        total += cell
    total >>= wide((len(cells)).bit_length() - 1)
    return total.astype(array.dtype)


def mode_downsample(labels: NDArray[Any], factor: Sequence[int]) -> NDArray[Any]:
    """Take the most frequent id of every cell.

    0 counts as any other id, but loses ties; of other ids the smallest wins a tie. Comparisons are of integers, so ids
    above 2**53 stay exact, and no id appears that its cell does not hold.

    Parameters
    ----------
    labels
        (z, y, x) or (c, z, y, x), unsigned integers. Of signed ones, negative ids count as larger than positive ones.
    factor
        Cell (z, y, x), each 1 or 2. A cell at the end of an odd axis counts the voxels that there are.

    Returns
    -------
    ndarray
        Same dtype and axes, extents divided by ``factor`` and rounded up.

    Raises
    ------
    ValueError
        If a factor is neither 1 nor 2, the rank does not fit, or the ids are no integers.
    """
    if labels.dtype.kind not in "ui":
        raise ValueError(f"labels are integers, not {labels.dtype}")
    unsigned = labels.view(np.dtype(f"u{labels.dtype.itemsize}"))
    cells = _cells(unsigned, factor)
    out = cells[0].copy()
    mixed = np.zeros(out.shape, dtype=bool)
    for cell in cells[1:]:
        mixed |= cell != out
    if mixed.any():
        out[mixed] = _mode([cell[mixed] for cell in cells])
    return out.view(labels.dtype)


def _cells(array: NDArray[Any], factor: Sequence[int]) -> list[NDArray[Any]]:
    """Return one view for each position inside a cell.

    An odd axis is padded with its last voxel. That doubles every voxel of the last cells, and so changes neither mean
    nor mode of them.
    """
    if len(factor) != 3 or array.ndim not in (3, 4) or any(f not in (1, 2) for f in factor):
        raise ValueError(
            f"no cells {tuple(factor)} in an array of {array.ndim} axes; use three of 1 or 2, and 3 or 4 axes"
        )
    outer = array.ndim - 3
    odd = [(0, 0)] * outer + [(0, s % f) for s, f in zip(array.shape[outer:], factor, strict=True)]
    padded = np.pad(array, odd, mode="edge") if any(after for _, after in odd) else array
    fz, fy, fx = factor
    return [padded[..., z::fz, y::fy, x::fx] for z, y, x in itertools.product(range(fz), range(fy), range(fx))]


def _mode(cells: list[NDArray[Any]]) -> NDArray[Any]:
    """Return the mode along the list, unsigned integers of shape (n,) each."""
    counts = [np.ones(cells[0].shape, dtype=np.uint8) for _ in cells]
    for i, j in itertools.combinations(range(len(cells)), 2):
        same = cells[i] == cells[j]
        counts[i] += same
        counts[j] += same
    best, most = cells[0].copy(), counts[0]
    one = best.dtype.type(1)
    for cell, count in zip(cells[1:], counts[1:], strict=True):
        # Subtracting 1 turns 0 into the largest number, and so into the last choice.
        better = (count > most) | ((count == most) & (cell - one < best - one))
        best[better] = cell[better]
        most = np.maximum(most, count)
    return best
