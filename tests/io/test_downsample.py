"""The kernels against a loop over cells."""

import itertools
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from vimvol.io.downsample import mean_downsample, mode_downsample

shapes = st.tuples(*[st.integers(1, 5)] * 3)
factors = st.tuples(*[st.sampled_from([1, 2])] * 3)
few_ids = st.sampled_from([0, 1, 2, 3, 2**53, 2**53 + 1, 2**64 - 1])


def cells(array, factor):
    """Yield the position of every cell and the voxels that there are in it."""
    for index in itertools.product(*(range(-(-s // f)) for s, f in zip(array.shape, factor, strict=True))):
        yield index, array[tuple(slice(i * f, (i + 1) * f) for i, f in zip(index, factor, strict=True))].ravel()


def mode_of(voxels):
    counts = Counter(voxels.tolist())
    most = max(counts.values())
    return min((v for v, n in counts.items() if n == most), key=lambda v: (v == 0, v))


@settings(deadline=None)
@given(hnp.arrays(np.uint64, shapes, elements=few_ids), factors)
def test_mode(labels, factor):
    before = labels.copy()
    result = mode_downsample(labels, factor)
    assert result.dtype == np.uint64
    assert result.shape == tuple(-(-s // f) for s, f in zip(labels.shape, factor, strict=True))
    for index, voxels in cells(labels, factor):
        assert int(result[index]) == mode_of(voxels)
    np.testing.assert_array_equal(labels, before)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "uint32", "int32", "int64"])
def test_mode_of_other_integers(dtype):
    labels = np.random.default_rng(0).integers(0, 3, (5, 7, 9)).astype(dtype)
    result = mode_downsample(labels, (2, 2, 2))
    assert result.dtype == dtype
    assert all(int(result[index]) == mode_of(voxels) for index, voxels in cells(labels, (2, 2, 2)))


def test_mode_keeps_every_channel_and_works_on_views():
    labels = np.random.default_rng(0).integers(0, 4, (2, 5, 7, 9), dtype=np.uint64)
    expected = np.stack([mode_downsample(channel, (1, 2, 2)) for channel in labels])
    np.testing.assert_array_equal(mode_downsample(labels, (1, 2, 2)), expected)
    flipped = labels[0].transpose(2, 1, 0)
    np.testing.assert_array_equal(mode_downsample(flipped, (2, 2, 1)), expected[0].transpose(2, 1, 0))


@settings(deadline=None)
@given(st.data(), st.sampled_from([np.uint8, np.uint16]), shapes, factors)
def test_mean_of_integers(data, dtype, shape, factor):
    array = data.draw(hnp.arrays(dtype, shape))
    result = mean_downsample(array, factor)
    assert result.dtype == dtype
    for index, voxels in cells(array, factor):
        total, count = int(voxels.sum(dtype=np.uint64)), len(voxels)
        assert int(result[index]) == (2 * total + count) // (2 * count)


@settings(deadline=None)
@given(hnp.arrays(np.float32, shapes, elements=st.floats(-1e3, 1e3, width=32)), factors)
def test_mean_of_floats(array, factor):
    result = mean_downsample(array, factor)
    assert result.dtype == np.float32
    for index, voxels in cells(array, factor):
        assert result[index] == pytest.approx(voxels.mean(dtype=np.float64), rel=1e-6, abs=1e-6)


def test_a_constant_stays():
    for value, dtype in ((255, "uint8"), (65535, "uint16"), (0.1, "float32")):
        assert (mean_downsample(np.full((3, 3, 3), value, dtype), (2, 2, 2)) == np.dtype(dtype).type(value)).all()


def test_mean_of_channels():
    array = np.random.default_rng(0).integers(0, 255, (2, 5, 7, 9), dtype=np.uint8)
    expected = np.stack([mean_downsample(channel, (2, 2, 2)) for channel in array])
    np.testing.assert_array_equal(mean_downsample(array, (2, 2, 2)), expected)


def test_blocks_of_even_size_give_the_whole():
    labels = np.random.default_rng(0).integers(0, 9, (9, 13, 17), dtype=np.uint64)
    whole = mode_downsample(labels, (2, 2, 2))
    for z, y, x in itertools.product(range(0, 9, 4), range(0, 13, 4), range(0, 17, 8)):
        part = mode_downsample(labels[z : z + 4, y : y + 4, x : x + 8], (2, 2, 2))
        begin = (z // 2, y // 2, x // 2)
        here = tuple(slice(b, b + s) for b, s in zip(begin, part.shape, strict=True))
        np.testing.assert_array_equal(whole[here], part)


@pytest.mark.parametrize("factor", [(2, 2), (3, 1, 1), (0, 1, 1), (4, 4, 4)])
def test_other_cells_are_refused(factor):
    for kernel in (mean_downsample, mode_downsample):
        with pytest.raises(ValueError, match="no cells"):
            kernel(np.zeros((4, 4, 4), np.uint8), factor)
    with pytest.raises(ValueError, match="no cells"):
        mean_downsample(np.zeros((4, 4), np.uint8), (1, 2, 2))
    with pytest.raises(ValueError, match="are integers"):
        mode_downsample(np.zeros((4, 4, 4)), (2, 2, 2))
