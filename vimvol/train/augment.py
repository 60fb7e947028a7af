"""Random changes of a training crop: geometry in one resampling, intensities with MONAI.

Zoom, flips, quarter turns and elastic deformation are one grid of positions in the slice, so a crop is interpolated at
most once, and not at all where only flips and turns act. Labels are taken from the nearest voxel and boundaries are
drawn afterwards, so they keep their thickness at every zoom.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from vimvol.config import AugmentConfig
from vimvol.errors import MissingExtraError

ELASTIC_SPACING = 48
"""Distance of the control points of an elastic deformation, voxels of the crop."""
ELASTIC_STRENGTH = 4.0
"""Largest standard deviation of their displacements, voxels of the crop."""
ILLUMINATION_SPACING = 96
"""Distance of the control points of a change of illumination, voxels of the crop."""
GAIN_STRENGTH, OFFSET_STRENGTH = 0.35, 0.7
"""Largest standard deviations of the logarithm of its gain, and of its offset in standard deviations of intensity."""


def crop_positions(
    shape: tuple[int, int], patch: tuple[int, int], config: AugmentConfig, rng: np.random.Generator
) -> Tensor:
    """Draw where in a slice the voxels of a crop come from.

    Parameters
    ----------
    shape
        Extent (y, x) of the slice.
    patch
        Extent (y, x) of the crop; it may exceed the slice, which is mirrored at its borders.
    config
        What may happen.
    rng
        Source of chance.

    Returns
    -------
    Tensor
        (2, py, px) float32, y and x positions in voxels of the slice.
    """
    zoom = 1.0
    if config.scale > 0 and rng.random() < 0.5:  # the other half keeps the sharpness of the original
        limit = np.log1p(config.scale)
        zoom = float(np.exp(rng.uniform(-limit, limit)))
    turn = int(rng.integers(8)) if config.flip else 0

    axes = [torch.arange(p, dtype=torch.float32) - (p - 1) / 2 for p in patch]
    positions = torch.stack(torch.meshgrid(*axes, indexing="ij"))
    if config.elastic > 0 and rng.random() < config.elastic:
        positions = positions + _displacements(patch, rng)
    if turn & 1:
        positions = positions.flip(0)
    signs = torch.tensor([-1.0 if turn & 2 else 1.0, -1.0 if turn & 4 else 1.0])
    positions = positions * (signs * zoom)[:, None, None]

    covered = [zoom * p for p in (patch[::-1] if turn & 1 else patch)]
    centre = []
    for extent, window in zip(shape, covered, strict=True):
        low, high = sorted((0, round(extent - window)))
        centre.append(int(rng.integers(low, high + 1)) + (window - 1 if zoom == 1.0 else window) / 2)
    return positions + torch.tensor(centre, dtype=torch.float32)[:, None, None]


def _displacements(patch: tuple[int, int], rng: np.random.Generator) -> Tensor:
    """Draw a smooth field (2, py, px) of displacements from few control points."""
    points = [max(2, p // ELASTIC_SPACING + 1) for p in patch]
    field = rng.normal(0.0, rng.uniform(0.25, 1.0) * ELASTIC_STRENGTH, (1, 2, *points)).astype(np.float32)
    return functional.interpolate(torch.from_numpy(field), size=patch, mode="bicubic", align_corners=True)[0]


def _illuminate(crop: NDArray[np.float32], probability: float, rng: np.random.Generator) -> NDArray[np.float32]:
    """Return a crop (y, x) under slow random changes of contrast and brightness, as of beam, film and thickness."""
    if rng.random() >= probability:
        return crop
    points = (2, *(max(2, p // ILLUMINATION_SPACING + 1) for p in crop.shape))
    field = torch.from_numpy(rng.normal(0.0, 1.0, points).astype(np.float32))[None]
    gain, offset = functional.interpolate(field, size=crop.shape, mode="bicubic", align_corners=True)[0].numpy()
    strength = np.float32(rng.uniform(0.1, 1.0))
    changed: NDArray[np.float32] = crop * np.exp(GAIN_STRENGTH * strength * gain) + OFFSET_STRENGTH * strength * offset
    return changed.astype(np.float32)


def resample(section: NDArray[Any], positions: Tensor, order: int) -> NDArray[np.float32]:
    """Read a slice at positions, mirrored at its borders.

    Parameters
    ----------
    section
        (y, x) numbers; integers up to 2^24 stay exact.
    positions
        (2, py, px) float32, in voxels of the slice.
    order
        0: nearest voxel, 1: linear.

    Returns
    -------
    NDArray
        (py, px) float32.
    """
    extent = torch.tensor(section.shape, dtype=torch.float32).sub(1).clamp(min=1)[:, None, None]
    grid = (positions / extent * 2 - 1).flip(0).permute(1, 2, 0)[None]
    source = torch.from_numpy(np.ascontiguousarray(section, dtype=np.float32))[None, None]
    mode = "bilinear" if order else "nearest"
    read = functional.grid_sample(source, grid, mode=mode, padding_mode="reflection", align_corners=True)
    return np.asarray(read[0, 0].numpy(), dtype=np.float32)


def intensity_changes(config: AugmentConfig) -> Callable[[NDArray[np.float32], int], NDArray[np.float32]]:
    """Return a function that changes the intensities of a crop.

    Volumes differ in staining, detector and contrast, and a network that met one or two of them must work on the next.

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
            f"training needs MONAI, which cannot be imported ({error}); pip install 'vimvol[train]'"
        ) from None
    changes = Compose(
        [
            intensity.RandGaussianSmooth((0.3, 2.0), (0.3, 2.0), prob=config.blur),
            intensity.RandAdjustContrast(prob=config.contrast, gamma=(0.5, 2.0), retain_stats=True),
            intensity.RandScaleIntensity(factors=(-0.35, 0.45), prob=config.contrast),
            intensity.RandShiftIntensity(offsets=(-0.5, 0.5), prob=config.contrast),
            intensity.RandGaussianNoise(prob=config.noise, std=0.35),
        ]
    )

    def change(crop: NDArray[np.float32], seed: int) -> NDArray[np.float32]:
        changes.set_random_state(seed=seed)
        lit = _illuminate(crop, config.illumination, np.random.default_rng((seed, 1)))
        changed = changes(torch.from_numpy(lit)[None])
        return np.asarray(changed[0].numpy(), dtype=np.float32)

    return change
