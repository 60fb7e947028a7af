from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from tests.stages.neurites import neurite_graph, store_graph
from vimvol.engine.cluster import open_cluster
from vimvol.engine.ledger import block_name
from vimvol.engine.run import Execution
from vimvol.errors import InputError
from vimvol.geometry import Block
from vimvol.io.objects import open_objects
from vimvol.io.recent import Recent
from vimvol.io.tables import read_table
from vimvol.report.progress import silent
from vimvol.segment.multicut.division import UNIT, CostTable, merge_costs, solve_table
from vimvol.stages import hierarchy as tables
from vimvol.stages.levels import Decide, LevelReport, climb, levels_reduced

NODES = 4000
TILES = (2, 8, 8)


@pytest.fixture(scope="module")
def graph():
    return neurite_graph(NODES, TILES)


@pytest.fixture(scope="module")
def best(graph, tmp_path_factory):
    """The energy of the whole graph by Kernighan-Lin."""
    _, edges = store_graph(tmp_path_factory.mktemp("best"), *graph, tiles=TILES, cell=1)
    return solve_table(edges, "kernighan-lin")[1]


def climbed(hierarchy, levels=None, capacity=0, workers=0):
    costs = [read_table(hierarchy.source, block_name(block))["cost"] for block in hierarchy.blocks]
    whole = LevelReport(0, sum(map(len, costs)), sum(int(cost.sum()) for cost in costs) * UNIT)
    with open_cluster("local", workers) as pool:
        execution = Execution(pool, silent())
        lowest = hierarchy.lowest(whole.edges, hierarchy.filled([Block.whole(TILES)]))
        return climb(
            hierarchy, whole, lowest, "key", open_objects(f"{hierarchy.folder}/ledger"), capacity, levels, execution
        )


def partition(hierarchy, top):
    """The partition of all nodes, and the energy that the last solve reports."""
    groups, energy = solve_table(merge_costs(hierarchy.own_edges(top)), hierarchy.solver)
    first = np.arange(NODES + 1, dtype=np.uint64)
    first[groups.node] = groups.group
    for level in reversed(range(top)):
        groups = hierarchy.groups(level, range(len(hierarchy.cells(level))))
        first[groups.node] = first[groups.group]
    return first, energy


def cut(edges, first):
    return int(edges.cost[first[edges.u] != first[edges.v]].sum()) * UNIT


@pytest.mark.parametrize("levels", [1, 2, 3])
def test_any_number_of_levels_comes_near_the_global_solution(graph, best, tmp_path, levels):
    hierarchy, edges = store_graph(tmp_path, *graph, tiles=TILES, cell=2 ** (3 - levels))
    reports = climbed(hierarchy, levels)
    assert [report.level for report in reports] == list(range(levels + 1))
    assert reports[0].edges == len(edges)
    assert reports[0].energy == int(edges.cost.sum()) * UNIT
    counts = [report.edges for report in reports]
    assert counts == sorted(counts, reverse=True)
    assert counts[-1] < counts[0] / 5
    energies = [report.energy for report in reports]
    first, energy = partition(hierarchy, levels)
    assert energies == sorted(energies, reverse=True)
    assert energy < energies[-1]
    # the sums of integers lose nothing: what the last level reports is the energy of the fragments' partition
    assert cut(edges, first) == energy
    assert energy <= best + 0.002 * abs(best)


def test_every_edge_of_a_level_is_owned_once(graph, tmp_path):
    hierarchy, edges = store_graph(tmp_path, *graph, tiles=TILES, cell=2)
    climbed(hierarchy, 1)
    collected = list(hierarchy.own_edges(0))
    assert sum(map(len, collected)) == len(edges)
    whole = merge_costs(collected)
    assert (whole.u == edges.u).all()
    assert (whole.v == edges.v).all()
    assert (whole.cost == edges.cost).all()


def test_neither_blocks_nor_workers_change_the_result(graph, tmp_path):
    results = []
    for number, (blocks, workers) in enumerate([(1, 0), (4, 0), (3, 2)]):
        folder = tmp_path / str(number)
        hierarchy, _ = store_graph(folder, *graph, tiles=TILES, cell=2, blocks=blocks)
        climbed(hierarchy, 2, workers=workers)
        results.append(partition(hierarchy, 2)[0])
    assert (results[0] == results[1]).all()
    assert (results[0] == results[2]).all()


def test_levels_are_taken_until_the_rest_fits_or_no_more_cells_are_left(graph, tmp_path):
    hierarchy, edges = store_graph(tmp_path, *graph, tiles=TILES, cell=2)
    assert len(climbed(hierarchy, capacity=len(edges))) == 1
    assert len(climbed(hierarchy, capacity=len(edges) // 3)) == 2
    reports = climbed(hierarchy, capacity=1)
    assert [len(hierarchy.cells(report.level)) for report in reports] == [16, 4, 1]


def test_levels_whose_cells_hold_few_edges_are_left_out(graph, tmp_path):
    """A margin of two edges would be many times such a cell; the first level that pays is that of a larger cell."""
    wide, edges = store_graph(tmp_path / "wide", *graph, tiles=TILES, cell=2)
    climbed(wide, 1)
    hierarchy, _ = store_graph(tmp_path / "small", *graph, tiles=TILES, cell=1, least=len(edges) // 17)
    reports = climbed(hierarchy, 1)
    assert [report.level for report in reports] == [0, 2]
    assert levels_reduced([0, 2]) == range(1, 2)
    assert not (tmp_path / "small/levels/0").exists()
    for what in ("rim", "interior", "groups"):
        for cell in range(len(wide.cells(0))):
            first, second = wide.read(what, 0, cell), hierarchy.read(what, 1, cell)
            assert all((first[key] == second[key]).all() for key in first)
    assert [len(hierarchy.cells(report.level)) for report in climbed(hierarchy, 5)] == [128, 4, 1]
    whole, _ = store_graph(tmp_path / "whole", *graph, tiles=TILES, cell=1, least=len(edges))
    assert len(whole.cells(whole.lowest(len(edges), whole.filled([Block.whole(TILES)])))) == 4, (
        "a single cell would be the whole graph again"
    )


def test_empty_cells_do_not_make_the_others_larger(graph, tmp_path):
    """Nothing is there outside a region of interest or a mask, and subproblems would come to hold all of the graph."""
    hierarchy, _ = store_graph(tmp_path, *graph, tiles=TILES, cell=1, least=100)

    def lowest(edges, *blocks):
        return hierarchy.lowest(edges, hierarchy.filled(blocks))

    assert [lowest(edges, Block.whole(TILES)) for edges in (12_800, 12_799)] == [0, 1]
    inside = Block((0, 2, 2), (2, 4, 4))  # 8 cells, and one of the next level
    assert [lowest(edges, inside) for edges in (800, 799)] == [0, 0]
    assert [lowest(edges, inside, Block((0, 4, 2), (1, 5, 3))) for edges in (900, 899)] == [0, 1]
    assert [lowest(edges, inside, Block((1, 7, 7), (2, 8, 8))) for edges in (900, 899)] == [0, 1]


@pytest.mark.parametrize("now", [0, 1])
def test_another_lowest_level_takes_nothing_of_the_one_before(graph, tmp_path, now):
    """A level that has others below has what was joined there, and the lowest has not, though their cells are equal."""
    small, edges = store_graph(tmp_path / "before", *graph, tiles=TILES, cell=1)
    wide = replace(small, least=len(edges) // 17, recent=Recent())
    hierarchy, before, levels = ((small, wide, 2), (wide, small, 1))[now]
    fresh, _ = store_graph(tmp_path / "fresh", *graph, tiles=TILES, cell=1, least=hierarchy.least)
    first, wanted = climbed(before, 3 - levels), climbed(fresh, levels)
    assert climbed(hierarchy, levels) == wanted
    assert first[-1] != wanted[-1]


def test_a_level_that_was_begun_as_the_lowest_is_reduced_to_again(graph, tmp_path, monkeypatch):
    small, edges = store_graph(tmp_path, *graph, tiles=TILES, cell=1)
    wanted = climbed(small, 2)

    def stop(*_):
        raise InputError("stopped")

    with monkeypatch.context() as patched:
        patched.setattr(Decide, "__call__", stop)
        with pytest.raises(InputError, match="stopped"):
            climbed(replace(small, least=len(edges) // 17, recent=Recent()), 1)
    again = replace(small, recent=Recent())
    assert climbed(again, 2) == wanted
    assert sum(map(len, again.own_edges(1))) == wanted[1].edges


def test_a_task_reads_the_tables_around_it_and_no_others(graph, tmp_path, monkeypatch):
    hierarchy, _ = store_graph(tmp_path, *graph, tiles=TILES, cell=2)
    climbed(hierarchy, 1)
    read = []
    original = tables.read_table
    monkeypatch.setattr(tables, "read_table", lambda url, name: read.append((url, name)) or original(url, name))
    cells = hierarchy.cells(0)
    Decide(replace(hierarchy, recent=Recent()), 0)(cells.block((0, 0, 0)))
    whole = [name for url, name in read if url.endswith("interior")]
    rims = {cells.index(int(name)) for url, name in read if url.endswith("rim")}
    assert whole == ["0"]
    assert rims == {(0, y, x) for y in (0, 1) for x in (0, 1)}


def test_neighbouring_cells_share_what_they_read(graph, tmp_path, monkeypatch):
    hierarchy, _ = store_graph(tmp_path, *graph, tiles=TILES, cell=1)
    read = Counter()
    original = tables.read_table

    def counted(url, name):
        read[url, name] += 1
        return original(url, name)

    monkeypatch.setattr(tables, "read_table", counted)
    climbed(hierarchy, 1)
    assert len([url for url, _ in read if url.endswith("rim")]) == len(hierarchy.cells(0))
    assert set(read.values()) == {1}


def test_an_interrupted_climb_goes_on(graph, tmp_path, monkeypatch):
    reference, _ = store_graph(tmp_path / "a", *graph, tiles=TILES, cell=2)
    climbed(reference, 2)
    hierarchy, _ = store_graph(tmp_path / "b", *graph, tiles=TILES, cell=2)
    calls = []
    original = Decide.__call__

    def stop_in_the_middle(self, block):
        calls.append(block)
        if len(calls) == 10:
            raise KeyboardInterrupt
        return original(self, block)

    monkeypatch.setattr(Decide, "__call__", stop_in_the_middle)
    with pytest.raises(KeyboardInterrupt):
        climbed(hierarchy, 2)
    climbed(hierarchy, 2)
    assert len(calls) == 10 + 16 - 9 + 4
    assert (partition(hierarchy, 2)[0] == partition(reference, 2)[0]).all()


def test_connected_components_are_exact_where_nothing_repels(graph, tmp_path):
    tile, uv, costs = graph
    attracts = costs > 60
    hierarchy, edges = store_graph(
        tmp_path, tile, uv[attracts], costs[attracts], tiles=TILES, cell=2, solver="components"
    )
    climbed(hierarchy, 2)
    first = np.arange(NODES + 1, dtype=np.uint64)
    groups = solve_table(edges, "components")[0]
    first[groups.node] = groups.group
    assert (partition(hierarchy, 2)[0] == first).all()


def test_places_know_the_cell_of_a_fragment(graph, tmp_path):
    hierarchy, _ = store_graph(tmp_path, *graph, tiles=TILES, cell=2)
    ids = np.arange(1, NODES + 1, dtype=np.uint64)
    cells = hierarchy.places(0, Block.whole(TILES)).cells_of(ids)
    tile = np.sort(np.ravel_multi_index(graph[0].T, TILES))
    z, y, x = np.unravel_index(tile, TILES)
    assert (cells == y // 2 * 4 + x // 2 + z // 2).all()
    # a slab of tiles in C order is known, what lies outside is not
    known = hierarchy.places(0, Block((1, 4, 0), (2, 6, 8))).cells_of(ids)
    assert (known >= 0).tolist() == ((z == 1) & (y >= 4) & (y < 6)).tolist()
    assert (known[known >= 0] == cells[known >= 0]).all()


def test_tables_without_edges_are_no_obstacle(tmp_path):
    tile = np.array([[0, 0, 0], [1, 7, 7]])
    hierarchy, _ = store_graph(tmp_path, tile, np.empty((0, 2), int), np.empty(0), tiles=TILES, cell=2)
    assert [report.edges for report in climbed(hierarchy, 2)] == [0, 0, 0]
    assert len(CostTable.from_columns(hierarchy.read("rim", 2, 0))) == 0
