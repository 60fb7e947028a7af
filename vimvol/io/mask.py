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

_MOST_AT_ONCE = 1 << 27
"""Voxels of a mask that are read together."""


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

    def touched(self, region: Block, cell: Index) -> NDArray[np.int64]:
        """Return which cells of a region of the volume may hold a voxel that is wanted.

        The mask is read once, at its own resolution, however many cells there are.

        Parameters
        ----------
        region
            Box of the volume.
        cell
            Voxels (z, y, x) of a cell; the first one begins at the corner of the region.

        Returns
        -------
        numpy.ndarray
            (n,) int64, numbers of cells in C order, ascending.
        """
        begins, ends = zip(*(self._reach(region, cell, axis) for axis in range(3)), strict=True)
        counts = tuple(len(each) for each in begins)
        found = [np.zeros(0, np.int64)]
        # sections that are compressed together are read together, and rows as a row of cells needs them
        widest = max(1, int((ends[1] - begins[1]).max())) * self.volume.shape[2]
        deep = max(1, min(self.volume.chunks[0] if self.volume.chunks else 1, _MOST_AT_ONCE // widest))
        for y, (y0, y1) in enumerate(zip(begins[1], ends[1], strict=True)):
            slab, first, last = np.zeros(0, bool), 0, 0
            there, of = np.zeros(0, np.int64), (-1, -1)
            for z, (z0, z1) in enumerate(zip(begins[0], ends[0], strict=True)):
                if y0 == y1 or z0 == z1:
                    continue
                if not first <= z0 < z1 <= last:
                    first, last = int(z0), min(self.volume.shape[0], max(int(z1), -(-int(z0 + 1) // deep) * deep))
                    box = Block((first, int(y0), 0), (last, int(y1), self.volume.shape[2]))
                    slab = (self.volume.read(box) != 0).any(1)
                if of != (z0, z1):  # which many sections of the volume have in common
                    of = (z0, z1)
                    columns = np.concatenate([[0], np.cumsum(slab[z0 - first : z1 - first].any(0))])
                    there = np.flatnonzero(columns[ends[2]] > columns[begins[2]])
                found.append((z * counts[1] + y) * counts[2] + there)
        return np.sort(np.concatenate(found))

    def _reach(self, region: Block, cell: Index, axis: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return first voxel of the mask, and voxel after the last, of every cell of a region along an axis."""
        first = np.arange(region.begin[axis], region.end[axis], cell[axis])
        last = np.minimum(first + cell[axis], region.end[axis]) - 1
        begin, end = (
            np.floor((each + 0.5 - self.begin[axis]) / self.factor[axis]).astype(np.int64) + more
            for each, more in ((first, 0), (last, 1))
        )
        extent = self.volume.shape[axis]
        return np.clip(begin, 0, extent), np.clip(end, 0, extent)

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
