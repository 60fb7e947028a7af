"""Instances of a slice from the fragments of its tiles.

With ``seeds="components"`` a tile's fragments grow from the connected voxels below the threshold. Two
fragments of neighbouring tiles belong together if somewhere across the face between the tiles both voxels
are such seeds; joined, the seeds form the connected components of the whole slice, for any tiles.
"""

from __future__ import annotations

from collections.abc import Sequence

import bioimage_cpp as bic
import numpy as np
from numpy.typing import NDArray

from vimvol.geometry import Block, Grid, round_up
from vimvol.pairs import Pairs
from vimvol.segment.relabel import consecutive
from vimvol.segment.watershed import seed_mask


def face_pairs(
    labels: NDArray[np.integer],
    boundaries: NDArray[np.uint8],
    window: Block,
    own: Block,
    tiles: Grid,
    threshold: float,
    axes: Sequence[int] = (1, 2),
) -> NDArray[np.uint64]:
    """Find the fragments that continue across the faces of tiles.

    Parameters
    ----------
    labels
        (Z, Y, X) integers, fragments by an id that is unique in the window, 0 outside.
    boundaries
        (Z, Y, X) uint8, 0..255 for a probability of 0..1.
    window
        Where both arrays lie in the volume.
    own
        The box, in coordinates of the volume, whose faces are wanted: those inside it and those it ends at, away from
        the origin. There the window must go on for at least one voxel, unless the volume ends.
    tiles
        The tiles of the watershed.
    threshold
        Boundary probability below which a voxel is a seed, as in the watershed.
    axes
        Axes whose faces are joined; the default keeps slices apart.

    Returns
    -------
    numpy.ndarray
        (N, 2) uint64, smaller id first, sorted, each pair once. Boxes that cover the volume give all pairs between
        them.

    Raises
    ------
    ValueError
        If shapes and window differ, or the window lacks the voxel behind a face.
    """
    if labels.shape != window.shape or boundaries.shape != window.shape:
        raise ValueError(f"labels {labels.shape} and boundaries {boundaries.shape} do not fill the window {window}")
    found = []
    for axis in axes:
        cell = tiles.cell[axis]
        last = min(own.end[axis], tiles.shape[axis] - 1)
        for face in range(round_up(own.begin[axis] + 1, cell), last + 1, cell):
            before, behind = _planes(own, axis, face)
            if not (window.contains(before) and window.contains(behind)):
                raise ValueError(f"window {window} lacks voxels on a side of the face at {face} of axis {axis}")
            low, high = before.within(window).slices, behind.within(window).slices
            joined = seed_mask(boundaries[low], threshold) & seed_mask(boundaries[high], threshold)
            joined &= (labels[low] > 0) & (labels[high] > 0)
            found.append(unique_pairs(labels[low][joined].astype(np.uint64), labels[high][joined].astype(np.uint64)))
    if not found:
        return np.empty((0, 2), np.uint64)
    pairs = np.concatenate(found)
    return unique_pairs(pairs[:, 0], pairs[:, 1])


def union(n_nodes: int, pairs: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Label the groups of nodes that pairs connect.

    Parameters
    ----------
    n_nodes
        Number of nodes.
    pairs
        (N, 2) uint64 in 0..n_nodes-1.

    Returns
    -------
    numpy.ndarray
        (n_nodes,) uint64, consecutive from 0 by first node.

    Raises
    ------
    ValueError
        If a pair names a node that does not exist.
    """
    if len(pairs) and int(pairs.max()) >= n_nodes:
        raise ValueError(f"pair names node {int(pairs.max())} of {n_nodes}")
    sets = bic.utils.UnionFind(n_nodes)
    sets.merge(np.ascontiguousarray(pairs, np.uint64))
    return consecutive(sets.element_labeling())


def _planes(own: Block, axis: int, face: int) -> tuple[Block, Block]:
    """Return the planes of voxels of ``own`` before and behind a face, one voxel thick."""
    before = Block(_put(own.begin, axis, face - 1), _put(own.end, axis, face))
    behind = Block(_put(own.begin, axis, face), _put(own.end, axis, face + 1))
    return before, behind


def _put(index: tuple[int, ...], axis: int, value: int) -> tuple[int, ...]:
    return tuple(value if a == axis else i for a, i in enumerate(index))


def unique_pairs(first: NDArray[np.uint64], second: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return the pairs (N, 2) of different ids, smaller id first, sorted, each once."""
    different = first != second
    pairs = Pairs.of(np.minimum(first, second)[different], np.maximum(first, second)[different])
    return np.stack([pairs.u, pairs.v], axis=1)
