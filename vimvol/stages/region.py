"""Which voxels of a volume a job is to segment: those in its region of interest and mask that hold data.

All others are 0 in boundaries, fragments and segmentation. The answer depends on the voxel and not on the box that is
asked for, so it is the same for any blocks.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from vimvol.config import SegmentConfig
from vimvol.errors import InputError
from vimvol.geometry import Block
from vimvol.io import Volume
from vimvol.io.mask import Mask
from vimvol.segment.missing import MARGIN, missing_voxels
from vimvol.stages.job import Job


def check_region(config: SegmentConfig) -> None:
    """Refuse a region of interest that holds no voxel, whatever the volume.

    Raises
    ------
    InputError
        If it holds none.
    """
    begin, end = config.input.roi or ((0, 0, 0), (1, 1, 1))
    if not all(b < e for b, e in zip(begin, end, strict=True)):
        raise InputError(
            f"input.roi = {[list(begin), list(end)]} holds no voxel; give its first voxel and the voxel after its "
            "last, in z, y, x"
        )


def region_of(config: SegmentConfig, volume: Volume) -> Block | None:
    """Return the region of interest of a volume; none for the whole of it.

    Raises
    ------
    InputError
        If it does not lie inside the volume.
    """
    if config.input.roi is None:
        return None
    begin, end = config.input.roi
    if any(e > s for e, s in zip(end, volume.shape, strict=True)):
        raise InputError(
            f"input.roi = {[list(begin), list(end)]} is no box inside {volume.address} of shape {volume.shape} in "
            "z, y, x; give its first voxel and the voxel after its last, as of all of it: "
            f"{[[0, 0, 0], list(volume.shape)]}"
        )
    return None if begin == (0, 0, 0) and end == volume.shape else Block(begin, end)


def wanted_voxels(roi: Block | None, mask: Mask | None, box: Block) -> npt.NDArray[np.bool_]:
    """Tell which voxels (z, y, x) of a box lie in the region of interest and in the mask; no intensity is read."""
    wanted = np.zeros(box.shape, bool)
    part = box if roi is None else box.intersect(roi)
    if part.size:
        wanted[part.within(box).slices] = True if mask is None else mask.read(part)
    return wanted


def context_of_missing(job: Job, box: Block) -> Block:
    """Return the box of intensities that tell which voxels of a box hold no data."""
    return box.grow(MARGIN).clip(job.shape)


def read_tissue(
    job: Job, box: Block, raw: npt.NDArray[Any] | None = None, origin: Block | None = None
) -> npt.NDArray[np.bool_]:
    """Tell which voxels (z, y, x) of a box are wanted and hold data; an intensity that is not finite is none.

    Parameters
    ----------
    job
        The job.
    box
        The box.
    raw, origin
        Intensities, and the box of the volume that they fill, at least `context_of_missing`; none: they are read,
        unless nothing in the box is wanted.
    """
    wanted = wanted_voxels(job.roi, job.mask, box)
    value = job.config.input.missing
    if not wanted.any() or (value is None and np.dtype(job.source.dtype).kind != "f"):
        return wanted
    window = context_of_missing(job, box)
    known = job.source.read(window) if raw is None or origin is None else raw[window.within(origin).slices]
    missing = not_finite(known) if value is None else missing_voxels(known, value) | not_finite(known)
    return wanted & ~missing[box.within(window).slices]


def not_finite(raw: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Tell which voxels (z, y, x) are NaN or infinite; each counts as missing, wherever it lies."""
    found: npt.NDArray[np.bool_] = ~np.isfinite(raw) if raw.dtype.kind == "f" else np.zeros(raw.shape, bool)
    return found
