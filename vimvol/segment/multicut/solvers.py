"""Solvers of the multicut by name, all behind one function.

Positive costs attract, negative repel. Every entry of `SOLVERS` takes a whole graph in memory.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Mapping
from typing import Any

import bioimage_cpp as bic
import numpy as np
from numpy.typing import NDArray

from vimvol.errors import ConfigError, MissingExtraError
from vimvol.pairs import pair_order
from vimvol.segment.multicut.lifted import lifted_edges
from vimvol.segment.relabel import consecutive
from vimvol.segment.stitch import union

Solver = Callable[[int, NDArray[np.uint64], NDArray[np.float64]], NDArray[np.uint64]]
"""Takes the number of nodes, (E, 2) edges and (E,) costs; returns (n_nodes,) labels of any numbering.

There is at least one edge; every edge names the smaller node first, and edges are sorted and unique.
"""

ROUNDS = 2
"""Rounds of Kernighan-Lin; more would gain .02 % for twice the time."""

ROUNDS_OF_PART = 1
"""Rounds in a part of a graph, which is solved only to tell what is certain: all the rest is solved again, level by
level. A second round there takes a third of the time of all and lowers the final energy by .01 to .03 %."""

REACH, MOST, WEIGHT = 3, 10, 0.03
"""Edges of a path that makes a lifted edge, lifted edges of a node, and what their costs are multiplied by; chosen on
FIB-25."""

FUSIONS = 10
"""Rounds of proposals that fusion moves try, two a round; they end after 4 rounds without a gain."""


def _greedy(n_nodes: int, uv: NDArray[np.uint64], costs: NDArray[np.float64]) -> NDArray[np.uint64]:
    """Contract the most attractive edge until none attracts (Keuper et al. 2015, greedy additive)."""
    labels: NDArray[np.uint64] = bic.graph.multicut.GreedyAdditiveMulticut().optimize(_Objective(n_nodes, uv, costs))
    return labels


def _kernighan_lin(
    n_nodes: int, uv: NDArray[np.uint64], costs: NDArray[np.float64], rounds: int = ROUNDS
) -> NDArray[np.uint64]:
    """Move nodes between neighbouring groups (Keuper et al. 2015, after Kernighan & Lin 1970), from greedy's result."""
    best = consecutive(_greedy(n_nodes, uv, costs))
    # compiled code is loaded by those who solve, not by everybody who plans to
    from vimvol.segment.multicut.moves import Neighbours, move_nodes

    graph = Neighbours.of(n_nodes, uv, costs)
    found, settled = [best], None
    for _ in range(rounds):
        labels, settled = move_nodes(graph, found[-1], settled)
        found.append(labels)
    lowest = energy(uv, costs, best)
    # groups that join in several pairs at once can raise the energy, on some graphs in every round
    for labels in reversed(found[1:]):
        if energy(uv, costs, labels) < lowest:
            return _connected(n_nodes, uv, labels)
    return best


def _fusion_moves(n_nodes: int, uv: NDArray[np.uint64], costs: NDArray[np.float64]) -> NDArray[np.uint64]:
    """Fuse the result of Kernighan-Lin with noisy proposals, keep what lowers the energy (Beier et al. 2015)."""
    multicut = bic.graph.multicut
    best = _kernighan_lin(n_nodes, uv, costs)
    # the noise has the scale of the costs, which grow with the size of the faces
    proposals = multicut.WatershedProposalGenerator(sigma=float(np.abs(costs).mean()), n_seeds_fraction=0.1)
    solver = multicut.FusionMoveMulticut(proposal_generator=proposals, number_of_iterations=FUSIONS)
    graph = bic.graph.UndirectedGraph.from_unique_edges(n_nodes, uv)
    labels = solver.optimize(multicut.MulticutObjective(graph, costs, initial_labels=best))
    return _connected(n_nodes, uv, labels) if energy(uv, costs, labels) < energy(uv, costs, best) else best


def _lifted(n_nodes: int, uv: NDArray[np.uint64], costs: NDArray[np.float64]) -> NDArray[np.uint64]:
    """Kernighan-Lin from the greedy result with long-range edges, see `vimvol.segment.multicut.lifted`."""
    long, weak = lifted_edges(n_nodes, uv, costs, REACH, MOST)
    weak *= WEIGHT
    module = bic.graph.lifted_multicut
    graph = bic.graph.UndirectedGraph.from_unique_edges(n_nodes, uv)

    def run(solver: bic.graph.lifted_multicut.LiftedMulticutSolver, labels: NDArray[np.uint64] | None) -> Any:  # noqa: ANN401
        objective = module.LiftedMulticutObjective(
            graph, costs, lifted_uvs=long, lifted_costs=weak, initial_labels=labels
        )
        return _connected(n_nodes, uv, solver.optimize(objective))

    def height(labels: NDArray[np.uint64]) -> float:
        return energy(uv, costs, labels) + energy(long, weak, labels)

    greedy = run(module.LiftedGreedyAdditiveMulticut(), None)
    moved = run(module.LiftedKernighanLinMulticut(number_of_outer_iterations=ROUNDS), greedy)
    # what needs no long-range edge is found better without
    return min((moved, greedy, _kernighan_lin(n_nodes, uv, costs)), key=height)


def _connected(n_nodes: int, uv: NDArray[np.uint64], labels: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Split groups into their connected parts: moving nodes can tear a group apart, which costs no energy."""
    return union(n_nodes, uv[labels[uv[:, 0]] == labels[uv[:, 1]]])


def _mutex_watershed(n_nodes: int, uv: NDArray[np.uint64], costs: NDArray[np.float64]) -> NDArray[np.uint64]:
    """Join or part for good by the strongest edge left (Wolf et al. 2018, "The mutex watershed")."""
    attractive = costs > 0
    graph = bic.graph.UndirectedGraph.from_unique_edges(n_nodes, np.ascontiguousarray(uv[attractive]))
    labels: NDArray[np.uint64] = bic.graph.mutex_watershed.mutex_watershed_clustering(
        graph, costs[attractive], np.ascontiguousarray(uv[~attractive]), -costs[~attractive]
    )
    return labels


def _average(n_nodes: int, uv: NDArray[np.uint64], costs: NDArray[np.float64]) -> NDArray[np.uint64]:
    """Join the two groups with the highest mean cost until none is positive (Bailoni et al. 2022, "GASP")."""
    graph = bic.graph.UndirectedGraph.from_unique_edges(n_nodes, uv)
    policy = bic.graph.agglomeration.GaspClusterPolicy(linkage="mean")
    labels: NDArray[np.uint64] = policy.optimize(graph, costs)
    return labels


def _components(n_nodes: int, uv: NDArray[np.uint64], costs: NDArray[np.float64]) -> NDArray[np.uint64]:
    """Join everything that attractive edges connect; linear time, no repulsion."""
    return union(n_nodes, uv[costs > 0])


def _nifty(n_nodes: int, uv: NDArray[np.uint64], costs: NDArray[np.float64]) -> NDArray[np.uint64]:
    """Kernighan-Lin of nifty, from its greedy additive result."""
    nifty = _load_nifty()
    graph = nifty.graph.undirectedGraph(n_nodes)
    graph.insertEdges(uv)
    objective = nifty.graph.opt.multicut.multicutObjective(graph, costs)
    solver = objective.kernighanLinFactory(warmStartGreedy=True).create(objective)
    return np.asarray(solver.optimize(), np.uint64)


def _load_nifty() -> Any:  # noqa: ANN401 - an untyped package
    """Import nifty, not the unrelated package of that name on PyPI."""
    try:
        nifty = importlib.import_module("nifty")
        importlib.import_module("nifty.graph.opt.multicut")
    except ImportError:
        raise MissingExtraError(
            "solver 'nifty' needs nifty, which is not installed, so nothing is solved; install it from conda-forge "
            "(PyPI's nifty is another package) or choose kernighan-lin"
        ) from None
    return nifty


SOLVERS: dict[str, Solver] = {
    "kernighan-lin": _kernighan_lin,
    "greedy": _greedy,
    "fusion-moves": _fusion_moves,
    "nifty": _nifty,
    "lifted": _lifted,
    "mutex-watershed": _mutex_watershed,
    "average": _average,
    "components": _components,
}

SOLVERS_OF_PARTS: Mapping[str, Solver] = {
    **SOLVERS,
    "kernighan-lin": functools.partial(_kernighan_lin, rounds=ROUNDS_OF_PART),
}
"""The same, as they solve a part of a graph."""

WHOLE_GRAPH = frozenset({"mutex-watershed", "average", "components", "lifted"})
"""Solvers that minimise no sum over the edges of the graph alone, so that costs of joined nodes cannot be added up and
solved again."""


def check_solver(name: str) -> None:
    """Refuse a solver that cannot be used.

    Raises
    ------
    ConfigError
        If there is no such solver.
    MissingExtraError
        If the package that it needs is not installed.
    """
    if name not in SOLVERS:
        raise ConfigError(f"solver {name!r} does not exist, so nothing is solved; choose one of {', '.join(SOLVERS)}")
    if name == "nifty":
        _load_nifty()


def is_divisible(name: str) -> bool:
    """Tell whether a solver can take a graph in parts, level by level."""
    return name not in WHOLE_GRAPH


def solve(
    n_nodes: int,
    uv: NDArray[np.uint64],
    costs: NDArray[np.float64],
    solver: str = "kernighan-lin",
    *,
    part: bool = False,
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
    part
        Whether this is a part of a graph whose result will be solved again, so that less effort will do.

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
    solvers = SOLVERS_OF_PARTS if part else SOLVERS
    return consecutive(solvers[solver](n_nodes, edges, np.asarray(costs, np.float64)[order]))


def energy(uv: NDArray[np.uint64], costs: NDArray[np.float64], labels: NDArray[np.uint64]) -> float:
    """Return the summed costs of the edges that a labelling cuts; lower is better."""
    cut = labels[uv[:, 0]] != labels[uv[:, 1]]
    return float(costs[cut].sum())


def _sorted(uv: NDArray[np.uint64]) -> tuple[NDArray[np.uint64], NDArray[np.intp] | slice]:
    """Return the edges with the smaller node first, sorted, and the order they had."""
    u, v = uv[:, 0], uv[:, 1]
    if (u < v).all() and ((u[1:] > u[:-1]) | ((u[1:] == u[:-1]) & (v[1:] > v[:-1]))).all():
        return np.ascontiguousarray(uv, np.uint64), slice(None)
    u, v = np.minimum(u, v).astype(np.uint64), np.maximum(u, v).astype(np.uint64)
    order = pair_order(u, v)
    edges = np.stack([u[order], v[order]], axis=1)
    if (edges[1:] == edges[:-1]).all(axis=1).any():
        raise ValueError("an edge occurs twice; merge the tables that the edges come from")
    return edges, order


class _Objective(bic.graph.multicut.MulticutObjective):  # type: ignore[misc]
    """What solvers take, without the copy of the graph that the library makes for it."""

    def __init__(self, n_nodes: int, uv: NDArray[np.uint64], costs: NDArray[np.float64]) -> None:
        self._graph = bic.graph.UndirectedGraph.from_unique_edges(n_nodes, uv)
        self._edge_costs = costs
        self._labels = np.arange(n_nodes, dtype=np.uint64)
