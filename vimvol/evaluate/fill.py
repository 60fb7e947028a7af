"""Gives the background of a segmentation to the nearest segment, in windows of a volume or all at once.

The Euclidean distance is separable, and so is the order (distance, position): a sweep along each axis keeps the least
of it (Saito & Toriwaki 1994, Pattern Recognition 27:1551). A voxel as near to two segments takes the one whose nearest
voxel comes first in the volume, so the result does not depend on the window, as long as that holds every candidate.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from vimvol.geometry import Block
from vimvol.jit import compiled

FAR = int(np.iinfo(np.int64).max)
FIRST_HALO = 4

Read = Callable[[Block], NDArray[np.integer]]


def fill_background(seg: NDArray[np.integer]) -> NDArray[np.integer]:
    """Give every voxel of label 0 the label nearest to it; all stays 0 where there is none.

    Parameters
    ----------
    seg
        Non-negative integers, any number of axes. Distances are counted in voxels; of voxels that are equally near,
        the first in C order counts.
    """
    return nearest_labels(seg)[0]


def nearest_labels(seg: NDArray[np.integer]) -> tuple[NDArray[np.integer], NDArray[np.int64]]:
    """Return the nearest label of every voxel, and the square of its distance in voxels, `FAR` if there is no label."""
    labels = seg.copy()
    square = np.where(seg == 0, FAR, 0).astype(np.int64)
    if not (seg == 0).any() or not seg.any():
        return labels, square
    for axis in reversed(range(seg.ndim)):  # what is swept last decides first between equals
        _sweep(labels, square, axis)
    return labels, square


def fill_block(read: Read, block: Block, shape: Sequence[int]) -> NDArray[np.integer]:
    """Return a block of what `fill_background` would make of the whole volume.

    The window around the block grows until no segment outside it can be nearer than what was found inside.

    Parameters
    ----------
    read
        Gives the labels of any block of the volume.
    block
        The voxels that are wanted.
    shape
        Voxels of the volume.
    """
    halo = 0
    while True:
        window = block.grow((halo,) * len(shape)).clip(shape)
        labels, square = nearest_labels(read(window))
        inside = block.within(window).slices
        if (square[inside] < _reach(block, window, shape)).all() or window == Block.whole(shape):
            return np.ascontiguousarray(labels[inside])
        halo = max(2 * halo, FIRST_HALO)


def _reach(block: Block, window: Block, shape: Sequence[int]) -> NDArray[np.int64]:
    """Return the square of the distance from each voxel of the block to the nearest voxel outside the window."""
    reach = np.full(block.shape, FAR, np.int64)
    for axis, extent in enumerate(shape):
        position = np.arange(block.begin[axis], block.end[axis], dtype=np.int64)
        line = np.full(len(position), FAR, np.int64)
        if window.begin[axis] > 0:
            line = np.minimum(line, (position - window.begin[axis] + 1) ** 2)
        if window.end[axis] < extent:
            line = np.minimum(line, (window.end[axis] - position) ** 2)
        reach = np.minimum(reach, line.reshape([-1 if a == axis else 1 for a in range(len(shape))]))
    return reach


def _sweep(labels: NDArray[np.integer], square: NDArray[np.int64], axis: int) -> None:
    """Replace, in place, every voxel's (square of distance, label) by the least of its line."""
    lines = tuple(np.moveaxis(array, axis, -1) for array in (labels, square))
    extent = labels.shape[axis]
    flat = [np.ascontiguousarray(line).reshape(-1, extent) for line in lines]
    _sweep_lines(*flat)
    for line, result in zip(lines, flat, strict=True):
        line[...] = result.reshape(line.shape)


@compiled()
def _sweep_lines(labels: NDArray[np.integer], square: NDArray[np.int64]) -> None:
    """Do what `_sweep` does along the last axis of (lines, extent) arrays."""
    lines, extent = labels.shape
    before_labels, before_square = labels[0].copy(), square[0].copy()
    for line in range(lines):
        before_labels[:] = labels[line]
        before_square[:] = square[line]
        if before_square.max() == 0 or before_square.min() == FAR:
            continue
        for x in range(extent):
            least, label = before_square[x], before_labels[x]
            offset = 1
            while offset < extent and offset * offset <= least:
                before, behind = x - offset, x + offset
                if behind < extent and before_square[behind] < FAR:
                    distance = before_square[behind] + offset * offset
                    if distance < least:
                        least, label = distance, before_labels[behind]
                if before >= 0 and before_square[before] < FAR:
                    distance = before_square[before] + offset * offset
                    if distance <= least:  # as near as what was found further on in the volume: comes first
                        least, label = distance, before_labels[before]
                offset += 1
            square[line, x], labels[line, x] = least, label
