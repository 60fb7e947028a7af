"""Small volumes with ground truth, written from memory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from vimvol.geometry import Block
from vimvol.io.arrays import write_box
from vimvol.io.omezarr import create_image, create_labels


def write_annotated(
    path: Path,
    intensities: NDArray[Any],
    labels: NDArray[Any],
    voxel_size: Sequence[float],
    truth: str,
    *,
    name: str = "EM",
) -> None:
    """Write a volume and its ground truth as an OME-Zarr of one level.

    Parameters
    ----------
    path
        Where to.
    intensities
        (z, y, x), any dtype that volumes may have.
    labels
        (z, y, x) integers, the ground truth.
    voxel_size
        nm along z, y, x.
    truth
        Name of the ground truth among the labels.
    name
        Name of the image.

    Raises
    ------
    StorageError
        If it cannot be written.
    """
    dtype, shape = intensities.dtype.name, intensities.shape
    create_image(str(path), shape=shape, dtype=dtype, voxel_size=voxel_size, levels=1, name=name)
    create_labels(str(path), truth)
    write_box(str(path / "0"), Block.whole(shape), intensities)
    write_box(str(path / "labels" / truth / "0"), Block.whole(shape), labels)
