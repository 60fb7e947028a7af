import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.segment.synthetic import boundaries_of, cells
from tests.segment.test_graph import by_blocks
from vimvol.geometry import Block, Grid
from vimvol.segment.edges import EdgeTable, merge
from vimvol.segment.features import QUANTILES, edge_features
from vimvol.segment.graph import edge_table
from vimvol.segment.nodes import merge_nodes, node_table

SHAPE = (7, 18, 16)
LABELS = cells(SHAPE, 25).astype(np.int64)
BOUNDARIES = boundaries_of(LABELS, noise=0.2)


def nodes_of(labels, cell):
    grid = Grid(labels.shape, cell)
    ids = np.arange(1, int(labels.max()) + 1, dtype=np.uint64)
    return merge_nodes(node_table(labels, grid.block(i), ids, (0, 0, 0), labels.shape) for i in grid)


@pytest.fixture(scope="module")
def whole():
    edges = edge_table(LABELS, BOUNDARIES, Block.whole(SHAPE))
    return edges, nodes_of(LABELS, SHAPE)


def column(features, name):
    return features.values[:, features.names.index(name)]


@given(st.tuples(*(st.integers(1, s) for s in SHAPE)), st.integers(0, 2**32 - 1))
@settings(max_examples=25)
def test_blocks_give_the_features_of_the_whole_bit_for_bit(cell, seed):
    tables = by_blocks(LABELS, BOUNDARIES, cell, np.zeros(SHAPE, np.uint8))
    tables = [tables[i] for i in np.random.default_rng(seed).permutation(len(tables))]
    expected = edge_features(edge_table(LABELS, BOUNDARIES, Block.whole(SHAPE)), nodes_of(LABELS, SHAPE))
    found = edge_features(merge(tables), nodes_of(LABELS, cell))
    assert found.names == expected.names
    assert found.values.tobytes() == expected.values.tobytes()


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=25)
def test_a_part_of_the_graph_alone_gives_the_same_features(seed):
    edges, nodes = edge_table(LABELS, BOUNDARIES, Block.whole(SHAPE)), nodes_of(LABELS, SHAPE)
    rng = np.random.default_rng(seed)
    mask = rng.random(len(edges)) < rng.random()
    part = EdgeTable.from_columns({name: values[..., mask] for name, values in edges.columns().items()})
    seen = np.isin(nodes.fragment, part.uv)
    few = type(nodes).from_columns({name: values[..., seen] for name, values in nodes.columns().items()})
    assert edge_features(part, few).values.tobytes() == edge_features(edges, nodes).values[mask].tobytes()


def test_features_are_those_of_the_voxel_pairs(whole):
    edges, nodes = whole
    features = edge_features(edges, nodes)
    pairs = {direction: {} for direction in ("within", "across", "all")}
    for axis in range(3):
        low, high = np.moveaxis(LABELS, axis, 0)[:-1], np.moveaxis(LABELS, axis, 0)[1:]
        both = np.moveaxis(BOUNDARIES.astype(int), axis, 0)
        touch = low != high
        for u, v, x in zip(low[touch], high[touch], (both[:-1] + both[1:])[touch], strict=True):
            for direction in ("all", "within" if axis else "across"):
                pairs[direction].setdefault((min(u, v), max(u, v)), []).append(x / 510)
    sizes = np.bincount(LABELS.ravel())
    for direction, found in pairs.items():
        for i, (u, v) in enumerate(edges.uv.astype(int)):
            values = found.get((u, v))
            names = ("mean", "deviation", "lowest", "highest")
            have = [column(features, f"{direction}_{name}")[i] for name in names]
            if values is None:
                assert np.isnan(have).all()
                continue
            assert have == pytest.approx([np.mean(values), np.std(values), min(values), max(values)], abs=1e-9)
            for q in QUANTILES:
                near = np.quantile(values, q, method="inverted_cdf")
                assert abs(column(features, f"{direction}_quantile_{q * 100:.0f}")[i] - near) <= 32 / 510
            across = len(pairs["across"].get((u, v), []))
            assert column(features, "iou")[i] == across / (sizes[u] + sizes[v] - across)
            assert column(features, "overlap")[i] == across / min(sizes[u], sizes[v])


def test_equal_sections_overlap_wholly():
    labels = np.ones((2, 4, 5), np.int64)
    labels[1] = 2
    edges = edge_table(labels, np.zeros(labels.shape, np.uint8), Block.whole(labels.shape))
    features = edge_features(edges, nodes_of(labels, labels.shape))
    assert column(features, "overlap").tolist() == [1.0]
    assert column(features, "iou").tolist() == [20 / 20]
    assert column(features, "across_share").tolist() == [1.0]


def test_a_fragment_that_is_missing_is_told(whole):
    edges, nodes = whole
    few = type(nodes).from_columns({name: values[..., 1:] for name, values in nodes.columns().items()})
    with pytest.raises(ValueError, match="lacks"):
        edge_features(edges, few)
