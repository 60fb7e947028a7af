import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from vimvol.config import FragmentsConfig
from vimvol.geometry import Block, Grid
from vimvol.segment.faces import BACKWARD, open_faces, open_faces_of, pack
from vimvol.segment.graph import edge_table
from vimvol.segment.numbering import number_after
from vimvol.segment.relabel import consecutive
from vimvol.segment.stitch import union
from vimvol.segment.watershed import fragments_2d, fragments_3d, fragments_tile

CONFIG = FragmentsConfig(min_size=5)


@pytest.fixture(scope="module")
def noise():
    """Boundaries that are high nearly everywhere, as inside a thick membrane."""
    values = ndimage.gaussian_filter(np.random.default_rng(3).normal(size=(12, 30, 34)), (1, 2, 2))
    return np.clip(200 + 120 * values / values.std(), 0, 255).astype(np.uint8)


@given(hnp.arrays(np.uint32, (1, 2, 3), elements=st.integers(0, 2**26 - 1)), hnp.arrays(np.uint8, (1, 2, 3)))
def test_fragments_and_faces_survive_being_stored(labels, opened):
    opened &= 63
    stored = pack(labels, opened)
    assert stored.dtype == np.uint32
    numbers = np.zeros(labels.shape, np.int64)
    number_after(stored, 0, numbers)
    assert (numbers == labels).all()
    assert (open_faces_of(stored) == opened).all()


def test_more_fragments_than_numbers_are_refused():
    with pytest.raises(ValueError, match="make tiles smaller"):
        pack(np.array([1 << 26], np.uint32), np.zeros(1, np.uint8))


@given(
    hnp.arrays(np.uint32, hnp.array_shapes(min_dims=2, max_dims=3, max_side=4), elements=st.integers(1, 2)), st.data()
)
@settings(max_examples=50)
def test_a_face_is_open_where_the_fragment_is_on_both_sides(labels, data):
    begin = tuple(data.draw(st.integers(0, s - 1)) for s in labels.shape)
    inner = Block(begin, tuple(data.draw(st.integers(b + 1, s)) for b, s in zip(begin, labels.shape, strict=True)))
    found = open_faces(labels, inner)
    for voxel in itertools.product(*map(range, inner.shape)):
        here = tuple(np.add(inner.begin, voxel))
        expected = 0
        for axis, (step, shift) in itertools.product(range(labels.ndim), ((1, 0), (-1, BACKWARD))):
            there = tuple(h + step * (a == axis) for a, h in enumerate(here))
            outside = not inner.begin[axis] <= there[axis] < inner.end[axis]
            if outside and 0 <= there[axis] < labels.shape[axis] and labels[here] == labels[there]:
                expected |= 1 << (shift + axis + 3 - labels.ndim)
        assert found[voxel] == expected


@pytest.mark.parametrize("dimension", ["2d", "3d"])
@pytest.mark.parametrize("cell", [(4, 10, 12), (1, 9, 34), (2, 2, 40), (5, 30, 1)])
def test_joined_through_open_faces_the_tiles_are_the_whole(noise, cell, dimension):
    """With a halo that reaches everywhere, both tiles see the same, and every artificial cut is mended."""
    whole = Block.whole(noise.shape)
    labels, opened, count = np.zeros(noise.shape, np.int64), np.zeros(noise.shape, np.uint8), 0
    grid = Grid(noise.shape, cell)
    for index in grid:
        tile = grid.block(index)
        part, n, sides = fragments_tile(noise, tile, CONFIG, dimension)
        labels[tile.slices], opened[tile.slices] = part + count, sides
        count += n
    table = edge_table(labels, np.full(noise.shape, 255, np.uint8), whole, faces=opened)
    joined = union(count + 1, table.uv[table.minima.min(axis=0) == 0])[labels]
    if dimension == "3d":
        expected = fragments_3d(noise, CONFIG).astype(np.uint64)
    else:
        slices = [fragments_2d(plane, CONFIG).astype(np.uint64) for plane in noise]
        expected = np.stack([plane + 1000 * z for z, plane in enumerate(slices)])
    assert count > len(np.unique(expected)), "no tile cut anything"
    assert (consecutive(joined.ravel()) == consecutive(expected.ravel())).all()
