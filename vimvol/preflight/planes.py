"""Which slices of a volume are predicted, and whether slices across every axis make sense."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from vimvol.config import SegmentConfig
from vimvol.errors import InputError
from vimvol.infer.planes import Plane, make_plane
from vimvol.io import Volume
from vimvol.preflight.boundaries import Boundaries
from vimvol.preflight.fragments import ANISOTROPIC
from vimvol.stages.job import Job

TOLERANCE = 1.2
"""Slices are shown as they are stored where voxels are at most this many times as wide or narrow as trained on."""
FARTHEST = 2.5
"""So they are, too, where voxels differ by more than this: other kinds of data, or metadata that are wrong."""


def planes_of(config: SegmentConfig, volume: Volume, found: Boundaries) -> tuple[Plane, ...]:
    """Return the slices to predict, those across z first.

    Parameters
    ----------
    config
        The configuration.
    volume
        The input.
    found
        The network.

    Raises
    ------
    InputError
        If slices across other axes than z do not suit the mode or the voxels, or slices are too small to predict.
    """
    axes = config.predict.axes
    if axes != "z":
        _check(config, volume)
    scale = scale_of(volume, found.voxel_sizes) if config.predict.rescale == "auto" else (1.0, 1.0, 1.0)
    return tuple(make_plane(axis, volume.shape, found.tile, config.predict.halo, found.divisor, scale) for axis in axes)


def scale_of(volume: Volume, trained: Sequence[Sequence[float]]) -> tuple[float, ...]:
    """Return voxels (z, y, x) to show a network in place of one, so that they are as wide as it was trained on.

    What a network was trained on are slices across z; of several volumes it is the one whose voxels are most alike, in
    all three axes, since sections and blocks of the same width look different.

    Parameters
    ----------
    volume
        The input.
    trained
        Voxel sizes (z, y, x) of the volumes that the network was trained on, nm; none: nothing is known.
    """
    if not (trained and volume.voxel_size_known):
        return (1.0, 1.0, 1.0)
    scale = _scale(volume, trained)
    return scale if TOLERANCE < _apart(scale) <= FARTHEST else (1.0, 1.0, 1.0)


def far_text(config: SegmentConfig, volume: Volume, trained: Sequence[Sequence[float]]) -> str:
    """Return a line that warns where voxels are so far from those trained on that slices are shown as they are."""
    if config.predict.rescale != "auto" or not (trained and volume.voxel_size_known):
        return ""
    if (apart := _apart(_scale(volume, trained))) <= FARTHEST:
        return ""
    width = " x ".join(f"{s:g}" for s in volume.voxel_size[1:])
    known = " and ".join(dict.fromkeys(f"{math.sqrt(y * x):.3g}" for _, y, x in trained))
    return (
        f"warning: voxels of {width} nm (y, x) are {apart:.3g} times off those of {known} nm that the network was "
        f"trained on, more than {FARTHEST:g}, so slices are shown as they are stored and boundaries may be poor; where "
        "the size is wrong, give it in nm, --set input.voxel_size='[z,y,x]'"
    )


def _scale(volume: Volume, trained: Sequence[Sequence[float]]) -> tuple[float, ...]:
    size = volume.voxel_size
    nearest = min(trained, key=lambda other: math.dist(np.log(size), np.log(other)))
    return tuple(s / math.sqrt(nearest[1] * nearest[2]) for s in size)


def _apart(scale: Sequence[float]) -> float:
    """Return how many times as wide or narrow a voxel is, in slices across z."""
    return max(max(s, 1 / s) for s in scale[1:])


def rescaled_text(job: Job) -> str:
    """Return a line that tells at which size of voxels slices are shown to the network; empty where as they are."""
    tiling = job.planes[0].tiling
    if tiling.shown is None:
        return ""
    size = job.source.voxel_size[1:]
    shown = [s * w / n for s, w, n in zip(size, tiling.window, tiling.shown, strict=True)]
    stored, seen = (" x ".join(f"{value:.3g}" for value in values) for values in (size, shown))
    return (
        f"predict: slices of {stored} nm a voxel (y, x) are shown to the network at {seen} nm, as in training; "
        "predict.rescale=none shows them as they are"
    )


def _check(config: SegmentConfig, volume: Volume) -> None:
    given = f"predict.axes = {config.predict.axes}"
    if config.segment.mode == "2d":
        raise InputError(
            f"{given} mixes what neighbouring slices show, and segment.mode = 2d wants every slice by itself; leave "
            "predict.axes at z"
        )
    if not volume.voxel_size_known:
        raise InputError(
            f"{volume.address} does not say its voxel size, and {given} suits only voxels about as deep as wide; give "
            "it in nm along z, y, x, e.g. --set input.voxel_size='[8,8,8]'"
        )
    size = volume.voxel_size
    if max(size) > ANISOTROPIC * min(size):
        raise InputError(
            f"{volume.address} has voxels of {' x '.join(f'{s:g}' for s in size)} nm (z, y, x), so slices across other "
            f"axes than z look stretched and {given} would spoil the boundaries; leave predict.axes at z"
        )
