"""Partition of a graph by multicut, with the solvers that can be chosen by name.

A multicut joins nodes such that the summed costs of the edges between different groups are lowest. The
problem is NP-hard; all solvers here are heuristics, and all are deterministic.
"""

from __future__ import annotations

from collections.abc import Callable

import bioimage_cpp as bic
import numpy as np
from numpy.typing import NDArray

from vimvol.errors import ConfigError
from vimvol.segment.graph import pair_order
from vimvol.segment.relabel import consecutive
from vimvol.segment.stitch import union

Solver = Callable[[int, NDArray[np.uint64], NDArray[np.float64]], NDArray[np.uint64]]
"""Takes the number of nodes, (E, 2) edges and (E,) costs; returns (n_nodes,) labels of any numbering.

There is at least one edge; every edge names the smaller node first, and edges are sorted and unique.
"""


def _greedy(n_nodes: int, uv: NDArray[np.uint64], costs: NDArray[np.float64]) -> NDArray[np.uint64]:
    """Contract the most attractive edge until none attracts (Keuper et al. 2015, greedy additive)."""
    return _optimize(bic.graph.multicut.GreedyAdditiveMulticut(), n_nodes, uv, costs)


def _kernighan_lin(n_nodes: int, uv: NDArray[np.uint64], costs: NDArray[np.float64]) -> NDArray[np.uint64]:
    """Move nodes between neighbouring groups (Keuper et al. 2015, after Kernighan & Lin 1970), from greedy's result."""
    # without an initial labelling the library starts from its greedy additive solution
    return _optimize(bic.graph.multicut.KernighanLinMulticut(), n_nodes, uv, costs)


def _components(n_nodes: int, uv: NDArray[np.uint64], costs: NDArray[np.float64]) -> NDArray[np.uint64]:
    """Join everything that attractive edges connect; linear time, no repulsion."""
    return union(n_nodes, uv[costs > 0])


SOLVERS: dict[str, Solver] = {
    "kernighan-lin": _kernighan_lin,
    "greedy": _greedy,
    "components": _components,
}


def check_solver(name: str) -> None:
    """Raise `ConfigError` if there is no such solver."""
    if name not in SOLVERS:
        raise ConfigError(f"solver {name!r} does not exist, so nothing is solved; choose one of {', '.join(SOLVERS)}")


def solve(
    n_nodes: int, uv: NDArray[np.uint64], costs: NDArray[np.float64], solver: str = "kernighan-lin"
) -> NDArray[np.uint64]:
    """Partition a graph.

    Parameters
    ----------
    n_nodes
        Number of nodes; a node without edges is a group by itself.
    uv
        (E, 2) uint64 in 0..n_nodes-1, each undirected edge once, no loops.
    costs
        (E,) finite; positive attracts.
    solver
        A name in `SOLVERS`.

    Returns
    -------
    numpy.ndarray
        (n_nodes,) uint64, groups consecutive from 0 by first node.

    Raises
    ------
    ConfigError
        If there is no such solver.
    ValueError
        If edges and costs do not fit each other or the nodes, or an edge occurs twice.
    """
    check_solver(solver)
    if uv.shape != (len(costs), 2):
        raise ValueError(f"{len(costs)} costs do not fit edges of shape {uv.shape}")
    if not np.isfinite(costs).all():
        raise ValueError("some costs are not finite")
    if len(uv) == 0:
        return np.arange(n_nodes, dtype=np.uint64)
    if int(uv.max()) >= n_nodes or (uv[:, 0] == uv[:, 1]).any():
        raise ValueError(f"edges name nodes beyond the {n_nodes} there are, or join a node to itself")
    edges, order = _sorted(uv)
    return consecutive(SOLVERS[solver](n_nodes, edges, np.asarray(costs, np.float64)[order]))


def energy(uv: NDArray[np.uint64], costs: NDArray[np.float64], labels: NDArray[np.uint64]) -> float:
    """Return the summed costs of the edges that a labelling cuts; lower is better."""
    cut = labels[uv[:, 0]] != labels[uv[:, 1]]
    return float(costs[cut].sum())


def _sorted(uv: NDArray[np.uint64]) -> tuple[NDArray[np.uint64], NDArray[np.intp]]:
    """Return the edges with the smaller node first, sorted, and the order they had."""
    u, v = uv.min(axis=1).astype(np.uint64), uv.max(axis=1).astype(np.uint64)
    order = pair_order(u, v)
    edges = np.stack([u[order], v[order]], axis=1)
    if (edges[1:] == edges[:-1]).all(axis=1).any():
        raise ValueError("an edge occurs twice; merge the tables that the edges come from")
    return edges, order


def _optimize(
    solver: bic.graph.multicut.MulticutSolver, n_nodes: int, uv: NDArray[np.uint64], costs: NDArray[np.float64]
) -> NDArray[np.uint64]:
    graph = bic.graph.UndirectedGraph.from_unique_edges(n_nodes, uv)
    labels: NDArray[np.uint64] = solver.optimize(bic.graph.multicut.MulticutObjective(graph, costs))
    return labels
