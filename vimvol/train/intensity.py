"""Random changes of the intensities of a training crop: what specimens, microscopes and processing do to them.

Volumes differ in staining, detector, sharpness and contrast, and a network that met one or two of them must work on
the next. Changes act in the order in which they come about: on the specimen, in the microscope, in processing.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch.nn import functional

from vimvol.config import AugmentConfig
from vimvol.errors import MissingExtraError, install_text

ILLUMINATION_SPACING = 96
"""Distance of the control points of a change of illumination, voxels of the crop."""
GAIN_STRENGTH, OFFSET_STRENGTH = 0.35, 0.7
"""Largest standard deviations of the logarithm of its gain, and of its offset in standard deviations of intensity."""

Crop = NDArray[np.float32]
Change = Callable[[Crop, np.random.Generator], Crop]


def illuminate(crop: Crop, rng: np.random.Generator) -> Crop:
    """Return a crop (y, x) under slow changes of contrast and brightness, as of beam, film and thickness."""
    points = (2, *(max(2, p // ILLUMINATION_SPACING + 1) for p in crop.shape))
    field = torch.from_numpy(rng.normal(0.0, 1.0, points).astype(np.float32))[None]
    gain, offset = functional.interpolate(field, size=crop.shape, mode="bicubic", align_corners=True)[0].numpy()
    strength = np.float32(rng.uniform(0.1, 1.0))
    changed: Crop = crop * np.exp(GAIN_STRENGTH * strength * gain) + OFFSET_STRENGTH * strength * offset
    return changed


def stain(crop: Crop, rng: np.random.Generator) -> Crop:
    """Return a crop (y, x) with one to three folds, specks of dirt or lost lines."""
    y, x = np.ogrid[: crop.shape[0], : crop.shape[1]]
    changed = crop.copy()
    for _ in range(int(rng.integers(1, 4))):
        centre = rng.uniform(0, crop.shape)
        kind = rng.random()
        if kind < 0.4:  # a fold, along a line that bends slowly
            angle, bend, phase = rng.uniform(0, math.pi), rng.uniform(0, 12), rng.uniform(0, 2 * math.pi)
            along = (y - centre[0]) * math.cos(angle) + (x - centre[1]) * math.sin(angle)
            across = (x - centre[1]) * math.cos(angle) - (y - centre[0]) * math.sin(angle)
            across = across + bend * np.sin(along / 40 + phase)
            changed += rng.uniform(-3, -0.5) * np.exp(-((across / rng.uniform(1, 4)) ** 2) / 2)
        elif kind < 0.8:  # dirt, or a hole, which is bright
            radius = rng.uniform(2, 10, 2)
            depth = rng.uniform(-4, -1) if rng.random() < 0.7 else rng.uniform(1, 2.5)
            far = ((y - centre[0]) / radius[0]) ** 2 + ((x - centre[1]) / radius[1]) ** 2
            changed += depth * np.exp(-(far**2) / 2)
        else:  # lines that the scan lost
            first = int(centre[0])
            changed[first : first + int(rng.integers(1, 4))] = rng.uniform(-2, 2)
    return changed.astype(np.float32)


def coarsen(crop: Crop, rng: np.random.Generator) -> Crop:
    """Return a crop (y, x) as if imaged with voxels 1.3 to 3 times as wide and enlarged again."""
    size = tuple(max(2, round(p / rng.uniform(1.3, 3.0))) for p in crop.shape)
    image = torch.from_numpy(np.ascontiguousarray(crop))[None, None]
    small = functional.interpolate(image, size=size, mode="bilinear", antialias=True, align_corners=False)
    large = functional.interpolate(small, size=crop.shape, mode="bicubic", align_corners=False)
    return np.asarray(large[0, 0].numpy(), dtype=np.float32)


def add_noise(crop: Crop, rng: np.random.Generator) -> Crop:
    """Return a crop (y, x) with noise: of single voxels or in grains, the same anywhere or more where bright."""
    noise = rng.normal(0.0, 1.0, crop.shape).astype(np.float32)
    if rng.random() < 0.4:
        noise = ndimage.gaussian_filter(noise, rng.uniform(0.4, 1.5))
        noise /= noise.std()
    strength = np.float32(rng.uniform(0.05, 0.5))
    if rng.random() < 0.4:
        noise *= np.sqrt(np.clip(1 + crop / 3, 0, None))
    return crop + strength * noise


def sharpen(crop: Crop, rng: np.random.Generator) -> Crop:
    """Return a crop (y, x) under an unsharp mask."""
    soft = ndimage.gaussian_filter(crop, rng.uniform(1.0, 3.0))
    sharp: Crop = crop + np.float32(rng.uniform(0.3, 1.5)) * (crop - soft)
    return sharp


def equalise(crop: Crop, rng: np.random.Generator) -> Crop:
    """Return a crop (y, x) with its contrast evened out locally, as many volumes are published (CLAHE and the like)."""
    size = int(rng.integers(24, 128))
    mean = ndimage.uniform_filter(crop, size)
    spread = np.sqrt(np.clip(ndimage.uniform_filter(crop * crop, size) - mean * mean, 0, None))
    share = np.float32(rng.uniform(0.3, 1.0))
    even: Crop = (crop - mean) / (spread + np.float32(0.2))
    return crop + share * (even - crop)


def intensity_changes(config: AugmentConfig) -> Callable[[NDArray[np.float32], int], NDArray[np.float32]]:
    """Return a function that changes the intensities of a crop.

    Returns
    -------
    Callable
        From a standardised crop (y, x) and a seed to the changed crop, (y, x) float32.

    Raises
    ------
    MissingExtraError
        If MONAI is not installed.
    """
    try:
        from monai.transforms.compose import Compose
        from monai.transforms.intensity import array as intensity
    except ImportError as error:
        raise MissingExtraError(
            f"training needs MONAI, which cannot be imported ({error}); {install_text('train')}"
        ) from None
    optics: tuple[tuple[float, Change], ...] = (
        (config.illumination, illuminate),
        (config.stains, stain),
        (config.coarsen, coarsen),
    )
    detector: Any = Compose(
        [
            intensity.RandGaussianSmooth((0.3, 2.0), (0.3, 2.0), prob=config.blur),
            intensity.RandAdjustContrast(prob=config.contrast, gamma=(0.5, 2.0), retain_stats=True),
            intensity.RandHistogramShift(num_control_points=(4, 8), prob=config.contrast / 2),
            intensity.RandScaleIntensity(factors=(-0.45, 0.6), prob=config.contrast),
            intensity.RandShiftIntensity(offsets=(-0.6, 0.6), prob=config.contrast),
        ]
    )
    processing: tuple[tuple[float, Change], ...] = (
        (config.noise, add_noise),
        (config.sharpen, sharpen),
        (config.equalise, equalise),
    )

    def change(crop: NDArray[np.float32], seed: int) -> NDArray[np.float32]:
        rng = np.random.default_rng((seed, 1))
        detector.set_random_state(seed=seed)
        seen = detector(torch.from_numpy(_some(optics, crop, rng))[None])
        return _some(processing, np.asarray(seen[0].numpy(), dtype=np.float32), rng)

    return change


def _some(changes: tuple[tuple[float, Change], ...], crop: Crop, rng: np.random.Generator) -> Crop:
    """Apply each change with its probability."""
    for probability, change in changes:
        if rng.random() < probability:
            crop = change(crop, rng).astype(np.float32, copy=False)
    return crop
