"""What the network learns: thin boundaries between instances.

A label that says 0 between instances (annotated membranes, several voxels thick) and a label without gaps (dense
bodies) become the same target: instances grow into the 0 until they meet, and the boundary is where labels change
within the slice. Thick annotated membranes would cost accuracy, since the voxels that they take from the instances
cannot be won back (thin neurites vanish between two thick membranes).

Where 0 remains after the growth there is glia, extracellular space or something that nobody annotated. Its rim
is boundary, so that every instance stays closed; its inside has no truth that holds for all data (in one volume
glia is left out, in another it is a body like any other), so the loss ignores it.

Cells on a background are learned as foreground and boundaries, or as foreground and distances; they do not grow.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from vimvol.train.distances import object_distances


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


def foreground_boundary_target(labels: NDArray[Any], width: int = 2) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return target and weight for cells on a background: what is a cell, and where a label changes.

    Parameters
    ----------
    labels
        (y, x) integers, 0 background; nothing is ignored.
    width
        Thickness of the boundary, voxels; even.

    Returns
    -------
    target, weight
        (2, y, x) float32 each: foreground, and boundaries, between cells and towards the background alike.
    """
    target = np.stack([labels > 0, label_changes(labels, width)]).astype(np.float32)
    return target, np.ones_like(target)


def distance_target(
    labels: NDArray[Any],
    width: int = 2,  # noqa: ARG001 - distances have no thickness
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return target and weight for cells by distances; see `vimvol.train.distances.object_distances`.

    Returns
    -------
    target, weight
        (3, y, x) float32 each: foreground, distance to the centre, distance to the boundary. The distances count
        inside of objects only.
    """
    foreground, centre, boundary = object_distances(labels)
    inside = foreground.astype(np.float32)
    return np.stack([inside, centre, boundary]), np.stack([np.ones_like(inside), inside, inside])


@dataclass(frozen=True)
class Target:
    """Something to learn from instances.

    Attributes
    ----------
    classes
        What each channel is; weights files carry it.
    draw
        From labels of a slice (y, x) and the width of boundaries to target and weight, each (c, y, x) float32.
    background
        Whether label 0 is a background that is learned, into which no instance grows.
    """

    classes: tuple[str, ...]
    draw: Callable[[NDArray[Any], int], tuple[NDArray[np.float32], NDArray[np.float32]]]
    background: bool = True

    def growth(self, fill: float) -> float:
        """Return by how many voxels instances grow (`grow_instances`) where the configuration says ``fill``."""
        return 0.0 if self.background else fill


TARGETS: dict[str, Target] = {
    "boundary": Target(("boundary",), boundary_target, background=False),
    "foreground-boundary": Target(("foreground", "boundary"), foreground_boundary_target),
    "distances": Target(("foreground", "center distance", "boundary distance"), distance_target),
}
"""By the name that `vimvol.config.TrainConfig.target` has."""
