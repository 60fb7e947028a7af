"""Random changes of the geometry of a training crop, in one resampling.

Zoom, flips, quarter turns, jumps and elastic deformation are one grid of positions in the slice, so a crop is
interpolated at most once, and not at all where only flips and turns act. Labels are taken from the nearest voxel and
boundaries are drawn afterwards, so they keep their thickness at every zoom.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from vimvol.config import AugmentConfig

ELASTIC_SPACING = 48
"""Distance of the control points of an elastic deformation, voxels of the crop."""
ELASTIC_STRENGTH = 4.0
"""Largest standard deviation of their displacements, voxels of the crop."""
JUMP = 8.0
"""Largest jump of one part of a crop against the other, voxels of the crop."""
DENSE = 1.25
"""Voxels of the slice a voxel of the crop from which several are averaged."""


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
    zoom = np.ones(2)
    if config.scale > 0 and rng.random() < 0.5:  # the other half keeps the sharpness of the original
        limit, apart = np.log1p(config.scale), np.log1p(config.stretch) / 2
        zoom *= np.exp(rng.uniform(-limit, limit) + rng.uniform(-apart, apart) * np.array([1, -1]))
    turn = int(rng.integers(8)) if config.flip else 0

    axes = [torch.arange(p, dtype=torch.float32) - (p - 1) / 2 for p in patch]
    positions = torch.stack(torch.meshgrid(*axes, indexing="ij"))
    if config.elastic > 0 and rng.random() < config.elastic:
        positions = positions + _displacements(patch, rng)
    if config.jump > 0 and rng.random() < config.jump:
        line = float(rng.uniform(-0.4, 0.4)) * patch[0]
        positions[1] += torch.where(axes[0] > line, float(rng.uniform(-JUMP, JUMP)), 0.0)[:, None]
    if turn & 1:
        positions = positions.flip(0)
    signs = torch.tensor([-1.0 if turn & 2 else 1.0, -1.0 if turn & 4 else 1.0])
    positions = positions * (signs * torch.from_numpy(zoom).float())[:, None, None]

    covered = [float(z) * p for z, p in zip(zoom, patch[::-1] if turn & 1 else patch, strict=True)]
    centre = []
    for extent, window in zip(shape, covered, strict=True):
        low, high = sorted((0, round(extent - window)))
        centre.append(int(rng.integers(low, high + 1)) + (window - 1 if zoom.max() == 1 == zoom.min() else window) / 2)
    return positions + torch.tensor(centre, dtype=torch.float32)[:, None, None]


def _displacements(patch: tuple[int, int], rng: np.random.Generator) -> Tensor:
    """Draw a smooth field (2, py, px) of displacements from few control points."""
    points = [max(2, p // ELASTIC_SPACING + 1) for p in patch]
    field = rng.normal(0.0, rng.uniform(0.25, 1.0) * ELASTIC_STRENGTH, (1, 2, *points)).astype(np.float32)
    return functional.interpolate(torch.from_numpy(field), size=patch, mode="bicubic", align_corners=True)[0]


def resample(section: NDArray[Any], positions: Tensor, order: int) -> NDArray[np.float32]:
    """Read a slice at positions, mirrored at its borders.

    Where positions lie further apart than `DENSE` voxels, linear reading averages over 2 x 2 points between them, as
    binning would; single points would turn noise and detail into other noise.

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
    averaged = order > 0 and float((positions[:, :, 1:] - positions[:, :, :-1]).norm(dim=0).mean()) > DENSE
    if averaged:
        positions = functional.interpolate(positions[None], scale_factor=2, mode="bilinear", align_corners=False)[0]
    extent = torch.tensor(section.shape, dtype=torch.float32).sub(1).clamp(min=1)[:, None, None]
    grid = (positions / extent * 2 - 1).flip(0).permute(1, 2, 0)[None]
    source = torch.from_numpy(np.ascontiguousarray(section, dtype=np.float32))[None, None]
    mode = "bilinear" if order else "nearest"
    read = functional.grid_sample(source, grid, mode=mode, padding_mode="reflection", align_corners=True)
    if averaged:
        read = functional.avg_pool2d(read, 2)
    return np.asarray(read[0, 0].numpy(), dtype=np.float32)
