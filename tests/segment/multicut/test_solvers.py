import importlib.util
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vimvol.errors import ConfigError, MissingExtraError
from vimvol.segment.multicut import SOLVERS, check_solver, energy, is_divisible, solve
from vimvol.segment.multicut.moves import Neighbours, move_nodes

NO_NIFTY = importlib.util.find_spec("nifty") is None
ALL = [
    pytest.param(name, marks=pytest.mark.skipif(name == "nifty" and NO_NIFTY, reason="nifty is not installed"))
    for name in SOLVERS
]
# those that minimise the energy of the edges alone
OTHERS = ("components", "average", "mutex-watershed", "lifted")
MULTICUT_SOLVERS = [param for param in ALL if param.values[0] not in OTHERS]


def edges(*pairs):
    return np.array(pairs, np.uint64).reshape(-1, 2)


def random_graph(n, seed, density=0.7):
    rng = np.random.default_rng(seed)
    pairs = [pair for pair in itertools.combinations(range(n), 2) if rng.random() < density]
    return edges(*pairs), rng.normal(0, 1, len(pairs))


def partitions(n):
    """All partitions of n nodes, as restricted growth strings."""
    if n == 0:
        yield ()
        return
    for rest in partitions(n - 1):
        for label in range(max(rest, default=-1) + 2):
            yield (*rest, label)


@st.composite
def graphs(draw):
    n = draw(st.integers(1, 8))
    pairs = list(itertools.combinations(range(n), 2))
    chosen = draw(st.lists(st.sampled_from(pairs), unique=True)) if pairs else []
    costs = draw(st.lists(st.floats(-10, 10), min_size=len(chosen), max_size=len(chosen)))
    return n, edges(*chosen), np.array(costs, np.float64)


@pytest.mark.parametrize("solver", ALL)
class TestEverySolver:
    def test_an_empty_graph_has_no_labels(self, solver):
        assert solve(0, edges(), np.empty(0), solver).shape == (0,)

    def test_nodes_without_edges_stay_alone(self, solver):
        assert solve(3, edges(), np.empty(0), solver).tolist() == [0, 1, 2]
        assert solve(5, edges((1, 3)), np.array([2.0]), solver).tolist() == [0, 1, 2, 1, 3]

    @pytest.mark.parametrize(("cost", "expected"), [(1.0, [0, 0]), (-1.0, [0, 1])])
    def test_one_edge_joins_or_cuts(self, solver, cost, expected):
        assert solve(2, edges((0, 1)), np.array([cost]), solver).tolist() == expected

    def test_attraction_everywhere_joins_all(self, solver):
        uv, costs = random_graph(30, 0)
        assert (solve(30, uv, np.abs(costs) + 0.1, solver) == 0).all()

    def test_repulsion_everywhere_joins_nothing(self, solver):
        uv, costs = random_graph(30, 0)
        assert (solve(30, uv, -np.abs(costs) - 0.1, solver) == np.arange(30)).all()

    def test_two_cliques_come_apart(self, solver):
        inside = [*itertools.combinations(range(5), 2), *itertools.combinations(range(5, 10), 2)]
        between = list(itertools.product(range(5), range(5, 10)))
        costs = np.array([1.0] * len(inside) + [-1.0] * len(between))
        assert solve(10, edges(*inside, *between), costs, solver).tolist() == [0] * 5 + [1] * 5

    @given(graph=graphs())
    @settings(max_examples=30)
    def test_labels_are_numbered_by_first_node(self, solver, graph):
        n, uv, costs = graph
        labels = solve(n, uv, costs, solver)
        assert labels.dtype == np.uint64
        assert labels.shape == (n,)
        firsts = [labels.tolist().index(label) for label in range(int(labels.max()) + 1)]
        assert firsts == sorted(firsts)

    @given(graph=graphs())
    @settings(max_examples=30)
    def test_groups_are_connected(self, solver, graph):
        n, uv, costs = graph
        labels = solve(n, uv, costs, solver)
        inside = uv[labels[uv[:, 0]] == labels[uv[:, 1]]]
        assert (solve(n, inside, np.ones(len(inside)), "components") == labels).all()

    def test_the_order_of_edges_changes_nothing(self, solver):
        uv, costs = random_graph(60, 3)
        order = np.random.default_rng(0).permutation(len(uv))
        turned = np.ascontiguousarray(uv[order, ::-1])
        assert (solve(60, uv, costs, solver) == solve(60, turned, costs[order], solver)).all()

    def test_a_run_can_be_repeated(self, solver):
        uv, costs = random_graph(60, 3)
        assert (solve(60, uv, costs, solver) == solve(60, uv.copy(), costs.copy(), solver)).all()


@pytest.mark.parametrize("solver", MULTICUT_SOLVERS)
@given(graph=graphs())
@settings(max_examples=30)
def test_a_multicut_is_no_worse_than_cutting_all_or_nothing(solver, graph):
    n, uv, costs = graph
    assert energy(uv, costs, solve(n, uv, costs, solver)) <= min(0, costs.sum()) + 1e-9


def test_small_problems_are_solved_nearly_to_the_optimum():
    groups = np.array(list(partitions(6)), np.uint64)
    assert len(groups) == 203
    names = ["components", "greedy", "kernighan-lin", "fusion-moves"]
    solved = dict.fromkeys(names, 0)
    for seed in range(25):
        uv, costs = random_graph(6, seed)
        best = min(energy(uv, costs, labels) for labels in groups)
        for name in names:
            found = energy(uv, costs, solve(6, uv, costs, name))
            assert found >= best - 1e-9
            solved[name] += found <= best + 1e-9
    assert solved["kernighan-lin"] >= 22
    assert list(solved.values()) == sorted(solved.values())


def test_each_step_of_the_chain_improves_on_the_one_before():
    better = np.zeros(2, int)
    for seed in range(10):
        uv, costs = random_graph(40, seed, 0.3)
        chain = ("greedy", "kernighan-lin", "fusion-moves")
        steps = np.diff([energy(uv, costs, solve(40, uv, costs, name)) for name in chain])
        assert (steps <= 1e-9).all()
        better += steps < -1e-9
    assert (better > 0).all()


def lattice(side, seed):
    """A lattice of fragments, some edges missing, as they are between tiles: the library's Kernighan-Lin goes wrong."""
    rng = np.random.default_rng(seed)
    flat = np.arange(side**3).reshape((side,) * 3)
    place = np.stack(np.unravel_index(np.arange(side**3), flat.shape), axis=1)
    pairs = []
    for step in ((0, 0, 1), (0, 1, 0), (1, 0, 0), (0, 1, 1), (1, 0, 1), (1, 1, 0)):
        lower = flat[tuple(slice(0, side - s) for s in step)].ravel()
        upper = flat[tuple(slice(s, side) for s in step)].ravel()
        near = np.abs(place[lower] // 3 - place[upper] // 3).sum(axis=1) <= 1
        pairs.append(np.stack([lower, upper], axis=1)[near])
    uv = np.concatenate(pairs).astype(np.uint64)
    truth = (place // [side, 4, 4] @ [0, 100, 1])[uv.astype(int)]
    mean = np.where(truth[:, 0] == truth[:, 1], 2.0, -2.0)
    return side**3, uv, (mean + rng.normal(0, 2.4, len(uv))) * (rng.gamma(1.2, 20, len(uv)).astype(int) + 1)


@pytest.mark.parametrize("solver", ["kernighan-lin", "fusion-moves"])
@pytest.mark.parametrize("seed", range(3))
def test_large_graphs_get_no_worse_than_greedy_and_groups_stay_connected(solver, seed):
    n, uv, costs = lattice(15, seed)
    labels = solve(n, uv, costs, solver)
    assert energy(uv, costs, labels) <= energy(uv, costs, solve(n, uv, costs, "greedy"))
    inside = uv[labels[uv[:, 0]] == labels[uv[:, 1]]]
    assert (solve(n, inside, np.ones(len(inside)), "components") == labels).all()


def by_strongest_edge(n, uv, costs):
    """The mutex watershed, written down as its authors define it."""
    group, apart = list(range(n)), set()
    for edge in np.argsort(-np.abs(costs), kind="stable"):
        a, b = (group[int(node)] for node in uv[edge])
        if a == b:
            continue
        if costs[edge] <= 0:
            apart.add(frozenset((a, b)))
        elif frozenset((a, b)) not in apart:
            group = [a if g == b else g for g in group]
            apart = {frozenset(a if g == b else g for g in pair) for pair in apart}
    return group


def by_mean_cost(n, uv, costs):
    """Average linkage by exhaustive search: the two groups of highest mean cost, strongest first, join for good."""
    group = np.arange(n)
    while True:
        found = {}
        for (u, v), cost in zip(uv.astype(int), costs, strict=True):
            if group[u] != group[v]:
                found.setdefault(frozenset((group[u], group[v])), []).append(cost)
        means = {pair: float(np.mean(values)) for pair, values in found.items()}
        best = max((pair for pair in means if means[pair] > 0), key=means.__getitem__, default=None)
        if best is None:
            return group.tolist()
        a, b = best
        group[group == b] = a


@pytest.mark.parametrize(("solver", "definition"), [("mutex-watershed", by_strongest_edge), ("average", by_mean_cost)])
def test_a_linkage_does_what_it_is_defined_to_do(solver, definition):
    for seed in range(40):
        uv, costs = random_graph(9, seed)
        expected = definition(9, uv, costs)
        assert (
            solve(9, uv, costs, solver).tolist()
            == solve(
                9,
                edges(*((i, expected.index(g)) for i, g in enumerate(expected) if expected.index(g) < i)),
                np.ones(sum(expected.index(g) < i for i, g in enumerate(expected))),
                "components",
            ).tolist()
        )
        assert not is_divisible(solver)


@pytest.mark.skipif(not NO_NIFTY, reason="nifty is installed")
def test_a_solver_that_is_not_installed_says_where_to_find_it():
    with pytest.raises(MissingExtraError, match="install it from conda-forge"):
        check_solver("nifty")


def test_an_unknown_solver_is_refused_with_the_known_ones():
    with pytest.raises(ConfigError, match=r"'magic' does not exist.*kernighan-lin, greedy"):
        solve(2, edges((0, 1)), np.ones(1), "magic")


@pytest.mark.parametrize(
    ("uv", "costs", "message"),
    [
        (edges((0, 1)), np.ones(2), "do not fit"),
        (edges((0, 1)), np.array([np.nan]), "not finite"),
        (edges((0, 2)), np.ones(1), "beyond the 2"),
        (edges((1, 1)), np.ones(1), "to itself"),
        (edges((0, 1), (1, 0)), np.ones(2), "occurs twice"),
    ],
)
def test_what_is_no_graph_is_refused(uv, costs, message):
    with pytest.raises(ValueError, match=message):
        solve(2, uv, costs)


def test_a_part_of_a_graph_has_one_round_and_the_whole_has_two():
    further = 0
    for seed in range(10):
        uv, costs = random_graph(80, seed, 0.3)
        greedy = solve(80, uv, costs, "greedy")
        once = move_nodes(Neighbours.of(80, uv, costs), greedy)[0]
        part = solve(80, uv, costs, part=True)
        assert energy(uv, costs, part) == pytest.approx(min(energy(uv, costs, each) for each in (greedy, once)))
        whole = energy(uv, costs, solve(80, uv, costs))
        further += whole < energy(uv, costs, part) - 1e-9
    assert further > 0


@pytest.mark.parametrize("solver", [name for name in SOLVERS if name not in ("kernighan-lin", "nifty")])
def test_other_solvers_take_a_part_like_a_whole(solver):
    uv, costs = random_graph(60, 3)
    assert (solve(60, uv, costs, solver, part=True) == solve(60, uv, costs, solver)).all()
