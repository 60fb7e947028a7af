"""Moves of nodes between groups: the local search of Kernighan & Lin (1970) on the partition of a graph.

Keuper et al. (2015), "Efficient decomposition of image and mesh graphs by lifted multicuts", ICCV. In a round, two
groups that touch exchange nodes: the node that gains most goes to the other side, then the next, among those with a
neighbour there, also where that costs something for a while; of this chain the best beginning is kept. Then a group may
give nodes to a new one, groups that attract each other become one, and single nodes go to the neighbouring group that
attracts them most.

The order of all steps, and with it the result, is that of bioimage-cpp 0.10, which tries every pair of groups (and
counts a node twice that comes back to a group within a round; here it counts once). Moves between two groups can gain
at most what their attractive cut edges and their repulsive uncut ones weigh: from a greedy start nine pairs of ten have
neither, and are not tried. Nor are those that stayed as they were through a round.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vimvol.jit import compiled
from vimvol.segment.multicut.exchange import LEAST, append, exchange
from vimvol.segment.relabel import consecutive

Groups = NDArray[np.int32]


class Neighbours(NamedTuple):
    """The edges of a graph by node.

    Attributes
    ----------
    first
        (N + 1,) int64, the first entry of every node, and after the last the number of all.
    near
        (2 E,) int32, the neighbours of each node, ascending.
    cost
        (2 E,) float64, what they cost.
    """

    first: NDArray[np.int64]
    near: NDArray[np.int32]
    cost: NDArray[np.float64]

    @classmethod
    def of(cls, n_nodes: int, uv: NDArray[np.uint64], costs: NDArray[np.float64]) -> Neighbours:
        """Return those of (E, 2) edges, smaller node first, sorted, each once, and their (E,) costs."""
        first = np.zeros(n_nodes + 1, np.int64)
        near, cost = np.empty(2 * len(uv), np.int32), np.empty(2 * len(uv), np.float64)
        _list_neighbours(uv, costs, first, near, cost)
        return cls(first, near, cost)


def move_nodes(
    graph: Neighbours, labels: NDArray[np.uint64], settled: NDArray[np.bool_] | None = None
) -> tuple[NDArray[np.uint64], NDArray[np.bool_]]:
    """Improve a partition by one round; one that cannot be improved stays as it is.

    Several joins at once may raise the energy, and moves may tear a group apart.

    Parameters
    ----------
    graph
        The graph.
    labels
        (N,) uint64, groups consecutive from 0 by first node.
    settled
        (groups,) bool, from the round before: those that need not be tried with each other. None by default.

    Returns
    -------
    labels : numpy.ndarray
        (N,) uint64, groups consecutive from 0 by first node.
    settled : numpy.ndarray
        (groups,) bool, those that have been the same from the beginning of the round to its end.
    """
    groups = labels.astype(np.int32)
    k = int(groups.max(initial=-1)) + 1
    changed = np.zeros(len(groups) + k + 1, np.bool_)
    _round(*graph, groups, np.zeros(k, np.bool_) if settled is None else settled, changed)
    moved = consecutive(groups.astype(np.uint64))
    same = np.ones(int(moved.max(initial=0)) + 1 if k else 0, np.bool_)
    _find_settled(moved, labels, changed, same)
    return moved, same


@compiled()
def _list_neighbours(
    uv: NDArray[np.uint64],
    costs: NDArray[np.float64],
    first: NDArray[np.int64],
    near: NDArray[np.int32],
    cost: NDArray[np.float64],
) -> None:
    """Fill the table of neighbours; ``first`` are zeros."""
    for i in range(len(uv)):
        first[np.int64(uv[i, 0]) + 1] += 1
        first[np.int64(uv[i, 1]) + 1] += 1
    for i in range(1, len(first)):
        first[i] += first[i - 1]
    free = first[:-1].copy()
    for i in range(len(uv)):
        u, v = np.int64(uv[i, 0]), np.int64(uv[i, 1])
        near[free[u]], cost[free[u]] = v, costs[i]
        near[free[v]], cost[free[v]] = u, costs[i]
        free[u] += 1
        free[v] += 1


@compiled()
def _find_settled(
    labels: NDArray[np.uint64], before: NDArray[np.uint64], changed: NDArray[np.bool_], settled: NDArray[np.bool_]
) -> None:
    """Clear the mark of groups that have changed, or consist of other nodes than before."""
    old_size, size = np.zeros(len(changed), np.int64), np.zeros(len(settled), np.int64)
    origin = np.full(len(settled), -1, np.int64)
    for v in range(len(labels)):
        label, old = np.int64(labels[v]), np.int64(before[v])
        old_size[old] += 1
        size[label] += 1
        if origin[label] < 0:
            origin[label] = old
        settled[label] &= origin[label] == old and not changed[old]
    for i in range(len(settled)):
        settled[i] &= old_size[origin[i]] == size[i]


@compiled()
def _round(
    first: NDArray[np.int64],
    near: NDArray[np.int32],
    cost: NDArray[np.float64],
    labels: Groups,
    settled: NDArray[np.bool_],
    changed: NDArray[np.bool_],
) -> None:
    """Change labels, 0..k-1 with k entries in ``settled``, by one round; afterwards they may have gaps.

    Marks the groups that exchanged nodes as changed, even if all of these came back in the end.
    """
    n, k = len(labels), len(settled)
    # every split makes one group more, of which there are at most as many as nodes
    ends, links = np.full((2, n + k + 1), -1, np.int32), np.full((2, n), -1, np.int32)
    for v in range(n):
        append(v, labels[v], ends, links)
    a, b, total, up, down = _pairs(first, near, cost, labels, ends, links, k)
    state, gains = np.zeros((5, n), np.int32), np.empty(n)
    state[2] = -1
    moved = False
    for i in range(len(a)):
        gainful = up[i] + down[a[i]] + down[b[i]] > LEAST and not (settled[a[i]] and settled[b[i]])
        if changed[a[i]] or changed[b[i]] or gainful:
            moved |= exchange(first, near, cost, labels, ends, links, state, gains, changed, a[i], b[i])
    groups = k
    for group in range(k):
        if changed[group] or (down[group] > LEAST and not settled[group]):
            while exchange(first, near, cost, labels, ends, links, state, gains, changed, group, groups):
                groups += 1
                moved = True
    if moved:
        a, b, total, up, down = _pairs(first, near, cost, labels, ends, links, groups)
    _join(labels, a, b, total, groups)
    _polish(first, near, cost, labels, groups)


@compiled()
def _pairs(
    first: NDArray[np.int64],
    near: NDArray[np.int32],
    cost: NDArray[np.float64],
    labels: Groups,
    ends: NDArray[np.int32],
    links: NDArray[np.int32],
    groups: int,
) -> tuple[Groups, Groups, NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return the pairs of groups that touch, sorted, and for each the sums of all costs and of the attractive ones.

    The last is the sum of the repulsive costs within every group, positive.
    """
    room = 0
    for v in range(len(labels)):
        for k in range(first[v], first[v + 1]):
            room += int(labels[near[k]] > labels[v])
    a, b, total, up = np.empty(room, np.int32), np.empty(room, np.int32), np.empty(room), np.empty(room)
    down = np.zeros(groups)
    seen = np.full(groups, -1, np.int32)
    sums, positive, touched = np.zeros(groups), np.zeros(groups), np.empty(groups, np.int32)
    n = 0
    for group in range(groups):
        m = 0
        v = ends[0, group]
        while v >= 0:
            for k in range(first[v], first[v + 1]):
                other, c = labels[near[k]], cost[k]
                if other > group:
                    if seen[other] != group:
                        seen[other] = group
                        sums[other] = positive[other] = 0
                        touched[m] = other
                        m += 1
                    sums[other] += c
                    positive[other] += max(c, 0.0)
                elif other == group and near[k] > v:
                    down[group] += max(-c, 0.0)
            v = links[1, v]
        for other in np.sort(touched[:m]):
            a[n], b[n], total[n], up[n] = group, other, sums[other], positive[other]
            n += 1
    return a[:n], b[:n], total[:n], up[:n], down


@compiled()
def _join(labels: Groups, a: Groups, b: Groups, total: NDArray[np.float64], groups: int) -> None:
    """Join the groups of all pairs that attract each other."""
    root = np.arange(groups)
    for i in range(len(a)):
        if total[i] > LEAST:
            x, y = root[a[i]], root[b[i]]
            while root[x] != x:
                x = root[x]
            while root[y] != y:
                y = root[y]
            root[max(x, y)] = min(x, y)
    for group in range(groups):
        root[group] = root[root[group]]
    for v in range(len(labels)):
        labels[v] = root[labels[v]]


@compiled()
def _polish(
    first: NDArray[np.int64], near: NDArray[np.int32], cost: NDArray[np.float64], labels: Groups, groups: int
) -> None:
    """Move single nodes, in turn, to the neighbouring group that attracts them most."""
    seen, sums = np.full(groups, -1, np.int32), np.zeros(groups)
    touched = np.empty(groups, np.int32)
    for v in range(len(labels)):
        m = 0
        for k in range(first[v], first[v + 1]):
            group = labels[near[k]]
            if seen[group] != v:
                seen[group] = v
                sums[group] = 0
                touched[m] = group
                m += 1
            sums[group] += cost[k]
        own = labels[v]
        stay, best = sums[own] if seen[own] == v else 0.0, 0.0
        for group in touched[:m]:
            if group != own and sums[group] - stay > best + LEAST:
                best = sums[group] - stay
                labels[v] = group
