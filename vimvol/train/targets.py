"""What the network learns: thin boundaries between instances.

A label that says 0 between instances (annotated membranes, several voxels thick) and a label without gaps (dense
bodies) become the same target: instances grow into the 0 until they meet, and the boundary is where labels change
within the slice. Thick annotated membranes would cost accuracy, since the voxels that they take from the instances
cannot be won back (thin neurites vanish between two thick membranes).

Where 0 remains after the growth there is glia, extracellular space or something that nobody annotated. Its rim
is boundary, so that every instance stays closed; its inside has no truth that holds for all data (in one volume
glia is left out, in another it is a body like any other), so the loss ignores it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage


def grow_instances(labels: NDArray[Any], distance: float) -> NDArray[Any]:
    """Grow the instances of every slice into label 0, each voxel to its nearest instance.

    Parameters
    ----------
    labels
        (z, y, x) or (y, x) integers, 0 between instances.
    distance
        How far an instance grows, voxels, measured within the slice.

    Returns
    -------
    NDArray
        The same shape and type; 0 only where no instance is within ``distance``.
    """
    if labels.ndim == 2:
        return _grow_slice(labels, distance)
    grown = np.empty_like(labels)
    for z, section in enumerate(labels):
        grown[z] = _grow_slice(section, distance)
    return grown


def _grow_slice(labels: NDArray[Any], distance: float) -> NDArray[Any]:
    empty = labels == 0
    if distance <= 0 or not empty.any() or empty.all():
        return labels.copy()
    far, nearest = ndimage.distance_transform_edt(empty, return_indices=True)
    grown: NDArray[Any] = labels[tuple(nearest)]
    grown[far > distance] = 0
    return grown


def label_changes(labels: NDArray[Any], width: int = 2) -> NDArray[np.bool_]:
    """Mark the voxels on both sides of every change of label, within the slice.

    Parameters
    ----------
    labels
        (..., y, x) integers. A body that touches itself in the slice has one label there, and so no boundary.
    width
        Thickness of the mark, voxels; even.

    Returns
    -------
    NDArray
        (..., y, x) bool.
    """
    marks = np.zeros(labels.shape, bool)
    change = labels[..., 1:, :] != labels[..., :-1, :]
    marks[..., 1:, :] |= change
    marks[..., :-1, :] |= change
    change = labels[..., :, 1:] != labels[..., :, :-1]
    marks[..., :, 1:] |= change
    marks[..., :, :-1] |= change
    for _ in range(width // 2 - 1):
        wide = marks.copy()
        wide[..., 1:, :] |= marks[..., :-1, :]
        wide[..., :-1, :] |= marks[..., 1:, :]
        wide[..., :, 1:] |= marks[..., :, :-1]
        wide[..., :, :-1] |= marks[..., :, 1:]
        marks = wide
    return marks


def boundary_target(grown: NDArray[Any], width: int = 2) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return target and weight of a slice whose instances have grown (`grow_instances`).

    Parameters
    ----------
    grown
        (y, x) integers; 0 is glia or not annotated.
    width
        Thickness of the boundary, voxels; even.

    Returns
    -------
    target
        (1, y, x) float32, 1 on boundaries, else 0.
    weight
        (1, y, x) float32, 0 where the loss must not look, else 1.
    """
    boundary = label_changes(grown, width)
    ignored = (grown == 0) & ~boundary
    return boundary[None].astype(np.float32), (~ignored)[None].astype(np.float32)
