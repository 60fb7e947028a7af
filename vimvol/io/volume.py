"""A volume: a small handle that pickles to a worker and opens its data there."""

from __future__ import annotations

import functools
import hashlib
import os
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vimvol.errors import InputError, StorageError
from vimvol.geometry import Block
from vimvol.io.errors import storage_errors
from vimvol.io.formats import OPENERS
from vimvol.io.formats.base import Backend

Shape = tuple[int, int, int]
Nanometers = tuple[float, float, float]

_MOST_OPEN = 16
"""Arrays that a process keeps open."""


@dataclass(frozen=True)
class Volume:
    """An array of a container, seen as (z, y, x) or (c, z, y, x) whatever the order that it is stored in.

    Attributes
    ----------
    url
        Absolute path or URL of the container; a URL that is not zarr with the format before it (``n5://s3://...``).
    dataset
        Path of the array inside; empty where the container is the array.
    format
        Name of the opener, a key of `vimvol.io.formats.OPENERS`.
    axes
        Stored axes, slowest first, e.g. ``"zyx"``, ``"czyx"``, ``"tczyx"``; a time axis has length 1.
    shape
        Voxels (z, y, x); an image without z axis is one slice.
    channels
        Length of the channel axis; 1 where there is none.
    dtype
        In native byte order, e.g. ``"uint8"``.
    voxel_size, offset
        nm, (z, y, x): size of a voxel, and position of the first one's centre.
    voxel_size_known
        Whether the size comes from metadata with a unit or from the caller; else its numbers are a guess.
    chunks, shards
        Voxels (z, y, x) that are compressed, and stored, together; none where the format has none.
    known_as
        Identity under which earlier runs recorded the same data at another place; empty: that of data and place.
    opening
        Other each time that a volume is opened, so that no process reads a file that it opened for an earlier run.
    """

    url: str
    dataset: str
    format: str
    axes: str
    shape: Shape
    channels: int
    dtype: str
    voxel_size: Nanometers = (1.0, 1.0, 1.0)
    offset: Nanometers = (0.0, 0.0, 0.0)
    voxel_size_known: bool = False
    chunks: Shape | None = None
    shards: Shape | None = None
    known_as: str = field(default="", compare=False, repr=False)
    opening: str = field(default="", compare=False, repr=False)

    @property
    def address(self) -> str:
        """The text that opens this array again: ``PATH[:DATASET]``."""
        return f"{self.url}:{self.dataset}" if self.dataset else self.url

    def read(self, block: Block) -> NDArray[Any]:
        """Read a box of voxels, (z, y, x); of several channels, the first.

        Raises
        ------
        ValueError
            If the box does not lie inside the volume.
        StorageError
            If the data cannot be read or decoded.
        """
        first: NDArray[Any] = self._read(block, slice(0, 1))[0]
        return first

    def read_labels(self, block: Block) -> NDArray[Any]:
        """Read a box of labels, (z, y, x) integers of 0 or more; raises as `read` does.

        Raises
        ------
        InputError
            If a label is negative.
        """
        labels = self.read(block)
        if labels.dtype.kind == "i" and (labels < 0).any():
            raise InputError(
                f"{self.address} holds label {labels.min()} in {block}, and labels are 0 or more; store 0 where "
                "nothing is annotated"
            )
        return labels

    def read_channels(self, block: Block) -> NDArray[Any]:
        """Read a box of voxels of all channels, (c, z, y, x); raises as `read` does."""
        return self._read(block, slice(0, self.channels))

    def identity(self) -> str:
        """Return a text that changes when the data do, as far as that can be told cheaply, for the ledger of a run.

        It covers address, shape and dtype, and: of HDF5, the place of the dataset in the file and its bytes, of a large
        one a sample of these; of another file, its size and time; of a folder of zarr, N5 or precomputed, its metadata
        and size and time of its files, 2000 of more; of a folder of images, size and time of each; behind a URL, only
        the metadata. Data that change without any of this are taken for the same.

        Raises
        ------
        StorageError
            If the storage cannot be looked at.
        """
        return self.known_as or self.identity_at(self.url, self.dataset)

    def identity_at(self, url: str, dataset: str) -> str:
        """Return what `identity` would be if the same data lay at another place; raises as it does."""
        return self._digest(url, dataset, self._state(portable=False))

    def content(self) -> str:
        """Return a text that changes when the data do, as `identity` does, and not with their place; raises as it does.

        A copy on another disk has the same if the times of its files and folders are the same. In the formats of which
        `identity` looks at no times, they do not count here either.
        """
        return self._digest(self._state(portable=True))

    def _state(self, *, portable: bool) -> str:
        with storage_errors(f"looking at {self.address}"):
            return OPENERS[self.format].state(self.url, self.dataset, portable)

    def _digest(self, *parts: str) -> str:
        *place, state = parts
        form = (self.axes, str(self.shape), str(self.channels), self.dtype)
        return hashlib.sha256("\n".join((*place, *form, state)).encode()).hexdigest()

    def _read(self, block: Block, channels: slice) -> NDArray[Any]:
        if len(block.begin) != 3 or not Block.whole(self.shape).contains(block):
            raise ValueError(f"block {block} does not lie inside {self.address} of shape {self.shape}")
        parts: dict[str, int | slice] = dict(zip("zyx", block.slices, strict=True))
        parts |= {"c": channels, "t": 0}
        with storage_errors(f"reading {block} of {self.address}", decoding=True):
            stored = np.asarray(_backend(os.getpid(), self.opening, self)[tuple(parts[a] for a in self.axes)])
        kept = self.axes.replace("t", "")
        for missing in (a for a in "cz" if a not in kept):
            stored, kept = stored[np.newaxis], missing + kept
        array = stored.transpose([kept.index(a) for a in "czyx"])
        if array.shape[1:] != block.shape or array.dtype.newbyteorder("=") != self.dtype:
            raise StorageError(f"{self.address} has changed in shape or dtype since it was opened; run from the start")
        return np.ascontiguousarray(array, dtype=np.dtype(self.dtype))


@functools.lru_cache(maxsize=_MOST_OPEN)
def _backend(process: int, opening: str, volume: Volume) -> Backend:  # noqa: ARG001 - the first two are but its key
    # a fork must not share open files, and what was opened before may have been replaced since
    return OPENERS[volume.format].open(volume.url, volume.dataset)


def forget_open() -> None:
    """Close what this process keeps open, e.g. before a file that was read is replaced."""
    _backend.cache_clear()
