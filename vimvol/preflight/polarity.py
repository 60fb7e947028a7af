"""Whether membranes are dark, as networks know them: some detectors and exports give them bright."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from vimvol.geometry import Block, Grid
from vimvol.io import Volume
from vimvol.io.mask import Mask
from vimvol.preflight.survey import WINDOW, spread
from vimvol.stages.region import wanted_voxels

WINDOWS = 8
LOOKS = 64
"""Windows at most whose mask is looked at for these."""
SIGMA = 2.0
"""Voxels; about half a membrane."""
BRIGHT = 0.9
"""Weight of dark ridges against bright ones below which membranes count as bright. Of ssTEM and FIB-SEM of two
specimens 1.26 to 1.49 were measured, and so the inverse of that if they are inverted."""


def bright_text(volume: Volume, roi: Block | None = None, mask: Mask | None = None) -> str:
    """Return a line that warns of bright membranes; empty where they are dark, or nothing tells."""
    weight = weight_of_dark_ridges(volume, roi, mask)
    if weight is None or weight >= BRIGHT:
        return ""
    return (
        f"warning: thin lines of {volume.address} are bright rather than dark, and networks are mostly trained on dark "
        "membranes; if these are inverted, give --set predict.invert=true, and if the network was trained so, =false"
    )


def weight_of_dark_ridges(volume: Volume, roi: Block | None = None, mask: Mask | None = None) -> float | None:
    """Weigh dark thin lines of slices against bright ones, in a fixed sample of windows.

    Parameters
    ----------
    volume
        The intensities.
    roi, mask
        Windows without a wanted voxel are not looked at; none: all are wanted.

    Returns
    -------
    float or None
        Above 1 where dark lines prevail; none where no window has any contrast.
    """
    region = Block.whole(volume.shape) if roi is None else roi
    grid = Grid(region.shape, WINDOW)
    dark = bright = 0.0
    seen = 0
    for number in spread(len(grid), LOOKS):
        window = grid.block(grid.index(number)).moved(region.begin)
        if mask is not None and not wanted_voxels(None, mask, window).any():
            continue
        plane = volume.read(window)[0].astype(np.float32)
        known = np.isfinite(plane)
        deviation = float(plane[known].std()) if known.any() else 0.0
        if deviation == 0:
            continue
        more = _ridges(np.where(known, (plane - plane[known].mean()) / np.float32(deviation), np.float32(0)))
        dark, bright, seen = dark + more[0], bright + more[1], seen + 1
        if seen == WINDOWS:
            break
    return dark / bright if bright else None


def _ridges(plane: npt.NDArray[np.float32]) -> tuple[float, float]:
    """Return how much there is of dark and of bright lines: curvature across them, squared, unless it is of a spot."""
    yy, yx, xx = (ndimage.gaussian_filter(plane, SIGMA, order=order) for order in ((2, 0), (1, 1), (0, 2)))
    mean, half = (yy + xx) / 2, np.hypot((yy - xx) / 2, yx)
    squared = np.square(np.minimum(np.abs(mean), half))  # of a line one curvature is 0, of a spot they are equal
    return float(squared[mean > 0].sum()), float(squared[mean < 0].sum())
