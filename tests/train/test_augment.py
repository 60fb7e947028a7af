import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vimvol.config import AugmentConfig
from vimvol.train.augment import JUMP, crop_positions, resample

OFF = AugmentConfig(**dict.fromkeys(AugmentConfig.model_fields, 0))


def picture(height: int = 40, width: int = 50) -> np.ndarray:
    return np.arange(height * width, dtype=np.float32).reshape(height, width)


@given(st.integers(0, 2**32), st.integers(4, 30), st.integers(4, 30))
@settings(max_examples=50, deadline=None)
def test_without_augmentation_a_crop_is_a_window(seed, height, width):
    section = picture()
    crop = resample(section, crop_positions((40, 50), (height, width), OFF, np.random.default_rng(seed)), order=1)
    y, x = divmod(round(float(crop[0, 0])), 50)
    np.testing.assert_allclose(crop, section[y : y + height, x : x + width], atol=0.01)


@given(st.integers(0, 2**32))
@settings(max_examples=50, deadline=None)
def test_flips_and_turns_take_whole_voxels(seed):
    section = picture()
    config = OFF.model_copy(update={"flip": True})
    positions = crop_positions((40, 50), (16, 24), config, np.random.default_rng(seed))
    assert positions.shape == (2, 16, 24)
    torch.testing.assert_close(positions, positions.round(), atol=1e-4, rtol=0)
    assert positions.min() >= 0
    assert positions[0].max() <= 39
    assert positions[1].max() <= 49
    crop = resample(section, positions, order=0)
    assert len(np.unique(crop)) == crop.size
    np.testing.assert_allclose(resample(section, positions, order=1), crop, atol=0.01)


def test_all_eight_flips_and_turns_occur():
    config = OFF.model_copy(update={"flip": True})
    seen = set()
    for seed in range(100):
        crop = resample(picture(8, 8), crop_positions((8, 8), (8, 8), config, np.random.default_rng(seed)), order=0)
        seen.add(crop.tobytes())
    assert len(seen) == 8


def test_image_and_labels_move_together_under_zoom_and_elastic():
    labels = np.kron(np.arange(1, 26).reshape(5, 5), np.ones((20, 20), int))
    config = AugmentConfig(scale=0.4, elastic=1.0)
    for seed in range(10):
        positions = crop_positions((100, 100), (64, 64), config, np.random.default_rng(seed))
        image, ids = resample(labels, positions, order=1), resample(labels, positions, order=0)
        assert set(np.unique(ids)) <= set(range(1, 26))
        inside = np.abs(image - np.round(image)) < 1e-3
        assert inside.mean() > 0.7
        assert (np.round(image)[inside] == ids[inside]).mean() > 0.98


def test_a_slice_smaller_than_the_crop_is_mirrored():
    section = np.tile(np.arange(6, dtype=np.float32), (6, 1))
    crop = resample(section, crop_positions((6, 6), (6, 10), OFF, np.random.default_rng(1)), order=0)
    assert crop.shape == (6, 10)
    assert (np.abs(np.diff(crop[0])) == 1).all()


def test_large_ids_survive():
    labels = np.full((8, 8), 2**24 - 1)
    assert resample(labels, crop_positions((8, 8), (8, 8), OFF, np.random.default_rng(0)), order=0).max() == 2**24 - 1


@given(st.integers(0, 2**32))
@settings(max_examples=30, deadline=None)
def test_zoom_and_stretch_stay_within_their_limits_and_both_axes_are_drawn(seed):
    config = OFF.model_copy(update={"scale": 1.0, "stretch": 0.2})
    positions = crop_positions((90, 90), (24, 32), config, np.random.default_rng(seed))
    zoom = [float(positions[0, 1, 0] - positions[0, 0, 0]), float(positions[1, 0, 1] - positions[1, 0, 0])]
    assert 1 / 2 / 1.2**0.5 - 1e-3 <= min(zoom) <= max(zoom) <= 2 * 1.2**0.5 + 1e-3
    assert max(zoom) / min(zoom) <= 1.2 + 1e-3


def test_a_jump_moves_one_part_along_a_line():
    section = np.arange(64 * 64, dtype=np.float32).reshape(64, 64)
    config = OFF.model_copy(update={"jump": 1.0})
    jumps = []
    for seed in range(20):
        positions = crop_positions((64, 64), (32, 32), config, np.random.default_rng(seed))
        steps = positions[1, 1:, 0] - positions[1, :-1, 0]
        moved = steps.abs() > 1e-4
        assert moved.sum() <= 1
        assert steps.abs().max() <= JUMP
        torch.testing.assert_close(positions[0], positions[0, :, :1].expand(32, 32))
        assert resample(section, positions, order=1).shape == (32, 32)
        jumps.append(float(steps.sum()))
    assert min(jumps) < -1
    assert max(jumps) > 1


def test_a_crop_of_wide_voxels_averages_where_one_of_labels_does_not():
    section = np.indices((80, 80)).sum(0) % 2  # a checkerboard: its mean is .5 wherever it is averaged
    axis = torch.arange(32, dtype=torch.float32) * 2
    positions = torch.stack(torch.meshgrid(axis, axis, indexing="ij")) + 4.0
    inside = resample(section, positions, order=1)[1:-1, 1:-1]  # at the rim points are closer together
    np.testing.assert_allclose(inside, 0.5, atol=0.01)
    np.testing.assert_array_equal(resample(section, positions, order=0), 0)
