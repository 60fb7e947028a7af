"""A heap of nodes by their gains, largest first, in which gains may change; compiled.

Three arrays: ``heap`` (N,) int32, of which the first ``size`` entries are nodes; ``place`` (N,) int32, where in it each
node of the graph is, -1 if nowhere; ``gains`` (N,) float64 of the nodes. Who changes the gain of a node in the heap
calls `settle`. Among equal gains the order is that of a binary heap of swaps: it depends on what was done before.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vimvol.jit import compiled

Nodes = NDArray[np.int32]
Gains = NDArray[np.float64]


@compiled()
def rise(heap: Nodes, place: Nodes, gains: Gains, at: int) -> None:
    """Move a node towards the top, as far as those above it gain less."""
    node = heap[at]
    gain = gains[node]
    while at > 0:
        above = (at - 1) >> 1
        if not gains[heap[above]] < gain:
            break
        heap[at] = heap[above]
        place[heap[at]] = at
        at = above
    heap[at] = node
    place[node] = at


@compiled()
def sink(heap: Nodes, place: Nodes, gains: Gains, size: int, at: int) -> None:
    """Move a node away from the top, as far as those below it gain more."""
    node = heap[at]
    gain = gains[node]
    while True:
        below = 2 * at + 1
        if below >= size:
            break
        if below + 1 < size and gains[heap[below]] < gains[heap[below + 1]]:
            below += 1
        if not gain < gains[heap[below]]:
            break
        heap[at] = heap[below]
        place[heap[at]] = at
        at = below
    heap[at] = node
    place[node] = at


@compiled()
def push(heap: Nodes, place: Nodes, gains: Gains, size: int, node: int) -> int:
    """Add a node that is not there; return the new size."""
    heap[size] = node
    rise(heap, place, gains, size)
    return size + 1


@compiled()
def drop(heap: Nodes, place: Nodes, gains: Gains, size: int, at: int) -> int:
    """Take out the node at a place; return the new size."""
    place[heap[at]] = -1
    size -= 1
    if at < size:
        heap[at] = heap[size]
        rise(heap, place, gains, at)
        sink(heap, place, gains, size, at)
    return size


@compiled()
def settle(heap: Nodes, place: Nodes, gains: Gains, size: int, at: int, more: bool) -> None:
    """Move a node whose gain has changed to where it belongs; ``more`` tells that it has grown."""
    if more:
        rise(heap, place, gains, at)
    else:
        sink(heap, place, gains, size, at)
