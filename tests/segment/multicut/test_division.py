import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vimvol.segment.multicut import energy, solve
from vimvol.segment.multicut.division import (
    UNIT,
    CostTable,
    Groups,
    contract,
    decide,
    merge_costs,
    reduce,
    solve_table,
    split_rim,
)


def table(edges):
    """A table of {(u, v): cost}, costs in units."""
    rows = sorted(edges.items())
    u, v = (np.array([uv[i] for uv, _ in rows], np.uint64) for i in (0, 1))
    return CostTable(u, v, np.array([cost for _, cost in rows], np.int64))


def as_dict(edges):
    return dict(zip(zip(edges.u.tolist(), edges.v.tolist(), strict=True), edges.cost.tolist(), strict=True))


def pairs(*uv):
    return np.array(uv, np.uint64).reshape(-1, 2)


@st.composite
def graphs(draw, nodes=10):
    chosen = draw(st.lists(st.sampled_from(list(itertools.combinations(range(1, nodes + 1), 2))), unique=True))
    return {uv: draw(st.integers(-9, 9)) for uv in chosen}


def path(n, cost=1):
    return {(i, i + 1): cost for i in range(1, n)}


def test_costs_are_rounded_to_the_unit_and_sorted():
    made = CostTable.from_costs(pairs((9, 3), (1, 2)), np.array([1.0, -0.25 - UNIT / 4]))
    assert as_dict(made) == {(1, 2): -(2**18), (3, 9): 2**20}
    assert made.costs().tolist() == [-0.25, 1.0]
    assert as_dict(CostTable.from_columns(made.columns())) == as_dict(made)


@given(graphs(), st.data())
def test_tables_that_share_edges_merge_to_all_of_them(graph, data):
    parts = [dict(data.draw(st.lists(st.sampled_from(sorted(graph.items()))))) if graph else {} for _ in range(3)]
    merged = merge_costs([table(part) for part in parts])
    assert as_dict(merged) == dict(sorted({**parts[0], **parts[1], **parts[2]}.items()))
    total = {}
    for part in parts:
        for uv, cost in part.items():
            total[uv] = total.get(uv, 0) + cost
    assert as_dict(merge_costs([table(part) for part in parts], add=True)) == dict(sorted(total.items()))


@given(graphs(), st.sets(st.integers(1, 10)), st.integers(1, 3))
def test_the_rim_is_all_that_a_neighbour_can_see(graph, cell, margin):
    incident = {uv: c for uv, c in graph.items() if cell & set(uv)}
    edges = table(incident)
    inside = [np.isin(ends, list(cell)) for ends in (edges.u, edges.v)]
    rim, interior = split_rim(edges, *inside, margin)
    assert as_dict(rim) | as_dict(interior) == as_dict(edges)
    assert len(rim) + len(interior) == len(edges)
    # the nodes of this cell within `margin` edges of any node of another, by breadth-first search
    distance = {node: 0 for uv in incident for node in uv if node not in cell}
    for step in range(margin):
        for u, v in incident:
            for a, b in ((u, v), (v, u)):
                if distance.get(a, 99) <= step and b in cell:
                    distance.setdefault(b, step + 1)
    near = {node for node, d in distance.items() if d <= margin}
    assert set(as_dict(rim)) == {uv for uv in incident if set(uv) <= near}


def test_only_nodes_within_the_margin_take_part():
    # a chain of attraction from the cell 0 = {1, 2}; a strong repulsion lies at its end
    edges = table(path(7) | {(6, 7): -100})
    cells = np.array([0, 0, 1, 1, 1, 1, 1])
    u_cell, v_cell = cells[edges.u.astype(int) - 1], cells[edges.v.astype(int) - 1]
    for margin, parted in ((3, []), (4, []), (5, [(6, 7)])):
        decisions = decide(edges, u_cell, v_cell, 0, margin, "greedy")
        assert decisions.joined.tolist() == [[1, 2]]
        assert [tuple(uv) for uv in decisions.parted.tolist()] == parted


def test_edges_between_cells_are_nobodys_and_unknown_nodes_stay_out():
    edges = table({(1, 2): 5, (2, 3): 5, (3, 4): -5, (4, 5): -5})
    u_cell, v_cell = np.array([0, 0, 1, 1]), np.array([0, 1, 1, -1])
    decisions = decide(edges, u_cell, v_cell, 0, 9, "kernighan-lin")
    assert decisions.joined.tolist() == [[1, 2]]
    assert decisions.parted.tolist() == [[3, 4]]
    nothing = decide(table({}), np.empty(0, np.int64), np.empty(0, np.int64), 0, 1, "greedy")
    assert len(nothing.joined) == len(nothing.parted) == 0


def test_a_veto_keeps_an_edge():
    groups = contract(pairs((3, 4), (4, 9), (10, 11)), pairs((4, 9), (4, 9), (5, 6)))
    assert groups.node.tolist() == [4, 11]
    assert groups.group.tolist() == [3, 10]
    assert len(contract(pairs(), pairs((1, 2))).node) == 0
    assert len(contract(pairs((1, 2)), pairs((1, 2))).node) == 0


@given(graphs(), graphs())
def test_groups_are_named_by_their_smallest_node(joined, parted):
    groups = contract(pairs(*sorted(joined)), pairs(*sorted(parted)))
    left = {uv: 1 for uv in joined if uv not in parted}
    expected = {node: node for node in range(1, 11)}
    for _ in range(10):
        for u, v in left:
            expected[u] = expected[v] = min(expected[u], expected[v])
    assert groups.of(np.arange(1, 11, dtype=np.uint64)).tolist() == list(expected.values())
    assert (groups.group < groups.node).all()
    assert (np.diff(groups.node.astype(int)) > 0).all()


@given(graphs(), st.lists(st.integers(1, 10), min_size=10, max_size=10))
def test_reducing_keeps_the_energy_of_every_partition_of_the_groups(graph, choice):
    group = [min(i + 1, choice[i]) for i in range(10)]
    group = [group[g - 1] if group[g - 1] == group[group[g - 1] - 1] else g for g in group]
    nodes = np.arange(1, 11, dtype=np.uint64)
    first = np.array([next(i + 1 for i in range(10) if group[i] == g) for g in group], np.uint64)
    moved = first != nodes
    reduced = reduce(table(graph), Groups(nodes[moved], first[moved]))
    cut = {uv: c for uv, c in graph.items() if first[uv[0] - 1] != first[uv[1] - 1]}
    assert int(reduced.cost.sum()) == sum(cut.values())
    assert set(as_dict(reduced)) == {tuple(sorted((int(first[u - 1]), int(first[v - 1])))) for u, v in cut}


@given(graphs())
def test_the_whole_graph_is_solved_by_the_solver(graph):
    edges = table(graph)
    groups, found = solve_table(edges, "kernighan-lin")
    labels = solve(11, pairs(*sorted(graph)), edges.costs(), "kernighan-lin")
    assert found == pytest.approx(energy(pairs(*sorted(graph)), edges.costs(), labels))
    of = groups.of(np.arange(11, dtype=np.uint64))
    assert [labels.tolist().index(label) for label in labels] == of.tolist()


@pytest.mark.parametrize("spread", [1, 1000])
def test_subproblems_do_not_depend_on_how_far_ids_lie_apart(spread):
    rng = np.random.default_rng(0)
    uv = np.unique(np.sort(rng.integers(0, 60, (300, 2)), axis=1), axis=0).astype(np.uint64)
    uv = uv[uv[:, 0] != uv[:, 1]] * np.uint64(spread) + np.uint64(7)
    table = CostTable.from_costs(uv, rng.normal(0, 1, len(uv)))
    groups, energy = solve_table(table, "kernighan-lin")
    near = CostTable.from_costs((uv - np.uint64(7)) // np.uint64(spread), table.costs())
    expected, same = solve_table(near, "kernighan-lin")
    assert energy == same
    assert (groups.node == expected.node * np.uint64(spread) + np.uint64(7)).all()
    assert (groups.group == expected.group * np.uint64(spread) + np.uint64(7)).all()
