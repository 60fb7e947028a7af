"""Instances of cells on a background, from networks that tell foreground and boundaries, or foreground and distances.

Both ways are those of ViM-UNet (Archit & Pape 2024) on LIVECell, as torch-em defines them: seeds are connected voxels
well inside, and the foreground is flooded from them. ``components`` takes what is left of the foreground without its
boundaries as seeds; ``distances`` the voxels that are near a centre and far from a boundary.

A slice too large for one tile is flooded tile by tile, each in its window, the tile and a halo. A tile then tells, by
a voxel of either, which cells go on in the tiles behind it. Seeds are the same in all windows, and as the labels of a
voxel depend on nothing but the seeds that reach it, joined tiles equal the flooded slice where no cell is larger than
the halo.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import bioimage_cpp as bic
import numpy as np
from numpy.typing import NDArray

from vimvol.config import CellsConfig
from vimvol.geometry import Block

LEVELS = 4095
"""Heights are rounded to as many levels, see `vimvol.segment.watershed`."""


@dataclass(frozen=True)
class Relief:
    """What is flooded.

    Attributes
    ----------
    seeds, foreground
        (Y, X) bool; every seed is foreground.
    heights
        (Y, X) float32, integers in 0..`LEVELS`.
    """

    seeds: NDArray[np.bool_]
    foreground: NDArray[np.bool_]
    heights: NDArray[np.float32]


@dataclass(frozen=True)
class Method:
    """A way to make cells.

    Attributes
    ----------
    classes
        Names of the channels that it takes, in its order.
    relief
        From these channels, (C, Y, X) uint8, to what is flooded.
    """

    classes: tuple[str, ...]
    relief: Callable[[NDArray[np.uint8], CellsConfig], Relief]


def components_relief(prediction: NDArray[np.uint8], config: CellsConfig) -> Relief:
    """Take the foreground less the boundaries for seeds, and the boundaries for heights.

    Parameters
    ----------
    prediction
        (2, Y, X) uint8, foreground and boundaries, 0..255 for a probability of 0..1.
    config
        ``foreground``, ``seed``.
    """
    cells, boundaries = prediction
    foreground = cells > config.foreground * 255
    seeds = (cells.astype(np.int16) - boundaries > config.seed * 255) & foreground
    return Relief(seeds, foreground, np.rint(boundaries * np.float32(LEVELS / 255)))


def distances_relief(prediction: NDArray[np.uint8], config: CellsConfig) -> Relief:
    """Take what is near a centre and far from a boundary for seeds, and the distances to boundaries for heights.

    Parameters
    ----------
    prediction
        (3, Y, X) uint8, foreground, distances to the centre and to the boundary as the network learns them
        (`vimvol.train.distances`): 0 at a centre and 255 far from it; 0 deepest inside and 255 at a boundary.
    config
        ``foreground``, ``center``, ``boundary``, ``smoothing``.
    """
    foreground = prediction[0] > config.foreground * 255
    centre, boundary = (_smooth(channel, config.smoothing) for channel in prediction[1:])
    seeds = (centre < config.center * LEVELS) & (boundary < config.boundary * LEVELS) & foreground
    return Relief(seeds, foreground, boundary)


METHODS: dict[str, Method] = {
    "distances": Method(("foreground", "center distance", "boundary distance"), distances_relief),
    "components": Method(("foreground", "boundary"), components_relief),
}
"""Ways to make cells; of a network whose classes fit several, the first counts."""


def cells_2d(prediction: NDArray[np.uint8], method: str, config: CellsConfig) -> NDArray[np.uint32]:
    """Make the cells of a whole slice.

    Parameters
    ----------
    prediction
        (C, Y, X) uint8, the channels of the method.
    method
        Key of `METHODS`.
    config
        Thresholds and smoothing.

    Returns
    -------
    numpy.ndarray
        (Y, X) uint32, 1..n, consecutive, in the order of the first voxel of their seeds; 0 is background, and
        foreground that no seed reaches.

    Raises
    ------
    ValueError
        If the array does not hold the channels of the method.
    """
    _check(prediction, method, 3)
    return _flood(METHODS[method].relief(prediction, config))


def cells_tile(
    prediction: NDArray[np.uint8], inner: Block, method: str, config: CellsConfig
) -> tuple[NDArray[np.uint32], int, NDArray[np.int64]]:
    """Make the cells of one tile, slice by slice.

    Parameters
    ----------
    prediction
        (C, Z, Y, X) uint8, the channels of the method in the window of the tile: the tile and its halo.
    inner
        The tile, in coordinates of the window.
    method, config
        As in `cells_2d`.

    Returns
    -------
    labels : numpy.ndarray
        uint32 of the shape of ``inner``, 0 for background, else 1..n.
    n : int
        Number of labels.
    links : numpy.ndarray
        (N, 2, 3) int64, pairs of voxels (z, y, x) of the window that lie in one cell but in two tiles: the tile itself,
        and those behind it along y, along x and along both, of which the first rows and columns are looked at. Two
        neighbouring voxels of a slice lie in this sight of exactly one tile, so the links of all tiles tell every pair
        of tiles that share a cell.

    Raises
    ------
    ValueError
        If the array does not hold the channels of the method, or the tile lies outside.
    """
    _check(prediction, method, 4)
    if not Block.whole(prediction.shape[1:]).contains(inner):
        raise ValueError(f"tile {inner} lies outside a window of shape {prediction.shape[1:]}")
    labels = np.empty(inner.shape, np.uint32)
    links = []
    n = 0
    for z in range(inner.begin[0], inner.end[0]):
        relief = METHODS[method].relief(np.ascontiguousarray(prediction[:, z]), config)
        flooded = _flood(relief)
        own = flooded[inner.slices[1:]]
        found = np.unique(own[own > 0])
        lut = np.zeros(int(flooded.max(initial=0)) + 1, np.uint32)
        lut[found] = np.arange(n + 1, n + 1 + len(found))
        labels[z - inner.begin[0]] = lut[own]
        n += len(found)
        pairs = _links(flooded, relief, Block(inner.begin[1:], inner.end[1:]))
        links.append(np.concatenate([np.full((*pairs.shape[:2], 1), z), pairs], axis=2))
    return labels, n, np.concatenate(links)


def _check(prediction: NDArray[np.uint8], method: str, ndim: int) -> None:
    classes = METHODS[method].classes
    if prediction.ndim != ndim or prediction.dtype != np.uint8 or len(prediction) != len(classes):
        raise ValueError(
            f"prediction of shape {prediction.shape} and dtype {prediction.dtype} does not hold {', '.join(classes)} "
            f"as {ndim} axes of uint8"
        )


def _smooth(channel: NDArray[np.uint8], sigma: float) -> NDArray[np.float32]:
    """Smooth, and round to `LEVELS`, so that the last bit of a sum decides nothing."""
    values = channel.astype(np.float32) * np.float32(LEVELS / 255)
    smoothed = bic.filters.gaussian_smoothing(values, [sigma, sigma]) if sigma > 0 else values
    return np.asarray(np.rint(smoothed), np.float32)


def _flood(relief: Relief) -> NDArray[np.uint32]:
    if not relief.seeds.any():
        return np.zeros(relief.seeds.shape, np.uint32)
    # compiled code is loaded by those who segment, not by everybody who plans to
    from vimvol.segment.flood import flood

    seeds = bic.segmentation.label(relief.seeds, connectivity=2).astype(np.uint32)
    return flood(relief.heights, seeds, relief.foreground)


def _links(flooded: NDArray[np.uint32], relief: Relief, tile: Block) -> NDArray[np.int64]:
    """Return pairs of voxels (N, 2, 2) of one label in different parts: the tile, and what lies right behind it."""
    (top, left), (bottom, right) = tile.begin, tile.end
    behind = [(bottom, bottom + 1, left, right), (top, bottom, right, right + 1)]
    parts = [(top, bottom, left, right), *behind, (bottom, bottom + 1, right, right + 1)]
    labels, places = zip(*(_representatives(flooded, relief, part) for part in parts), strict=True)
    label, place = np.concatenate(labels), np.concatenate(places)
    order = np.argsort(label, kind="stable")
    label, place = label[order], place[order]
    same = label[1:] == label[:-1]
    return np.stack([place[:-1][same], place[1:][same]], axis=1)


def _representatives(
    flooded: NDArray[np.uint32], relief: Relief, part: tuple[int, int, int, int]
) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
    """Return the labels in a part of a window, and for each the voxel (y, x) that is least likely to be disputed."""
    top, bottom, left, right = part
    inside = slice(top, bottom), slice(left, right)
    y, x = np.nonzero(flooded[inside])
    label, height = flooded[inside][y, x], relief.heights[inside][y, x]
    # a seed has the same label in the sight of every tile; of the rest, the lowest is flooded first
    order = np.lexsort((x, y, height, ~relief.seeds[inside][y, x], label))
    first = order[np.concatenate([[True], np.diff(label[order]) > 0])] if len(order) else order
    return label[first], np.stack([y[first] + top, x[first] + left], axis=1).astype(np.int64)
