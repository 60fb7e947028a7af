import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from tests.segment.synthetic import boundaries_of, cells, same_partition
from vimvol.config import FragmentsConfig
from vimvol.geometry import Block, Grid
from vimvol.segment.stitch import face_pairs, union
from vimvol.segment.watershed import fragments_tile, seed_mask

CONFIG = FragmentsConfig(seeds="components", threshold=0.5)
FORWARD = (1, 1, 1)


def fragments(boundaries, tiles, dimension="2d"):
    """Global fragment ids of a volume, tile after tile."""
    labels = np.zeros(boundaries.shape, np.uint64)
    n = 0
    for index in tiles:
        tile = tiles.block(index)
        labels[tile.slices], found, _ = fragments_tile(boundaries[tile.slices], tile.within(tile), CONFIG, dimension)
        labels[tile.slices] += np.uint64(n)
        n += found
    return labels, n


def all_pairs(labels, boundaries, tiles, blocks, axes=(1, 2)):
    found = []
    for index in blocks:
        own = blocks.block(index)
        window = own.grow((0, 0, 0), FORWARD).clip(labels.shape)
        cut = window.slices
        found.append(face_pairs(labels[cut], boundaries[cut], window, own, tiles, 0.5, axes))
    return found


def components(boundaries):
    """Connected components of every slice by itself."""
    cross = ndimage.generate_binary_structure(3, 1)
    cross[0] = cross[2] = False
    return ndimage.label(boundaries < 127.5, cross)[0]


@given(
    boundaries=hnp.arrays(
        np.uint8,
        st.tuples(st.integers(1, 2), st.integers(1, 12), st.integers(1, 12)),
        elements=st.sampled_from([0, 127, 128, 255]),
    ),
    data=st.data(),
)
@settings(max_examples=60)
def test_stitched_tiles_are_the_components_of_whole_slices(boundaries, data):
    side = st.integers(1, 12)
    tiles = Grid(boundaries.shape, (1, data.draw(side), data.draw(side)))
    blocks = Grid(boundaries.shape, (data.draw(st.integers(1, 2)), data.draw(side), data.draw(side)))
    labels, n = fragments(boundaries, tiles)
    pairs = np.concatenate(all_pairs(labels, boundaries, tiles, blocks))
    segments = union(n + 1, pairs)[labels]
    seeds = seed_mask(boundaries, 0.5)
    assert same_partition(segments[seeds], components(boundaries)[seeds])
    assert (segments > 0).all()


def test_stitched_tiles_are_the_components_of_a_real_looking_slice():
    boundaries = boundaries_of(cells((3, 150, 170), 60))
    tiles = Grid(boundaries.shape, (1, 64, 64))
    labels, n = fragments(boundaries, tiles)
    pairs = np.concatenate(all_pairs(labels, boundaries, tiles, Grid(boundaries.shape, (2, 96, 100))))
    segments = union(n + 1, pairs)[labels]
    seeds = seed_mask(boundaries, 0.5)
    assert same_partition(segments[seeds], components(boundaries)[seeds])
    assert segments.max() < n


def test_all_axes_can_be_joined():
    boundaries = boundaries_of(cells((20, 40, 44), 12))
    tiles = Grid(boundaries.shape, (8, 16, 20))
    labels, n = fragments(boundaries, tiles, "3d")
    pairs = np.concatenate(all_pairs(labels, boundaries, tiles, Grid(boundaries.shape, (9, 30, 30)), (0, 1, 2)))
    segments = union(n + 1, pairs)[labels]
    seeds = seed_mask(boundaries, 0.5)
    assert same_partition(segments[seeds], ndimage.label(seeds)[0][seeds])


def test_each_face_belongs_to_one_block():
    boundaries = np.zeros((1, 6, 6), np.uint8)
    tiles = Grid(boundaries.shape, (1, 3, 3))
    labels, _ = fragments(boundaries, tiles)
    found = all_pairs(labels, boundaries, tiles, tiles)
    assert [pairs.tolist() for pairs in found] == [[[1, 2], [1, 3]], [[2, 4]], [[3, 4]], []]


def test_a_boundary_on_either_side_of_a_face_keeps_fragments_apart():
    labels = np.array([[[1, 2], [3, 4]]], np.uint64)
    boundaries = np.array([[[0, 255], [0, 0]]], np.uint8)
    whole = Block.whole(labels.shape)
    tiles = Grid(labels.shape, (1, 1, 1))
    assert face_pairs(labels, boundaries, whole, whole, tiles, 0.5).tolist() == [[1, 3], [3, 4]]
    labels[0, 0, 0] = 0
    assert face_pairs(labels, boundaries, whole, whole, tiles, 0.5).tolist() == [[3, 4]]


def test_slices_are_not_joined():
    labels = np.array([[[1]], [[2]]], np.uint64)
    whole = Block.whole(labels.shape)
    pairs = face_pairs(labels, np.zeros(labels.shape, np.uint8), whole, whole, Grid(labels.shape, (1, 1, 1)), 0.5)
    assert pairs.shape == (0, 2)


def test_a_window_without_the_voxels_behind_a_face_is_refused():
    labels = np.ones((1, 4, 4), np.uint64)
    own = Block.whole(labels.shape)
    with pytest.raises(ValueError, match="lacks voxels on a side of the face at 4 of axis 1"):
        face_pairs(labels, np.zeros(labels.shape, np.uint8), own, own, Grid((1, 8, 8), (1, 4, 4)), 0.5)
    with pytest.raises(ValueError, match="do not fill the window"):
        face_pairs(labels, np.zeros((1, 4, 5), np.uint8), own, own, Grid((1, 8, 8), (1, 4, 4)), 0.5)


@given(st.integers(0, 12), st.data())
def test_union_labels_what_pairs_connect(n, data):
    node = st.integers(0, max(n - 1, 0))
    pairs = data.draw(st.lists(st.tuples(node, node), max_size=15)) if n else []
    labels = union(n, np.array(pairs, np.uint64).reshape(-1, 2))
    groups = [{i} for i in range(n)]
    for u, v in pairs:
        joined = groups[u] | groups[v]
        for i in joined:
            groups[i] = joined
    firsts = sorted({min(group) for group in groups})
    assert labels.tolist() == [firsts.index(min(group)) for group in groups]


def test_a_pair_of_unknown_nodes_is_refused():
    with pytest.raises(ValueError, match="names node 3 of 3"):
        union(3, np.array([[0, 3]], np.uint64))
