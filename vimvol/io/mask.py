"""A mask at a scale of its own: which voxels of another volume are wanted."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vimvol.errors import InputError
from vimvol.geometry import Block, Index
from vimvol.io.openers import open_volume
from vimvol.io.volume import Volume

Ratio = tuple[float, float, float]


@dataclass(frozen=True)
class Mask:
    """A mask, laid over a volume.

    Voxel i of the volume is wanted if voxel ``floor((i + 0.5 - begin) / factor)`` of the mask is not 0, along every
    axis. So the answer depends on the voxel alone and not on what is read together with it.

    Attributes
    ----------
    volume
        The mask as it is stored.
    factor
        Voxels (z, y, x) of the volume along each axis of one voxel of the mask.
    begin
        Corner of the mask, in voxels (z, y, x) of the volume from its corner. Beyond the mask nothing is wanted.
    """

    volume: Volume
    factor: Ratio
    begin: Ratio

    def read(self, block: Block) -> NDArray[np.bool_]:
        """Tell which voxels of a box of the volume are wanted, (z, y, x).

        Raises
        ------
        StorageError
            If the mask cannot be read.
        """
        places = [
            np.floor((np.arange(b, e) + 0.5 - first) / factor).astype(np.int64)
            for b, e, first, factor in zip(block.begin, block.end, self.begin, self.factor, strict=True)
        ]
        inside = [(place >= 0) & (place < extent) for place, extent in zip(places, self.volume.shape, strict=True)]
        result = np.zeros(block.shape, bool)
        if not all(axis.any() for axis in inside):
            return result
        kept = [place[axis] for place, axis in zip(places, inside, strict=True)]
        box = Block(tuple(int(k[0]) for k in kept), tuple(int(k[-1]) + 1 for k in kept))
        stored = self.volume.read(box) != 0
        result[np.ix_(*inside)] = stored[np.ix_(*(k - b for k, b in zip(kept, box.begin, strict=True)))]
        return result

    def covered(self, shape: Index) -> Block:
        """Return the box of a volume of this shape (z, y, x) that the mask lies over, empty or not."""
        ends = [first + n * by for first, n, by in zip(self.begin, self.volume.shape, self.factor, strict=True)]
        return Block(
            tuple(min(extent, max(0, math.ceil(first - 0.5))) for first, extent in zip(self.begin, shape, strict=True)),
            tuple(min(extent, max(0, math.ceil(end - 0.5))) for end, extent in zip(ends, shape, strict=True)),
        )

    def identity(self) -> str:
        """Return a text that changes when the mask or its place does; see `vimvol.io.volume.Volume.identity`."""
        return f"{self.volume.identity()} {self.factor} {self.begin}"


def open_mask(address: str, volume: Volume) -> Mask:
    """Open a mask and lay it over a volume.

    Scale and place come from the voxel sizes and offsets where both tell them with a unit. A mask that does not say
    where its first voxel lies, or at the same place as that of the volume, begins at the corner of the volume, as one
    made by taking every second voxel does. Otherwise the mask covers the volume, and a voxel of it as many whole voxels
    of the volume as fit the shapes, rounded up or down.

    Parameters
    ----------
    address
        ``PATH[:DATASET]`` of booleans or numbers.
    volume
        What it is laid over.

    Raises
    ------
    InputError
        If it cannot be opened, has several channels, or fits the volume in no way.
    """
    mask = open_volume(address, prefer="mask")
    if mask.channels > 1:
        raise InputError(
            f"mask {mask.address} has {mask.channels} channels, so it is unclear which one tells what is wanted; "
            "store that one by itself"
        )
    if mask.voxel_size_known and volume.voxel_size_known:
        factor = _triple([m / v for m, v in zip(mask.voxel_size, volume.voxel_size, strict=True)])
        begin = _triple(
            [_corner(*axis) for axis in zip(mask.offset, volume.offset, volume.voxel_size, factor, strict=True)]
        )
    else:
        begin = (0.0, 0.0, 0.0)
        factor = _triple([_whole_factor(mask, volume, axis) for axis in range(3)])
    found = Mask(mask, factor, begin)
    for axis, extent in enumerate(volume.shape):
        end = begin[axis] + mask.shape[axis] * factor[axis]
        if end <= 0 or begin[axis] >= extent:
            raise InputError(
                f"mask {mask.address} lies beside {volume.address} along {'zyx'[axis]} (its voxels {begin[axis]:g} to "
                f"{end:g} of {extent}), so nothing would be segmented; correct its voxel size or offset"
            )
    return found


def _triple(values: list[float]) -> Ratio:
    z, y, x = (round(value, 6) for value in values)  # 40 nm from 0.04 micrometers are not exactly 40
    return z, y, x


def _corner(mask_offset: float, offset: float, voxel: float, factor: float) -> float:
    """Return where a mask begins, in voxels from the corner of the volume; offsets are of the centres of voxels."""
    if mask_offset == offset:
        return 0.0
    return (mask_offset - offset) / voxel - (factor - 1) / 2


def _whole_factor(mask: Volume, volume: Volume, axis: int) -> float:
    extent, cells = volume.shape[axis], mask.shape[axis]
    for factor in {max(1, math.floor(extent / cells)), math.ceil(extent / cells)}:
        if cells in (-(-extent // factor), extent // factor):
            return float(factor)
    raise InputError(
        f"mask {mask.address} of shape {mask.shape} fits {volume.address} of shape {volume.shape} by no whole factor "
        f"along {'zyx'[axis]}, and not both tell their voxel size; give one of the same extent, or write its voxel size"
    )
