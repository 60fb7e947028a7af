import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from vimvol.geometry import Block, Grid
from vimvol.segment import graph
from vimvol.segment.graph import EdgeTable, edge_table, merge


def brute_force(labels, boundaries):
    """All voxel pairs of a volume, one axis after the other, in integers."""
    pairs = {}
    values = boundaries.astype(np.int64)
    for axis in range(labels.ndim):
        low, high = np.moveaxis(labels, axis, 0)[:-1], np.moveaxis(labels, axis, 0)[1:]
        value = np.moveaxis(values, axis, 0)[:-1] + np.moveaxis(values, axis, 0)[1:]
        touch = (low != high) & (low > 0) & (high > 0)
        for u, v, x in zip(low[touch], high[touch], value[touch], strict=True):
            pairs.setdefault((int(min(u, v)), int(max(u, v))), []).append(int(x))
    return {edge: (len(x), sum(x), min(x), max(x)) for edge, x in sorted(pairs.items())}


def as_dict(table):
    columns = [column.tolist() for column in table.columns().values()]
    return {(u, v): rest for u, v, *rest in zip(*columns, strict=True)} | {}


def by_blocks(labels, boundaries, cell):
    grid = Grid(labels.shape, cell)
    tables = []
    for index in grid:
        own = grid.block(index)
        window = own.grow((0,) * labels.ndim, (1,) * labels.ndim).clip(labels.shape)
        tables.append(edge_table(labels[window.slices], boundaries[window.slices], own.within(window)))
    return tables


def assert_equal(a, b):
    for name, column in a.columns().items():
        assert column.dtype == b.columns()[name].dtype
        assert (column == b.columns()[name]).all(), name


@st.composite
def windows(draw, dtype=np.uint64):
    shape = draw(hnp.array_shapes(min_dims=2, max_dims=3, min_side=1, max_side=7))
    ids = draw(st.lists(st.integers(1, 2**40), min_size=1, max_size=6, unique=True))
    labels = draw(hnp.arrays(dtype, shape, elements=st.sampled_from([0, *ids])))
    return labels, draw(hnp.arrays(np.uint8, shape))


@given(windows())
@settings(max_examples=50)
def test_a_table_equals_brute_force(window):
    labels, boundaries = window
    table = edge_table(labels, boundaries, Block.whole(labels.shape))
    assert as_dict(table) == {edge: list(values) for edge, values in brute_force(labels, boundaries).items()}
    assert list(zip(table.u, table.v, strict=True)) == sorted(zip(table.u, table.v, strict=True))


@given(windows(np.int64), st.data())
@settings(max_examples=50)
def test_any_blocks_in_any_order_give_the_table_of_the_whole(window, data):
    labels, boundaries = window
    cell = tuple(data.draw(st.integers(1, s)) for s in labels.shape)
    tables = data.draw(st.permutations(by_blocks(labels, boundaries, cell)))
    whole = edge_table(labels, boundaries, Block.whole(labels.shape))
    assert_equal(merge(tables), whole)
    middle = data.draw(st.integers(0, len(tables)))
    assert_equal(merge([merge(tables[:middle]), merge(tables[middle:])]), whole)


def test_sums_of_millions_of_pairs_are_exact():
    # above the number of pairs up to which the library's mean gives an exact sum, so the block is halved
    side = 1750
    assert side**2 > graph._EXACT_PAIRS
    labels = np.ones((2, side, side), np.uint64)
    labels[1] = 7
    boundaries = np.random.default_rng(0).integers(0, 256, labels.shape, np.uint8)
    table = edge_table(labels, boundaries, Block.whole(labels.shape))
    values = boundaries.astype(np.int64).sum(axis=0)
    assert as_dict(table) == {(1, 7): [side**2, values.sum(), values.min(), values.max()]}


@pytest.mark.parametrize("high", [0, 254, 255])
def test_just_below_that_number_they_are_exact_without_halving(high):
    labels = np.ones((2, 1700, 1700), np.uint64)
    labels[1] = 2
    boundaries = np.full(labels.shape, high, np.uint8)
    boundaries[:, ::3, ::5] = 255
    boundaries[1, :, ::7] = 1
    table = edge_table(labels, boundaries, Block.whole(labels.shape))
    assert table.count[0] <= graph._EXACT_PAIRS
    assert table.total[0] == boundaries.astype(np.int64).sum()


@given(windows())
@settings(max_examples=30)
def test_a_halved_block_gives_the_same_table(window):
    labels, boundaries = window
    whole = edge_table(labels, boundaries, Block.whole(labels.shape))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(graph, "_EXACT_PAIRS", 3)  # as many as one voxel can have with a neighbour
        assert_equal(edge_table(labels, boundaries, Block.whole(labels.shape)), whole)


def test_the_mean_is_a_probability():
    labels = np.array([[1, 2], [1, 2]], np.uint64)
    boundaries = np.array([[255, 255], [0, 51]], np.uint8)
    table = edge_table(labels, boundaries, Block.whole(labels.shape))
    assert table.mean() == pytest.approx([(255 + 255 + 0 + 51) / (4 * 255)])
    assert (table.minimum, table.maximum) == (51, 510)


def test_a_stored_table_comes_back():
    labels = np.arange(24, dtype=np.uint64).reshape(2, 3, 4)
    table = edge_table(labels, np.zeros(labels.shape, np.uint8), Block.whole(labels.shape))
    assert_equal(EdgeTable.from_columns(table.columns()), table)
    assert (table.uv == np.stack([table.u, table.v], axis=1)).all()


def test_no_edges_are_an_empty_table():
    labels = np.zeros((3, 4, 5), np.uint64)
    empty = edge_table(labels, np.zeros(labels.shape, np.uint8), Block.whole(labels.shape))
    assert len(empty) == len(merge([])) == len(merge([empty, empty])) == 0
    assert empty.mean().shape == (0,)
    assert_equal(empty, EdgeTable.empty())
    assert len(edge_table(labels, np.zeros(labels.shape, np.uint8), Block((1, 1, 1), (1, 4, 5)))) == 0


def test_ids_beyond_32_bits_are_sorted_and_merged():
    labels = np.array([[2**33, 5, 2**33, 2**34]], np.uint64)
    tables = by_blocks(labels, np.full(labels.shape, 3, np.uint8), (1, 1))
    assert as_dict(merge(tables)) == {(5, 2**33): [2, 12, 6, 6], (2**33, 2**34): [1, 6, 6, 6]}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda a: edge_table(a, np.zeros((2, 2), np.uint8), Block.whole((2, 3))), "are not one window"),
        (lambda a: edge_table(a, np.zeros((2, 3)), Block.whole((2, 3))), "are not one window"),
        (lambda a: edge_table(a, np.zeros((2, 3), np.uint8), Block((0, 0), (2, 4))), "lies outside a window"),
        (lambda a: EdgeTable.from_columns({"u": a}), "has no column 'v'"),
        (
            lambda a: EdgeTable.from_columns(EdgeTable.empty().columns() | {"v": np.ones(1, np.uint64)}),
            "different lengths",
        ),
    ],
)
def test_what_does_not_fit_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call(np.zeros((2, 3), np.uint64))
