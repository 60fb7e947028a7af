import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from vimvol.segment.distance import distances

masks = hnp.arrays(np.bool_, hnp.array_shapes(min_dims=2, max_dims=3, max_side=12), elements=st.sampled_from([1, 1, 0]))


@given(masks)
def test_distances_are_exact(inside):
    inside.flat[inside.size // 2] = False
    expected = ndimage.distance_transform_edt(inside).astype(np.float32)
    found = distances(inside, (1.0,) * inside.ndim)
    assert found.dtype == np.float32
    assert (found == expected).all()


@pytest.mark.parametrize("shape", [(200, 150), (3, 180, 200), (130, 3, 40)])
def test_long_distances_are_exact_too(shape):
    inside = np.ones(shape, bool)
    inside[(0,) * len(shape)] = False
    found = distances(inside, (1.0,) * len(shape))
    assert found.max() > 128
    assert (found == ndimage.distance_transform_edt(inside).astype(np.float32)).all()


def test_voxels_may_be_longer_along_an_axis():
    inside = np.random.default_rng(0).random((9, 20, 30)) < 0.97
    expected = ndimage.distance_transform_edt(inside, sampling=(2.5, 1, 1))
    np.testing.assert_allclose(distances(inside, (2.5, 1.0, 1.0)), expected, rtol=1e-6)


def test_a_part_of_an_array_may_be_given():
    whole = np.random.default_rng(0).random((20, 30, 40)) < 0.9
    part = whole[2:18, ::2, 5:]
    assert (distances(part, (1, 1, 1)) == distances(part.copy(), (1, 1, 1))).all()
