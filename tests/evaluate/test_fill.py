import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from vimvol.evaluate.fill import fill_background, fill_block
from vimvol.geometry import Block


def brute(seg):
    """Each voxel of label 0 against every labelled voxel; the first of the nearest."""
    filled = seg.copy()
    places = np.argwhere(seg > 0)
    if len(places):
        for voxel in np.argwhere(seg == 0):
            distance = ((places - voxel) ** 2).sum(axis=1)
            filled[tuple(voxel)] = seg[tuple(places[distance.argmin()])]
    return filled


@st.composite
def volumes(draw):
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    shape = tuple(rng.integers(1, 9, 3))
    return rng.integers(1, 6, shape) * (rng.random(shape) < rng.random() ** 2)


@given(volumes())
@settings(max_examples=60, deadline=None)
def test_background_takes_the_nearest_label_and_the_first_of_equally_near_ones(seg):
    np.testing.assert_array_equal(fill_background(seg), brute(seg))


@given(volumes(), st.data())
@settings(max_examples=60, deadline=None)
def test_a_block_is_filled_as_the_volume_is(seg, data):
    ends = [sorted(data.draw(st.tuples(st.integers(0, s), st.integers(0, s)))) for s in seg.shape]
    block = Block(tuple(e[0] for e in ends), tuple(e[1] for e in ends))
    read = []

    def window(box):
        read.append(box)
        return seg[box.slices]

    np.testing.assert_array_equal(fill_block(window, block, seg.shape), brute(seg)[block.slices])
    assert all(box.contains(block) for box in read)


def test_only_as_much_is_read_as_decides():
    seg = np.ones((1, 200, 200), np.uint64)
    seg[0, 100, 100] = 0
    read = []
    fill_block(lambda box: read.append(box) or seg[box.slices], Block((0, 90, 90), (1, 110, 110)), seg.shape)
    assert max(box.size for box in read) < 1000


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.uint64])
def test_dtype_and_large_labels_are_kept(dtype):
    large = np.iinfo(dtype).max
    seg = np.array([[0, large, 0]], dtype)
    filled = fill_background(seg)
    assert filled.dtype == dtype
    assert (filled == large).all()
    assert (fill_background(np.zeros((2, 2, 2), dtype)) == 0).all()


def test_distances_are_those_of_scipy():
    rng = np.random.default_rng(0)
    seg = rng.integers(1, 1000, (6, 40, 50)) * (rng.random((6, 40, 50)) < 0.01)
    distance, nearest = ndimage.distance_transform_edt(seg == 0, return_indices=True)
    different = fill_background(seg) != seg[tuple(nearest)]
    assert distance[different].size == 0 or different.mean() < 0.1  # only where two are equally near
