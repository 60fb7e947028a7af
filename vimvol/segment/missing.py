"""Voxels without data: lost sections and the padding around a specimen."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

SIDE = 15
"""Voxels (y, x) of the smallest square that counts as missing: more than any dark structure of tissue is exactly 0."""

MARGIN = (0, SIDE - 1, SIDE - 1)
"""Voxels (z, y, x) of context that decide whether a voxel is missing."""


def missing_voxels(raw: NDArray[Any], value: float = 0.0) -> NDArray[np.bool_]:
    """Tell which voxels hold no data.

    They are the squares of `SIDE` voxels in a slice that hold nothing but one value (a morphological opening). Beyond
    the edge of ``raw`` everything counts as missing: cut it with `MARGIN`, or at the edge of the volume.

    Parameters
    ----------
    raw
        (Z, Y, X) intensities.
    value
        Intensity of voxels without data.

    Returns
    -------
    numpy.ndarray
        (Z, Y, X) bool.
    """
    mask = np.asarray(raw == value)
    if not mask.any():
        return mask
    size = (1, SIDE, SIDE)
    solid = ndimage.minimum_filter(mask.view(np.uint8), size=size, mode="constant", cval=1)
    opened: NDArray[np.bool_] = ndimage.maximum_filter(solid, size=size, mode="constant", cval=0).astype(bool) & mask
    return opened
