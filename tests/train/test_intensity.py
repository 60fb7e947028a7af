import numpy as np
import pytest
from scipy import ndimage

from vimvol.config import AugmentConfig
from vimvol.train.intensity import coarsen, equalise, intensity_changes, sharpen, stain

OFF = AugmentConfig(**dict.fromkeys(AugmentConfig.model_fields, 0))
CHANGES = ["contrast", "illumination", "equalise", "stains", "coarsen", "blur", "noise", "sharpen"]
SIZE = {"flip", "scale", "stretch", "elastic", "jump"}
"""What changes geometry, and not intensities."""


def noise(height: int = 64, width: int = 96, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(height, width)).astype(np.float32)


def test_every_setting_is_a_change_of_geometry_or_of_intensities():
    assert set(AugmentConfig.model_fields) == SIZE | set(CHANGES)


def test_intensity_changes_depend_on_the_seed_alone():
    change = intensity_changes(AugmentConfig(**dict.fromkeys(CHANGES, 1)))
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


@pytest.mark.parametrize("name", CHANGES)
def test_every_change_of_intensities_can_act_alone(name):
    crop = noise()
    before = crop.copy()
    changed = intensity_changes(OFF.model_copy(update={name: 1.0}))(crop, 1)
    assert not np.allclose(changed, crop, atol=1e-3)
    assert changed.dtype == np.float32
    assert np.isfinite(changed).all()
    np.testing.assert_array_equal(crop, before)


@pytest.mark.parametrize("shape", [(17, 40), (256, 31)])
def test_changes_take_crops_of_any_shape_and_a_constant_one(shape):
    change = intensity_changes(OFF.model_copy(update=dict.fromkeys(CHANGES, 1.0)))
    for crop in (noise(*shape), np.zeros(shape, np.float32)):
        changed = change(crop, 5)
        assert changed.shape == shape
        assert np.isfinite(changed).all()


def test_stains_leave_most_of_a_crop_as_it_is():
    crops = [stain(np.zeros((128, 128), np.float32), np.random.default_rng(seed)) for seed in range(40)]
    touched = np.array([(np.abs(crop) > 0.05).mean() for crop in crops])
    assert touched.max() < 0.4
    assert (touched > 0).mean() > 0.8
    assert min(crop.min() for crop in crops) < -1
    assert max(crop.max() for crop in crops) > 0.5


def test_coarse_voxels_lose_fine_detail_and_keep_coarse_detail():
    fine, coarse = noise(128, 128), ndimage.gaussian_filter(noise(128, 128), 8)
    coarse /= coarse.std()
    rng = np.random.default_rng(0)
    assert max(coarsen(fine, rng).std() for _ in range(5)) < 0.8
    assert min(np.corrcoef(coarsen(coarse, rng).ravel(), coarse.ravel())[0, 1] for _ in range(5)) > 0.99


def test_sharpening_raises_fine_detail_and_keeps_the_mean():
    crop = ndimage.gaussian_filter(noise(128, 128), 1.5)
    sharp = sharpen(crop, np.random.default_rng(0))
    assert np.abs(np.diff(sharp)).mean() > 1.1 * np.abs(np.diff(crop)).mean()
    assert sharp.mean() == pytest.approx(crop.mean(), abs=1e-3)


def test_equalising_brings_dull_and_vivid_parts_together():
    crop = noise(256, 256)
    crop[:, :128] *= 0.3
    ratios = []
    for seed in range(8):
        even = equalise(crop, np.random.default_rng(seed))
        ratios.append(even[:, 160:].std() / even[:, :96].std())
    assert max(ratios) < 3.1
    assert np.mean(ratios) < 2.2


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
