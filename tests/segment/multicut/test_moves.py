import bioimage_cpp as bic
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.segment.multicut.test_solvers import edges, lattice, random_graph
from vimvol.segment.multicut import energy, solve
from vimvol.segment.multicut.heap import drop, push, settle
from vimvol.segment.multicut.moves import Neighbours, move_nodes
from vimvol.segment.relabel import consecutive


def in_order(uv, costs):
    order = np.lexsort((uv[:, 1], uv[:, 0]))
    return uv[order], costs[order]


def of_the_library(n, uv, costs, labels, rounds):
    graph = bic.graph.UndirectedGraph.from_unique_edges(n, uv)
    objective = bic.graph.multicut.MulticutObjective(graph, costs)
    objective.labels = labels
    return consecutive(bic.graph.multicut.KernighanLinMulticut(number_of_outer_iterations=rounds).optimize(objective))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("solver", ["greedy", "components"])
def test_every_round_is_that_of_the_library(solver, seed):
    n, uv, costs = lattice(12, seed)
    uv, costs = in_order(uv, costs)
    graph = Neighbours.of(n, uv, costs)
    labels, settled = start, _ = solve(n, uv, costs, solver), None
    for rounds in (1, 2, 3):
        labels, settled = move_nodes(graph, labels, settled)
        assert (labels == of_the_library(n, uv, costs, start, rounds)).all()
    assert (labels != start).any()


@pytest.mark.parametrize(("least", "density", "number"), [(10, 0.7, 60), (80, 0.05, 40)])
def test_random_graphs_mostly_end_as_the_library_ends(least, density, number):
    """A node that comes back to a group within a round counts once here, and, it seems, twice there."""
    same, differences = 0, []
    for seed in range(number):
        n = least + seed * 37 % (4 * least)
        uv, costs = random_graph(n, seed, density)
        graph, best = Neighbours.of(n, uv, costs), solve(n, uv, costs, "greedy")
        labels, _ = move_nodes(graph, *move_nodes(graph, best))
        theirs = of_the_library(n, uv, costs, best, 2)
        same += (labels == theirs).all()
        lower = energy(uv, costs, theirs)
        differences.append((energy(uv, costs, labels) - lower) / abs(lower))
    assert same >= 0.9 * number
    assert np.mean(differences) < 1e-4


def test_what_is_settled_would_not_change():
    some = 0
    for seed in range(60):
        n = 20 + seed % 40
        uv, costs = random_graph(n, seed, 0.3 + 0.4 * (seed % 2))
        graph = Neighbours.of(n, uv, costs)
        once, settled = move_nodes(graph, solve(n, uv, costs, "greedy"))
        some += settled.any() and not settled.all()
        assert (move_nodes(graph, once, settled)[0] == move_nodes(graph, once)[0]).all()
    assert some > 10


def test_a_group_whose_nodes_repel_each_other_comes_apart():
    uv = edges((0, 1), (0, 2), (1, 2))
    graph = Neighbours.of(3, uv, np.array([1.0, -5.0, 1.0]))
    labels, settled = move_nodes(graph, np.zeros(3, np.uint64))
    assert not settled.any()
    assert energy(uv, np.array([1.0, -5.0, 1.0]), labels) == -4.0


def test_nothing_moves_without_edges():
    for n in (0, 3):
        labels, settled = move_nodes(Neighbours.of(n, edges(), np.empty(0)), np.arange(n, dtype=np.uint64))
        assert labels.tolist() == list(range(n))
        assert settled.tolist() == [True] * n


@given(st.lists(st.tuples(st.integers(0, 7), st.integers(-3, 3)), max_size=40))
@settings(max_examples=60)
def test_the_largest_gain_is_at_the_top(steps):
    heap, place, gains = np.zeros(8, np.int32), np.full(8, -1, np.int32), np.zeros(8)
    size, there = 0, {}
    for node, gain in steps:
        if node not in there:
            gains[node] = gain
            size = push(heap, place, gains, size, node)
            there[node] = gain
        elif gain == there[node]:
            size = drop(heap, place, gains, size, place[node])
            del there[node]
        else:
            more, gains[node], there[node] = gain > there[node], gain, gain
            settle(heap, place, gains, size, place[node], more)
        assert size == len(there)
        assert all(heap[place[node]] == node for node in there)
        assert (np.flatnonzero(place >= 0) == sorted(there)).all()
        if there:
            assert gains[heap[0]] == max(there.values())
