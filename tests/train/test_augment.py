import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vimvol.config import AugmentConfig
from vimvol.train.augment import crop_positions, intensity_changes, resample

OFF = AugmentConfig(flip=False, scale=0, elastic=0, contrast=0, noise=0, blur=0, illumination=0)


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


def test_intensity_changes_depend_on_the_seed_alone():
    change = intensity_changes(AugmentConfig(contrast=1, noise=1, blur=1))
    crop = np.random.default_rng(0).normal(size=(32, 48)).astype(np.float32)
    first = change(crop, 3)
    change(crop, 4)
    assert first.shape == crop.shape
    assert first.dtype == np.float32
    assert np.isfinite(first).all()
    np.testing.assert_array_equal(change(crop, 3), first)
    assert not np.array_equal(change(crop, 4), first)


def test_no_intensity_changes_change_nothing():
    crop = np.random.default_rng(0).normal(size=(16, 16)).astype(np.float32)
    np.testing.assert_array_equal(intensity_changes(OFF)(crop, 1), crop)


@pytest.mark.parametrize("name", ["contrast", "noise", "blur"])
def test_every_intensity_change_can_act_alone(name):
    crop = np.random.default_rng(0).normal(size=(16, 16)).astype(np.float32)
    change = intensity_changes(OFF.model_copy(update={name: 1.0}))
    assert not np.allclose(change(crop, 1), crop, atol=1e-3)


def test_illumination_changes_slowly_and_keeps_detail():
    rng = np.random.default_rng(0)
    crop = rng.normal(size=(128, 192)).astype(np.float32)
    change = intensity_changes(OFF.model_copy(update={"illumination": 1.0}))
    changed = [change(crop, seed) for seed in range(20)]
    means = np.array([[part.mean() for part in np.array_split(c, 4, axis=1)] for c in changed])
    assert means.std(axis=1).max() > 0.2
    detail = crop - np.roll(crop, 1, axis=1)
    for c in changed:
        moved = c - np.roll(c, 1, axis=1)
        assert np.corrcoef(detail[:, 1:].ravel(), moved[:, 1:].ravel())[0, 1] > 0.9
    np.testing.assert_array_equal(change(crop, 3), changed[3])
