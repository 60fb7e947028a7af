import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from vimvol.geometry import Block, Grid
from vimvol.segment import graph
from vimvol.segment.edges import ACROSS, BINS, WITHIN, EdgeTable, merge
from vimvol.segment.graph import edge_table


def brute_force(labels, boundaries, across=True, faces=None):
    """All voxel pairs of a volume, one axis after the other, in integers: values by edge and direction."""
    faces = np.zeros(labels.shape, np.uint8) if faces is None else faces
    pairs = {}
    values = boundaries.astype(np.int64)
    for axis in range(labels.ndim):
        direction = int(axis == 0 and labels.ndim == 3)
        if direction and not across:
            continue
        low, high = np.moveaxis(labels, axis, 0)[:-1], np.moveaxis(labels, axis, 0)[1:]
        value = np.moveaxis(values, axis, 0)[:-1] + np.moveaxis(values, axis, 0)[1:]
        bit = axis + 3 - labels.ndim
        opened = np.moveaxis(faces, axis, 0)
        value = np.where((opened[:-1] >> bit) & (opened[1:] >> (3 + bit)) & 1, 0, value)
        touch = (low != high) & (low > 0) & (high > 0)
        for u, v, x in zip(low[touch], high[touch], value[touch], strict=True):
            pairs.setdefault((int(min(u, v)), int(max(u, v))), ([], []))[direction].append(int(x))
    return {edge: [_statistics(x) for x in both] for edge, both in sorted(pairs.items())}


def _statistics(x):
    bins = np.histogram(x, bins=np.arange(17) * 32)[0].tolist()
    return [len(x), sum(x), sum(value * value for value in x), min(x, default=510), max(x, default=0), *bins]


def as_dict(table):
    """The same of a table."""
    statistics = [table.counts, table.totals, table.squares, table.minima, table.maxima]
    rows = [np.concatenate([np.stack([s[d] for s in statistics]), table.histograms[d]]).T.tolist() for d in (0, 1)]
    return {
        (u, v): [within, across] for u, v, within, across in zip(table.u.tolist(), table.v.tolist(), *rows, strict=True)
    }


def by_blocks(labels, boundaries, cell, faces):
    grid = Grid(labels.shape, cell)
    tables = []
    for index in grid:
        own = grid.block(index)
        window = own.grow((0,) * labels.ndim, (1,) * labels.ndim).clip(labels.shape)
        tables.append(
            edge_table(labels[window.slices], boundaries[window.slices], own.within(window), faces=faces[window.slices])
        )
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


def open_somewhere(data, labels):
    """Draw open faces, anywhere."""
    return data.draw(hnp.arrays(np.uint8, labels.shape, elements=st.integers(0, 63)))


@given(windows(), st.data())
@settings(max_examples=50)
def test_a_table_equals_brute_force(window, data):
    labels, boundaries = window
    table = edge_table(labels, boundaries, Block.whole(labels.shape))
    assert as_dict(table) == brute_force(labels, boundaries)
    faces = open_somewhere(data, labels)
    opened = edge_table(labels, boundaries, Block.whole(labels.shape), faces=faces)
    assert as_dict(opened) == brute_force(labels, boundaries, faces=faces)
    assert list(zip(table.u, table.v, strict=True)) == sorted(zip(table.u, table.v, strict=True))


@given(windows(np.int64), st.data())
@settings(max_examples=50)
def test_any_blocks_in_any_order_give_the_table_of_the_whole(window, data):
    labels, boundaries = window
    cell = tuple(data.draw(st.integers(1, s)) for s in labels.shape)
    faces = open_somewhere(data, labels)
    tables = data.draw(st.permutations(by_blocks(labels, boundaries, cell, faces)))
    whole = edge_table(labels, boundaries, Block.whole(labels.shape), faces=faces)
    assert_equal(merge(tables), whole)
    middle = data.draw(st.integers(0, len(tables)))
    assert_equal(merge([merge(tables[:middle]), merge(tables[middle:])]), whole)


def test_sums_of_millions_of_pairs_are_exact():
    labels = np.ones((2, 1750, 1750), np.uint64)
    labels[1] = 7
    boundaries = np.random.default_rng(0).integers(0, 256, labels.shape, np.uint8)
    table = edge_table(labels, boundaries, Block.whole(labels.shape))
    values = boundaries.astype(np.int64).sum(axis=0)
    assert (table.u.tolist(), table.v.tolist(), table.count.tolist()) == ([1], [7], [values.size])
    assert table.totals[ACROSS] == values.sum()
    assert table.squares[ACROSS] == (values**2).sum()
    assert (table.histograms[ACROSS, :, 0] == np.bincount(values.ravel() // 32, minlength=BINS)).all()
    assert not table.counts[WITHIN]


@given(windows())
@settings(max_examples=30)
def test_slices_can_stay_apart(window):
    labels, boundaries = window
    table = edge_table(labels, boundaries, Block.whole(labels.shape), across=False)
    assert as_dict(table) == brute_force(labels, boundaries, across=False)


def test_a_block_with_more_edges_than_the_first_tables_hold_loses_none():
    labels = np.arange(1, 20 * 60 * 70 + 1, dtype=np.int64).reshape(20, 60, 70)
    table = edge_table(labels, np.full(labels.shape, 9, np.uint8), Block.whole(labels.shape))
    assert len(table) == 19 * 60 * 70 + 20 * 59 * 70 + 20 * 60 * 69
    assert (table.count == 1).all()
    assert (table.totals.sum(axis=0) == 18).all()


@given(windows(), st.data())
@settings(max_examples=30)
def test_a_halved_block_gives_the_same_table(window, data):
    labels, boundaries = window
    faces = open_somewhere(data, labels)
    whole = edge_table(labels, boundaries, Block.whole(labels.shape), faces=faces)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(graph, "_LARGEST_BLOCK", 3)
        assert_equal(edge_table(labels, boundaries, Block.whole(labels.shape), faces=faces), whole)


def test_the_mean_is_a_probability():
    labels = np.array([[1, 2], [1, 2]], np.uint64)
    boundaries = np.array([[255, 255], [0, 51]], np.uint8)
    table = edge_table(labels, boundaries, Block.whole(labels.shape))
    assert table.mean() == pytest.approx([(255 + 255 + 0 + 51) / (4 * 255)])
    assert (table.minima[WITHIN], table.maxima[WITHIN]) == (51, 510)


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
    tables = by_blocks(labels, np.full(labels.shape, 3, np.uint8), (1, 1), np.zeros(labels.shape, np.uint8))
    merged = merge(tables)
    assert merged.uv.tolist() == [[5, 2**33], [2**33, 2**34]]
    assert (merged.count.tolist(), merged.totals[WITHIN].tolist()) == ([2, 1], [12, 6])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda a: edge_table(a, np.zeros((2, 2), np.uint8), Block.whole((2, 3))), "are not one window"),
        (lambda a: edge_table(a, np.zeros((2, 3)), Block.whole((2, 3))), "are not one window"),
        (lambda a: edge_table(a, np.zeros((2, 3), np.uint8), Block((0, 0), (2, 4))), "lies outside a window"),
        (
            lambda a: edge_table(
                a, np.zeros((2, 3), np.uint8), Block.whole((2, 3)), faces=np.zeros((0, 0, 0), np.uint8)
            ),
            "do not fill the window",
        ),
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
