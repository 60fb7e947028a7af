import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from vimvol.segment.pieces import label_maxima, label_pieces

shapes = hnp.array_shapes(min_dims=2, max_dims=3, max_side=10)


@given(hnp.arrays(np.float32, shapes, elements=st.sampled_from([0.0, 0.5, 1.0, 2.0])))
def test_maxima_are_numbered_in_the_order_of_their_first_voxels(values):
    maxima = (values == ndimage.maximum_filter(values, 3)) & (values > 0)
    expected, _ = ndimage.label(maxima, np.ones((3,) * values.ndim))
    found = label_maxima(values)
    assert found.dtype == np.uint32
    assert (found == expected).all()


@given(hnp.arrays(np.uint32, shapes, elements=st.integers(0, 3)))
def test_pieces_are_numbered_in_the_order_of_their_first_voxels(labels):
    found, n = label_pieces(labels)
    first = {}
    for label in range(1, 4):
        pieces, count = ndimage.label(labels == label)
        first |= {np.flatnonzero(pieces == i + 1)[0]: pieces == i + 1 for i in range(count)}
    expected = np.zeros(labels.shape, np.uint32)
    for number, voxel in enumerate(sorted(first), start=1):
        expected[first[voxel]] = number
    assert n == len(first)
    assert found.dtype == np.uint32
    assert (found == expected).all()


def test_a_piece_may_wind_through_a_volume():
    # a comb along x whose teeth are joined only at their far ends, so that numbers meet late
    labels = np.zeros((7, 9, 31), np.uint32)
    labels[::2, :, ::2] = 5
    labels[::2, -1] = 5
    labels[:, -1, -1] = 5
    found, n = label_pieces(labels)
    assert n == 1
    assert ((found == 1) == (labels == 5)).all()
