"""The chain of moves between two groups of nodes: what Kernighan & Lin (1970) do with two halves of a graph; compiled.

The nodes of a group are a chained list: ``ends`` (2, groups) are its first and last, -1 if it is empty, and ``links``
(2, N) those before and after each node.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vimvol.jit import compiled
from vimvol.segment.multicut.heap import drop, push, settle

LEAST = 1e-6
"""Gains up to this are none."""


@compiled()
def append(node: int, group: int, ends: NDArray[np.int32], links: NDArray[np.int32]) -> None:
    """Put a node at the end of the list of a group."""
    last = ends[1, group]
    links[0, node], links[1, node] = last, -1
    if last < 0:
        ends[0, group] = node
    else:
        links[1, last] = node
    ends[1, group] = node


@compiled()
def _remove(node: int, group: int, ends: NDArray[np.int32], links: NDArray[np.int32]) -> None:
    """Take a node out of the list of its group."""
    before, after = links[0, node], links[1, node]
    if before < 0:
        ends[0, group] = after
    else:
        links[1, before] = after
    if after < 0:
        ends[1, group] = before
    else:
        links[0, after] = before


@compiled()
def exchange(
    first: NDArray[np.int64],
    near: NDArray[np.int32],
    cost: NDArray[np.float64],
    labels: NDArray[np.int32],
    ends: NDArray[np.int32],
    links: NDArray[np.int32],
    state: NDArray[np.int32],
    gains: NDArray[np.float64],
    changed: NDArray[np.bool_],
    one: int,
    other: int,
) -> bool:
    """Move nodes between two groups, the second of which may be a new one; tell whether that gains anything.

    The rows of ``state``, (5, N): 1 or 2 for nodes of the one or the other group that have not moved, else 0; how many
    neighbours each has on the other side; its place in the heap; the heap; the nodes in the order in which they move.
    """
    side, across, place, heap, chain = state[0], state[1], state[2], state[3], state[4]
    split = ends[0, other] < 0
    if ends[0, one] < 0 or (ends[0, one] == ends[1, one] and (split or ends[0, other] == ends[1, other])):
        return False
    for which in (1, 2):
        v = ends[0, one if which == 1 else other]
        while v >= 0:
            side[v] = which
            v = links[1, v]
    size = 0
    for which in (1, 2):
        v = ends[0, one if which == 1 else other]
        while v >= 0:
            inward = outward = 0.0
            across[v] = 0
            for k in range(first[v], first[v + 1]):
                if side[near[k]] == which:
                    inward += cost[k]
                elif side[near[k]] > 0:
                    outward += cost[k]
                    across[v] += 1
            gains[v] = outward - inward
            if split or across[v] > 0:
                size = push(heap, place, gains, size, v)
            v = links[1, v]
    length = best_length = 0
    gain = best = 0.0
    while size > 0:
        v = heap[0]
        size = drop(heap, place, gains, size, 0)
        own = side[v]
        side[v] = 0
        gain += gains[v]
        chain[length] = v
        length += 1
        if gain > best + LEAST:
            best, best_length = gain, length
        for k in range(first[v], first[v + 1]):
            u = near[k]
            if side[u] == 0:
                continue
            left = side[u] == own
            change = 2 * cost[k] if left else -2 * cost[k]
            gains[u] += change
            if place[u] >= 0:
                settle(heap, place, gains, size, place[u], change > 0)
            across[u] += 1 if left else -1
            if split:
                continue
            if left and place[u] < 0:
                size = push(heap, place, gains, size, u)
            elif not left and across[u] == 0 and place[u] >= 0:
                size = drop(heap, place, gains, size, place[u])
    for which in (1, 2):
        v = ends[0, one if which == 1 else other]
        while v >= 0:
            side[v] = 0
            v = links[1, v]
    for i in range(best_length):
        v = chain[i]
        old = labels[v]
        labels[v] = other if old == one else one
        _remove(v, old, ends, links)
        append(v, labels[v], ends, links)
        changed[one] = changed[other] = True
    return best_length > 0
