import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.segment.multicut.test_solvers import graphs, partitions, random_graph
from vimvol.segment.multicut import energy, lifted, solve, solvers
from vimvol.segment.multicut.lifted import lifted_edges


def by_all_paths(n, uv, costs, reach):
    """The cost (n, n) of the weakest edge of the best path of at most ``reach`` edges; -inf where there is none."""
    step = np.full((n, n), -np.inf)
    for (a, b), cost in zip(uv.astype(int), costs, strict=True):
        step[a, b] = step[b, a] = cost
    best = step.copy()
    for _ in range(reach - 1):
        best = np.maximum(best, np.minimum(best[:, :, None], step[None]).max(axis=1))
    best[np.diag_indices(n)] = -np.inf
    best[step > -np.inf] = -np.inf
    return best


def is_connected(uv, labels):
    inside = uv[labels[uv[:, 0]] == labels[uv[:, 1]]]
    return len(np.unique(solve(len(labels), inside, np.ones(len(inside)), "components"))) == len(np.unique(labels))


@given(graphs(), st.integers(2, 4))
@settings(max_examples=60)
def test_a_lifted_edge_costs_what_the_weakest_edge_of_the_best_path_does(graph, reach):
    n, uv, costs = graph
    if not len(uv):
        return
    found, values = lifted_edges(n, uv, costs, reach, most=n)
    expected = by_all_paths(n, uv, costs, reach)
    pairs = np.argwhere(np.triu(expected > -np.inf))
    assert found.tolist() == pairs.tolist()
    assert values.tolist() == expected[tuple(pairs.T)].tolist()


@pytest.mark.parametrize("most", [1, 3])
def test_a_node_asks_for_its_strongest(most):
    uv, costs = random_graph(40, 1, 0.1)
    found, values = lifted_edges(40, uv, costs, 2, most)
    expected = by_all_paths(40, uv, costs, 2)
    wanted = set()
    for node, row in enumerate(expected):
        others = sorted(np.flatnonzero(row > -np.inf).tolist(), key=lambda i: (-abs(row[i]), i))
        wanted |= {(min(node, i), max(node, i)) for i in others[:most]}
    assert found.tolist() == sorted(map(list, wanted))
    assert values.tolist() == [expected[a, b] for a, b in found.astype(int).tolist()]


def test_looking_at_few_paths_at_once_changes_nothing(monkeypatch):
    uv, costs = random_graph(60, 2, 0.1)
    whole = lifted_edges(60, uv, costs, 3, 4)
    monkeypatch.setattr(lifted, "ROWS_AT_ONCE", 10)
    parts = lifted_edges(60, uv, costs, 3, 4)
    assert (whole[0] == parts[0]).all()
    assert (whole[1] == parts[1]).all()


@given(graphs())
@settings(max_examples=30)
def test_the_lifted_energy_is_no_higher_than_that_of_the_plain_multicut(graph):
    n, uv, costs = graph
    if not len(uv):
        return
    long, weak = lifted_edges(n, uv, costs, solvers.REACH, solvers.MOST)

    def height(labels):
        return energy(uv, costs, labels) + energy(long, solvers.WEIGHT * weak, labels)

    assert height(solve(n, uv, costs, "lifted")) <= height(solve(n, uv, costs)) + 1e-9


def test_small_problems_are_solved_nearly_to_the_optimum(monkeypatch):
    # strong enough to matter
    monkeypatch.setattr(solvers, "WEIGHT", 1.0)
    groups = np.array(list(partitions(6)), np.uint64)
    solved = changed = 0
    for seed in range(25):
        uv, costs = random_graph(6, seed, 0.5)
        long, weak = lifted_edges(6, uv, costs, solvers.REACH, solvers.MOST)
        connected = [labels for labels in groups if is_connected(uv, labels)]
        heights = [energy(uv, costs, labels) + energy(long, weak, labels) for labels in connected]
        found, plain = solve(6, uv, costs, "lifted"), solve(6, uv, costs)
        height = energy(uv, costs, found) + energy(long, weak, found)
        assert height >= min(heights) - 1e-9
        solved += height <= min(heights) + 1e-9
        changed += (found != plain).any()
    assert solved >= 22
    assert changed > 0
