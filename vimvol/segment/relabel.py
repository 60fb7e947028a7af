"""From node labels to the lookup table that turns fragments into segments."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def consecutive(labels: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Renumber groups of nodes from 0 on, in the order of their first node.

    Parameters
    ----------
    labels
        (N,) uint64; equal labels are one group.
    """
    n = len(labels)
    if n == 0:
        return labels.astype(np.uint64)
    if int(labels.max()) >= 2 * n:
        labels = np.unique(labels, return_inverse=True)[1].astype(np.uint64)
    # the first node of every label: of repeated indices, the last assignment stays
    first = np.full(int(labels.max()) + 1, n, np.int64)
    first[labels[::-1]] = np.arange(n - 1, -1, -1)
    is_first = np.zeros(n, bool)
    is_first[first[first < n]] = True
    rank = np.cumsum(is_first) - 1
    return np.asarray(rank[first[labels]], np.uint64)


def lookup_table(
    node_labels: NDArray[np.uint64], sizes: NDArray[np.integer] | None = None, min_size: int = 0
) -> NDArray[np.uint64]:
    """Return the segment of every fragment.

    Parameters
    ----------
    node_labels
        (N + 1,) uint64, the group of every fragment by its global id; what it says of id 0, the background, is ignored.
    sizes
        (N + 1,) integers, voxels of every fragment; needed with ``min_size``.
    min_size
        Segments of fewer voxels become background.

    Returns
    -------
    numpy.ndarray
        (N + 1,) uint64: 0 for id 0, else segments consecutive from 1, in the order of their first fragment.

    Raises
    ------
    ValueError
        If sizes are missing or do not fit the labels.
    """
    lut = np.zeros(max(len(node_labels), 1), np.uint64)
    groups = consecutive(node_labels[1:])
    if min_size > 0:
        if sizes is None or len(sizes) != len(node_labels):
            raise ValueError(f"segments cannot be sized: {len(node_labels)} nodes need as many sizes")
        voxels = np.zeros(int(groups.max(initial=0)) + 1, np.int64)
        np.add.at(voxels, groups, np.asarray(sizes[1:], np.int64))
        kept = voxels >= min_size
        rank = np.where(kept, np.cumsum(kept), 0).astype(np.uint64)
        lut[1:] = rank[groups]
    else:
        lut[1:] = groups + np.uint64(1)
    return lut
