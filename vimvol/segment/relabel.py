"""Numbers of groups of nodes that do not depend on how the groups were found."""

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
