"""Which slices of a volume are predicted, and whether slices across every axis make sense."""

from __future__ import annotations

from collections.abc import Sequence

from vimvol.config import SegmentConfig
from vimvol.errors import InputError
from vimvol.infer.planes import Plane, make_plane
from vimvol.io import Volume
from vimvol.stages.fragments import ANISOTROPIC


def planes_of(config: SegmentConfig, volume: Volume, tile: Sequence[int], divisor: int) -> tuple[Plane, ...]:
    """Return the slices to predict, those across z first.

    Parameters
    ----------
    config
        The configuration.
    volume
        The input.
    tile
        Voxels of a tile along rows and columns of a slice.
    divisor
        Multiple that the network needs a window to have.

    Raises
    ------
    InputError
        If slices across other axes than z do not suit the mode or the voxels, or slices are too small to predict.
    """
    axes = config.predict.axes
    if axes != "z":
        _check(config, volume)
    return tuple(make_plane(axis, volume.shape, tile, config.predict.halo, divisor) for axis in axes)


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
            "it in nm along z, y, x, e.g. --set input.voxel_size=[8,8,8]"
        )
    size = volume.voxel_size
    if max(size) > ANISOTROPIC * min(size):
        raise InputError(
            f"{volume.address} has voxels of {' x '.join(f'{s:g}' for s in size)} nm (z, y, x), so slices across other "
            f"axes than z look stretched and {given} would spoil the boundaries; leave predict.axes at z"
        )
