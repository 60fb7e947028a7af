"""Fragments: watersheds of boundaries, one tile of the volume at a time.

A tile is a cell of a grid that is anchored to the volume. Its watershed runs on its window (the tile and
a halo, clipped to the volume), is cropped to the tile and labelled from 1, so that the fragments of a
tile depend on the boundaries in its window and on nothing else.

Two ways to place the seeds. ``distance``: maxima of the smoothed distance to the nearest boundary, the
watershed of Beier et al. (2017), "Multicut brings automated neurite segmentation closer to human
performance", Nature Methods 14:101. ``components``: the connected voxels below the threshold, as
ViM-UNet (Archit & Pape 2024) turns boundaries into instances of a slice.

Compiled code is loaded where it is called, by those who segment, not by everybody who plans to.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import bioimage_cpp as bic
import numpy as np
from numpy.typing import NDArray

from vimvol.config import FragmentsConfig
from vimvol.geometry import Block
from vimvol.segment.faces import open_faces

# Heights are rounded to this many levels, so that the queues of the flooding stay in the cache; the input has 256.
LEVELS = 4096

# Levels of `LEVELS` that one step of the boundaries is worth where the distance to the seeds breaks ties.
_STEP = LEVELS // 256


def seed_mask(boundaries: NDArray[np.uint8], threshold: float) -> NDArray[np.bool_]:
    """Tell which voxels lie inside a neurite: those with a boundary probability below the threshold.

    Parameters
    ----------
    boundaries
        uint8, any shape, 0..255 for a probability of 0..1.
    threshold
        Probability in [0, 1]. At 0 no voxel is inside.
    """
    # b < 255 t for integers b, without a conversion to float
    limit = math.ceil(threshold * 255)
    return np.asarray(boundaries < limit)


def fragments_2d(boundaries: NDArray[np.uint8], config: FragmentsConfig) -> NDArray[np.uint32]:
    """Cut a slice into fragments.

    Parameters
    ----------
    boundaries
        (Y, X) uint8, 0..255 for a probability of 0..1.
    config
        ``seeds`` other than ``components`` means ``distance``; ``min_size`` is not applied to ``components``, whose
        true size only the stitched slice knows.

    Returns
    -------
    numpy.ndarray
        (Y, X) uint32, every voxel in 1..n, consecutive, every fragment 4-connected. One fragment where all voxels, or
        none, are boundary.

    Raises
    ------
    ValueError
        If the array is not a slice of uint8.
    """
    _check(boundaries, 2)
    return _fragments(boundaries, config, (1.0, 1.0))


def fragments_3d(
    boundaries: NDArray[np.uint8], config: FragmentsConfig, voxel_size: Sequence[float] = (1.0, 1.0, 1.0)
) -> NDArray[np.uint32]:
    """Cut a volume into fragments.

    Parameters
    ----------
    boundaries
        (Z, Y, X) uint8, 0..255 for a probability of 0..1.
    config
        As in `fragments_2d`; its sigmas are in voxels of the finest axis.
    voxel_size
        (z, y, x) in nm; only the ratios matter, for distances and smoothing.

    Returns
    -------
    numpy.ndarray
        (Z, Y, X) uint32, every voxel in 1..n, consecutive, every fragment 6-connected.

    Raises
    ------
    ValueError
        If the array is not a volume of uint8.
    """
    _check(boundaries, 3)
    finest = min(voxel_size)
    return _fragments(boundaries, config, tuple(size / finest for size in voxel_size))


def fragments_tile(
    boundaries: NDArray[np.uint8],
    inner: Block,
    config: FragmentsConfig,
    dimension: Literal["2d", "3d"],
    voxel_size: Sequence[float] = (1.0, 1.0, 1.0),
    hole: NDArray[np.bool_] | None = None,
) -> tuple[NDArray[np.uint32], int, NDArray[np.uint8]]:
    """Cut one tile into fragments.

    Parameters
    ----------
    boundaries
        (Z, Y, X) uint8, the window of the tile: the tile and its halo.
    inner
        The tile, in coordinates of the window.
    config
        As in `fragments_2d`. ``components`` uses no halo: what is one component is joined across tiles by its seeds
        (`vimvol.segment.stitch`), and a piece of a fragment whose seeds all lie in the halo could not be joined.
    dimension
        2d takes every slice by itself and uses no halo along z.
    voxel_size
        (z, y, x) in nm.
    hole
        bool of the shape of ``inner``, where nothing is segmented; a fragment that it parts becomes several.

    Returns
    -------
    labels : numpy.ndarray
        uint32 of the shape of ``inner``, 1..n, 0 in the hole.
    n : int
        Number of fragments.
    faces : numpy.ndarray
        uint8 of the shape of ``inner``, where fragments go on behind the faces of the tile: see `open_faces`. None do
        with ``components``, nor along z in 2d.

    Raises
    ------
    ValueError
        If the window is no volume of uint8, or the tile lies outside.
    """
    _check(boundaries, 3)
    if not Block.whole(boundaries.shape).contains(inner):
        raise ValueError(f"tile {inner} lies outside a window of shape {boundaries.shape}")
    if config.seeds == "components":
        boundaries = boundaries[inner.slices]
        inner = Block.whole(inner.shape)
    if dimension == "3d":
        whole = fragments_3d(boundaries, config, voxel_size)
        labels, n = crop_and_relabel(whole, inner)
        return _without(hole, labels, n, open_faces(whole, inner))
    labels, faces = np.empty(inner.shape, np.uint32), np.empty(inner.shape, np.uint8)
    plane = Block(inner.begin[1:], inner.end[1:])
    n = 0
    for z in range(inner.shape[0]):
        whole = fragments_2d(boundaries[inner.begin[0] + z], config)
        labels[z], found = crop_and_relabel(whole, plane)
        faces[z] = open_faces(whole, plane)
        labels[z] += np.uint32(n)
        n += found
    return _without(hole, labels, n, faces)


def _without(
    hole: NDArray[np.bool_] | None, labels: NDArray[np.uint32], n: int, faces: NDArray[np.uint8]
) -> tuple[NDArray[np.uint32], int, NDArray[np.uint8]]:
    """Cut a hole out of the fragments of a tile."""
    if hole is None or not hole.any():
        return labels, n, faces
    kept, n = crop_and_relabel(np.where(hole, np.uint32(0), labels), Block.whole(labels.shape))
    return kept, n, np.where(hole, np.uint8(0), faces)


def crop_and_relabel(labels: NDArray[np.uint32], inner: Block) -> tuple[NDArray[np.uint32], int]:
    """Crop labels to a box and number the connected pieces that remain.

    Parameters
    ----------
    labels
        (Y, X) or (Z, Y, X) uint32; 0 stays 0.
    inner
        The box to keep, in coordinates of ``labels``.

    Returns
    -------
    labels : numpy.ndarray
        uint32 of the shape of ``inner``: 1..n in C order of the first voxel. A fragment that the crop cuts into pieces
        (4-connected in 2D, 6-connected in 3D) gives a label to each.
    n : int
        Number of labels.

    Raises
    ------
    ValueError
        If the box does not lie inside the labels.
    """
    if not Block.whole(labels.shape).contains(inner):
        raise ValueError(f"crop {inner} lies outside labels of shape {labels.shape}")
    from vimvol.segment.pieces import label_pieces

    return label_pieces(labels[inner.slices])


def _check(boundaries: NDArray[np.uint8], ndim: int) -> None:
    if boundaries.ndim != ndim or boundaries.dtype != np.uint8 or boundaries.size == 0:
        raise ValueError(
            f"boundaries of shape {boundaries.shape} and dtype {boundaries.dtype} are not {ndim} axes of uint8"
        )


def _fragments(
    boundaries: NDArray[np.uint8], config: FragmentsConfig, spacing: tuple[float, ...]
) -> NDArray[np.uint32]:
    """Run the watershed of the configuration; ``spacing`` is the distance of voxels, 1 along the finest axis."""
    inside = seed_mask(boundaries, config.threshold)
    if inside.all() or not inside.any():
        return np.ones(boundaries.shape, np.uint32)
    if config.seeds == "components":
        return _components(boundaries, inside, spacing)
    return _distance(boundaries, inside, config, spacing)


def _components(
    boundaries: NDArray[np.uint8], inside: NDArray[np.bool_], spacing: tuple[float, ...]
) -> NDArray[np.uint32]:
    """Flood the boundaries from the connected components of what lies inside."""
    from vimvol.segment.distance import distances
    from vimvol.segment.flood import flood

    seeds = bic.segmentation.label(inside, connectivity=1).astype(np.uint32)
    # A saturated boundary is one plateau, which a single seed could take as a whole: the distance to the seeds
    # parts it in the middle.
    heights = boundaries.astype(np.float32)
    heights *= _STEP
    heights += np.minimum(np.rint(distances(~inside, spacing)), _STEP - 1)
    return flood(heights, seeds)


def _distance(
    boundaries: NDArray[np.uint8], inside: NDArray[np.bool_], config: FragmentsConfig, spacing: tuple[float, ...]
) -> NDArray[np.uint32]:
    """Flood from the maxima of the distance to boundaries (Beier et al. 2017)."""
    from vimvol.segment.distance import distances
    from vimvol.segment.flood import difference, flood
    from vimvol.segment.pieces import label_maxima

    depths = _smooth(distances(inside, spacing), config.sigma_seeds, spacing)
    seeds = label_maxima(depths)
    weights = _smooth(boundaries.astype(np.float32), config.sigma_weights, spacing)
    heights = difference(
        weights.ravel(),
        depths.ravel(),
        np.float32(config.alpha * (LEVELS - 1) / 255),
        np.float32((1 - config.alpha) * (LEVELS - 1) / depths.max()),
    ).reshape(boundaries.shape)
    return _absorb_small(flood(heights, seeds), heights, config.min_size)


def _smooth(values: NDArray[np.float32], sigma: float, spacing: tuple[float, ...]) -> NDArray[np.float32]:
    """Smooth with a Gaussian whose sigma is given in voxels of the finest axis."""
    if sigma == 0:
        return values
    smoothed: NDArray[np.float32] = bic.filters.gaussian_smoothing(values, [sigma / step for step in spacing])
    return smoothed


def _absorb_small(labels: NDArray[np.uint32], heights: NDArray[np.int16], min_size: int) -> NDArray[np.uint32]:
    """Give fragments below ``min_size`` voxels to their neighbours, by flooding them; the largest always stays."""
    from vimvol.segment.flood import flood

    sizes = np.bincount(labels.ravel())
    keep = sizes >= min_size
    keep[0] = False
    if keep[1:].all():
        return labels
    if not keep.any():
        keep[np.argmax(sizes)] = True
    lut = np.where(keep, np.cumsum(keep), 0).astype(np.uint32)
    return flood(heights, lut[labels])
