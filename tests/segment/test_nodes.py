import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from vimvol.geometry import Block, Grid
from vimvol.segment.nodes import NodeTable, merge_nodes, node_table


def brute_force(labels, origin, shape):
    found = {}
    for i in range(1, int(labels.max(initial=0)) + 1):
        z, y, x = points = np.argwhere(labels == i).T + np.array(origin, np.int64)[:, None]
        if points.size:
            products = [z * z, y * y, x * x, z * y, z * x, y * x]
            within, across = 0, 0
            here = {tuple(p) for p in np.argwhere(labels == i).tolist()}
            for z0, y0, x0 in here:
                within += sum((z0, y0 + d, x0) not in here for d in (-1, 1))
                within += sum((z0, y0, x0 + d) not in here for d in (-1, 1))
                across += sum((z0 + d, y0, x0) not in here for d in (-1, 1))
            border = bool(((points == 0) | (points == np.array(shape)[:, None] - 1)).any())
            found[i] = [z.size, points.sum(axis=1).tolist(), [int(p.sum()) for p in products], [within, across], border]
    return found


def as_dict(table):
    columns = (table.voxels, table.first.T, table.second.T, table.surface.T, table.border)
    rows = zip(*(column.tolist() for column in columns), strict=True)
    return dict(zip(table.fragment.tolist(), map(list, rows), strict=True))


@st.composite
def volumes(draw):
    shape = draw(hnp.array_shapes(min_dims=3, max_dims=3, min_side=1, max_side=8))
    return draw(hnp.arrays(np.int64, shape, elements=st.integers(0, 5)))


@given(volumes(), st.data())
@settings(max_examples=50)
def test_any_blocks_give_the_sums_of_the_whole(labels, data):
    ids = np.arange(1, 6, dtype=np.uint64)
    grid = Grid(labels.shape, tuple(data.draw(st.integers(1, s)) for s in labels.shape))
    tables = []
    for index in grid:
        own = grid.block(index)
        window = own.grow((0, 0, 0), (1, 1, 1)).clip(labels.shape)
        tables.append(node_table(labels[window.slices], own.within(window), ids, window.begin, labels.shape))
    merged = merge_nodes(data.draw(st.permutations(tables)))
    assert as_dict(merged) == brute_force(labels, (0, 0, 0), labels.shape)
    for name, column in NodeTable.from_columns(merged.columns()).columns().items():
        assert (column == merged.columns()[name]).all()


def test_shapes_are_exact_far_from_the_origin():
    # coordinates whose squares sum to more than 64 bits hold
    labels = np.ones((4, 30, 50), np.int64)
    labels[:, 15:, :20] = 0
    origin = (2**31, 2**30, 2**31)
    near = node_table(labels, Block.whole(labels.shape), np.array([9], np.uint64), (0, 0, 0), labels.shape)
    far = node_table(labels, Block.whole(labels.shape), np.array([9], np.uint64), origin, (2**32,) * 3)
    np.testing.assert_array_equal(near.covariance(), far.covariance())
    points = np.argwhere(labels == 1)
    np.testing.assert_allclose(far.covariance()[0], np.cov(points.T, bias=True))
    np.testing.assert_allclose(far.centroid()[:, 0], points.mean(axis=0) + origin)
    assert far.border.tolist() == [False]


def test_nothing_is_an_empty_table():
    empty = node_table(
        np.zeros((2, 3, 4), np.int64), Block.whole((2, 3, 4)), np.empty(0, np.uint64), (0, 0, 0), (2, 3, 4)
    )
    assert len(empty) == len(merge_nodes([])) == len(merge_nodes([empty, empty])) == 0
    assert empty.covariance().shape == (0, 3, 3)


def test_fragments_are_found_by_id():
    labels = np.array([[[1, 2, 2, 3]]], np.int64)
    table = node_table(labels, Block.whole(labels.shape), np.array([4, 7, 9], np.uint64), (0, 0, 0), labels.shape)
    assert table.voxels[table.find(np.array([9, 7, 4, 7], np.uint64))].tolist() == [1, 2, 1, 2]
    for missing in (1, 8, 10):
        with pytest.raises(ValueError, match="lacks"):
            table.find(np.array([7, missing], np.uint64))
