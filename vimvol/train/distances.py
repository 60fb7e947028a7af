"""Distances within instances: how far a voxel is from the centre of its object, and from its boundary.

The two channels that ViM-UNet learns for cells (Archit & Pape 2024), as torch-em's ``PerObjectDistanceTransform``
defines them: each is scaled to 1 at its largest value in the object. The distance to the boundary is turned round, 1
at the boundary and 0 where the object is thickest, so that both have their minima inside and can be flooded from there.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage import measure, segmentation

SMALLEST = 25
"""Voxels below which the part of an instance that lies in a crop counts as background."""
EPSILON = 1e-7


def object_distances(
    labels: NDArray[Any], min_size: int = SMALLEST
) -> tuple[NDArray[np.bool_], NDArray[np.float32], NDArray[np.float32]]:
    """Return foreground, distances to centres and distances to boundaries.

    Parameters
    ----------
    labels
        (y, x) integers, 0 background. Parts of an instance that do not touch, not even by a corner, count one by one.
    min_size
        Voxels; smaller parts become background.

    Returns
    -------
    foreground
        (y, x) bool.
    to_centre
        (y, x) float32 in [0, 1]: 0 at the voxel nearest to the centroid, or, where that lies outside of the object, at
        the voxel deepest inside; 1 outside of objects.
    to_boundary
        (y, x) float32 in [0, 1]: 0 at the voxels deepest inside, 1 on the outermost voxels of an object and outside.
        Objects without an inside, and those without a boundary in the image, are 0.
    """
    parts: NDArray[np.int64] = measure.label(labels, background=0)  # type: ignore[no-untyped-call]
    if min_size > 1:
        parts[(np.bincount(parts.ravel()) < min_size)[parts]] = 0
        parts = segmentation.relabel_sequential(parts)[0]  # type: ignore[no-untyped-call]
    count = int(parts.max())
    foreground = parts > 0
    if count == 0:
        far = np.ones(parts.shape, np.float32)
        return foreground, far, far.copy()

    rim = segmentation.find_boundaries(parts, mode="inner")  # type: ignore[no-untyped-call]
    depth = ndimage.distance_transform_edt(~rim) if rim.any() else np.zeros(parts.shape)
    centres = _centres(parts, depth, count)
    rows, columns = np.arange(parts.shape[0])[:, None], np.arange(parts.shape[1])
    centre = np.hypot(rows - centres[0][parts], columns - centres[1][parts])
    boundary = _largest(depth, parts, count)[parts] - depth
    return foreground, _scaled(centre, parts, count), _scaled(boundary, parts, count)


def _centres(parts: NDArray[Any], depth: NDArray[np.float64], count: int) -> NDArray[np.intp]:
    """Return the voxels (2, count + 1) that objects are measured from; that of the background means nothing."""
    flat = parts.ravel()
    sizes = np.bincount(flat, minlength=count + 1)
    sums = [np.bincount(flat, axis.ravel(), minlength=count + 1) for axis in np.indices(parts.shape)]
    centres: NDArray[np.intp] = np.round(np.stack(sums) / sizes.clip(min=1)).astype(np.intp)
    outside = np.flatnonzero(parts[centres[0], centres[1]] != np.arange(count + 1))
    boxes = ndimage.find_objects(parts)
    for part in outside[outside > 0]:
        box = boxes[part - 1]
        inside = np.where(parts[box] == part, depth[box], -1)
        centres[:, part] = np.unravel_index(int(inside.argmax()), inside.shape)
        centres[:, part] += [side.start for side in box]
    return centres


def _largest(values: NDArray[np.float64], parts: NDArray[Any], count: int) -> NDArray[np.float64]:
    largest = np.zeros(count + 1)
    np.maximum.at(largest, parts.ravel(), values.ravel())
    return largest


def _scaled(values: NDArray[np.float64], parts: NDArray[Any], count: int) -> NDArray[np.float32]:
    """Divide by the maximum of every object; 1 outside."""
    scaled: NDArray[np.float32] = (values / (_largest(values, parts, count)[parts] + EPSILON)).astype(np.float32)
    scaled[parts == 0] = 1
    return scaled
