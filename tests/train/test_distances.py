import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage
from skimage import measure, segmentation

from vimvol.train.distances import object_distances
from vimvol.train.targets import TARGETS


def by_object(labels: np.ndarray, min_size: int) -> np.ndarray:
    """The definition of torch-em's PerObjectDistanceTransform, one object after the other.

    There, an object without an inside whose centroid lies outside of it is measured from a corner of its bounding box.
    """
    parts = measure.label(labels, background=0)
    for part in np.unique(parts):
        if (parts == part).sum() < min_size:
            parts[parts == part] = 0
    rim = segmentation.find_boundaries(parts, mode="inner")
    result = np.ones((3, *parts.shape), np.float32)
    result[0] = parts > 0
    for part in np.unique(parts[parts > 0]):
        inside = parts == part
        box = ndimage.find_objects(inside.astype(int))[0]
        if rim[box].any():
            depth = ndimage.distance_transform_edt(~rim[box]) * inside[box]
        else:
            depth = np.zeros(inside[box].shape)
        centre = np.round(np.argwhere(inside).mean(0)).astype(int) - [side.start for side in box]
        if not inside[box][tuple(centre)]:
            centre = np.unravel_index(np.argmax(np.where(inside[box], depth, -1)), depth.shape)
        rows, columns = np.indices(depth.shape)
        for channel, values in (
            (1, np.hypot(rows - centre[0], columns - centre[1])),
            (2, depth.max() - depth),
        ):
            values = values * inside[box]
            result[channel][box][inside[box]] = (values / (values.max() + 1e-7))[inside[box]]
    return result


blobs = hnp.arrays(np.int32, (9, 11), elements=st.integers(0, 2)).map(lambda a: np.kron(a, np.ones((3, 2), int)))


@given(blobs, st.sampled_from([0, 1, 7, 25]))
@example(np.kron(np.fliplr(np.eye(9, 11, dtype=int)), np.ones((3, 2), int)), 0)
def test_distances_are_those_of_every_object_by_itself(labels, min_size):
    found = np.stack(object_distances(labels, min_size))
    np.testing.assert_allclose(found, by_object(labels, min_size), atol=1e-6)


def test_a_disc():
    rows, columns = np.indices((41, 41)) - 20
    disc = np.hypot(rows, columns) <= 15
    foreground, centre, boundary = object_distances(disc)
    assert (foreground == disc).all()
    assert centre[20, 20] == boundary[20, 20] == 0
    assert centre[disc].max() == boundary[disc].max() == pytest.approx(1)
    assert boundary[20, 35] == pytest.approx(1)
    assert centre[20, 30] == pytest.approx(10 / 15, abs=0.02)
    assert (centre[~disc] == 1).all()
    assert (boundary[~disc] == 1).all()


def test_the_centre_of_a_ring_lies_in_the_ring():
    rows, columns = np.indices((41, 41)) - 20
    radius = np.hypot(rows, columns)
    ring = (radius <= 18) & (radius >= 8)
    _, centre, _ = object_distances(ring)
    place = np.unravel_index(centre.argmin(), centre.shape)
    assert ring[place]
    assert abs(radius[place] - 13) < 2


@pytest.mark.parametrize("value", [0, 7])
def test_nothing_and_one_object_without_boundary(value):
    foreground, centre, boundary = object_distances(np.full((6, 7), value))
    assert foreground.all() == bool(value)
    assert np.isfinite(centre).all()
    assert (boundary == (0 if value else 1)).all()


def test_channels_and_what_counts():
    labels = np.zeros((20, 20), int)
    labels[2:12, 2:10] = 1
    labels[2:12, 10:18] = 2
    target, weight = TARGETS["distances"].draw(labels, 2)
    assert target.shape == weight.shape == (3, 20, 20)
    assert target.dtype == weight.dtype == np.float32
    assert (target[0] == (labels > 0)).all()
    assert weight[0].all()
    assert (weight[1:] == (labels > 0)).all()
    target, weight = TARGETS["foreground-boundary"].draw(labels, 2)
    assert target.shape == weight.shape == (2, 20, 20)
    assert (target[0] == (labels > 0)).all()
    assert target[1, 5, 9] == target[1, 5, 10] == target[1, 2, 5] == target[1, 1, 5] == 1
    assert target[1, 6, 5] == 0
    assert weight.all()


def test_every_target_draws_one_channel_a_class():
    labels = np.kron(np.arange(9).reshape(3, 3), np.ones((10, 10), int))
    for name, target in TARGETS.items():
        drawn, weight = target.draw(labels, 2)
        assert drawn.shape == weight.shape == (len(target.classes), 30, 30), name
        assert 0 <= drawn.min() <= drawn.max() <= 1
