"""Long-range edges of the lifted multicut: what the paths between fragments that do not touch say of them.

A lifted edge adds its cost to the energy where its ends come to lie in different segments, but joins nothing: segments
stay connected by ordinary edges (Keuper et al. 2015, "Efficient decomposition of image and mesh graphs by lifted
multicuts", ICCV; for neurites Beier et al. 2017, "Multicut brings automated neurite segmentation closer to human
performance", Nature Methods 14:101).
"""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

ROWS_AT_ONCE = 1 << 22
"""Paths that are looked at together, about 100 bytes each."""

Nodes = NDArray[np.int64]
Costs = NDArray[np.float64]


class Paths(NamedTuple):
    """Pairs of nodes, each once, sorted, and the cost of the weakest edge on the best path between them; all (P,)."""

    begin: Nodes
    end: Nodes
    cost: Costs


def lifted_edges(
    n_nodes: int, uv: NDArray[np.uint64], costs: Costs, reach: int, most: int
) -> tuple[NDArray[np.uint64], Costs]:
    """Return lifted edges between nodes that are 2 to ``reach`` edges apart, and their costs.

    A path is as good as its weakest edge, and two nodes belong together as much as the best path between them says: the
    cost of their lifted edge is the largest, over all paths of at most ``reach`` edges, of the smallest cost on the
    path. It attracts if a path of attractive edges leads from one to the other, and else repels as much as the lowest
    barrier between them. To keep the graph sparse only the ``most`` strongest lifted edges of a node are kept, those of
    the largest absolute cost, and of the nodes that it does not touch only these lead farther.

    Parameters
    ----------
    n_nodes
        Number of nodes.
    uv
        (E, 2) uint64 in 0..n_nodes-1, each edge once, at least one.
    costs
        (E,) finite; positive attracts.
    reach
        Edges of a path at most, at least 2.
    most
        Lifted edges that a node asks for; of equally strong ones those to smaller nodes. An edge is there if either of
        its ends asks for it.

    Returns
    -------
    uv : numpy.ndarray
        (L, 2) uint64, smaller node first, sorted, each once; none is an edge of the graph.
    costs : numpy.ndarray
        (L,) float64.
    """
    ends = uv.astype(np.int64)
    edges = _best(np.concatenate([ends[:, 0], ends[:, 1]]), np.concatenate([ends[:, 1], ends[:, 0]]), np.tile(costs, 2))
    first = np.searchsorted(edges.begin, np.arange(n_nodes + 1))
    degree = np.diff(first)
    # paths that begin at a node, about: over its neighbours, and over those that lead farther
    work = np.bincount(edges.begin, degree[edges.end], n_nodes) + most * int(degree.max())
    number = np.cumsum(work) // ROWS_AT_ONCE
    cuts = [0, *(np.flatnonzero(np.diff(number)) + 1).tolist(), n_nodes]
    parts = [_lifted_of(slice(first[b], first[e]), edges, first, reach, most) for b, e in itertools.pairwise(cuts)]
    begin, end, cost = (np.concatenate(column) for column in zip(*parts, strict=True))
    found = _best(np.minimum(begin, end), np.maximum(begin, end), cost)
    return np.stack([found.begin, found.end], axis=1).astype(np.uint64), found.cost


def _lifted_of(rows: slice, edges: Paths, first: Nodes, reach: int, most: int) -> Paths:
    """Return the lifted edges that the nodes at the beginning of some edges ask for."""
    own = Paths(edges.begin[rows], edges.end[rows], edges.cost[rows])
    known = _key(own.begin, own.end)
    paths = forth = own
    lifted = Paths(own.begin[:0], own.end[:0], own.cost[:0])
    for _ in range(reach - 1):
        paths = _best(*(np.concatenate(pair) for pair in zip(paths, _longer(forth, edges, first), strict=True)))
        near = np.isin(_key(paths.begin, paths.end), known, assume_unique=True)
        lifted = _strongest(_where(paths, ~near), most)
        forth = Paths(*(np.concatenate(pair) for pair in zip(_where(paths, near), lifted, strict=True)))
    return lifted


def _longer(paths: Paths, edges: Paths, first: Nodes) -> Paths:
    """Return the paths with one edge more, but for those that come back; pairs may stand several times."""
    degree = first[paths.end + 1] - first[paths.end]
    row = np.repeat(np.arange(len(degree)), degree)
    step = np.arange(len(row)) - np.repeat(np.cumsum(degree) - degree - first[paths.end], degree)
    begin, end = paths.begin[row], edges.end[step]
    forth = begin != end
    return Paths(begin[forth], end[forth], np.minimum(paths.cost[row], edges.cost[step])[forth])


def _best(begin: Nodes, end: Nodes, cost: Costs) -> Paths:
    """Return the largest cost of every pair, sorted by pair."""
    key = _key(begin, end)
    order = np.argsort(key)
    new = np.ones(len(key), bool)
    new[1:] = np.diff(key[order]) > 0
    starts = np.flatnonzero(new)
    if not len(starts):
        return Paths(begin, end, cost)
    return Paths(begin[order][starts], end[order][starts], np.maximum.reduceat(cost[order], starts))


def _strongest(paths: Paths, most: int) -> Paths:
    """Return the ``most`` largest absolute costs of every beginning, sorted by pair."""
    order = np.lexsort((paths.end, -np.abs(paths.cost), paths.begin))
    begin = paths.begin[order]
    rank = np.arange(len(begin)) - np.searchsorted(begin, begin)
    return _where(paths, np.sort(order[rank < most]))


def _where(paths: Paths, rows: NDArray[np.bool_] | NDArray[np.intp]) -> Paths:
    return Paths(paths.begin[rows], paths.end[rows], paths.cost[rows])


def _key(begin: Nodes, end: Nodes) -> Nodes:
    return (begin << 32) | end
