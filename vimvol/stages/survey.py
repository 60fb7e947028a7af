"""Statistics of the intensities, decided once for a run: what standardises the network's input."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from vimvol.errors import InputError
from vimvol.geometry import Block, Grid
from vimvol.infer.predictor import Standardization
from vimvol.io import Volume

WINDOW = (1, 256, 256)
WINDOWS_OF_VOLUME = 128
WINDOWS_OF_SLICE = 8
GOLDEN_RATIO = (math.sqrt(5) - 1) / 2


def survey(volume: Volume, scope: str) -> Standardization:
    """Measure mean and standard deviation of a volume from a fixed sample of windows.

    The windows depend on the shape of the volume only, so every run on the same data decides the same. Voxels
    that are exactly 0 count as padding and are left out, unless there is nothing else.

    Parameters
    ----------
    volume
        The intensities.
    scope
        ``volume``: one pair of numbers; ``slice``: one a slice.

    Raises
    ------
    InputError
        If the sample holds values that are not finite.
    """
    grid = Grid(volume.shape, WINDOW)
    if scope == "volume":
        moments = _moments(volume, [grid.block(grid.index(i)) for i in _spread(len(grid), WINDOWS_OF_VOLUME)])
        return Standardization((moments[0],), (moments[1],))
    per_slice = len(grid) // grid.counts[0]
    pairs = []
    for z in range(volume.shape[0]):
        windows = [grid.block(grid.index(z * per_slice + i)) for i in _spread(per_slice, WINDOWS_OF_SLICE)]
        pairs.append(_moments(volume, windows))
    return Standardization(tuple(m for m, _ in pairs), tuple(s for _, s in pairs))


def _spread(count: int, wanted: int) -> Iterator[int]:
    """Yield at most ``wanted`` different numbers below ``count``, evenly spread but in step with no row or column."""
    if count <= wanted:
        return iter(range(count))
    return iter(sorted({int(count * ((i * GOLDEN_RATIO) % 1.0)) for i in range(wanted)}))


def _moments(volume: Volume, windows: list[Block]) -> tuple[float, float]:
    """Return mean and standard deviation over windows; (0, 1) stands in for a constant."""
    count, total, squares = 0, 0.0, 0.0
    fallback = 0.0
    for window in windows:
        values = volume.read(window).ravel()
        fallback = float(values[0])
        values = values[values != 0].astype(np.float64)
        count, total, squares = (
            count + values.size,
            total + float(values.sum()),
            squares + float(np.square(values).sum()),
        )
    if not math.isfinite(total):
        raise InputError(
            f"{volume.address} holds values that are not finite (NaN or infinity), so nothing can be predicted; "
            "replace them, e.g. by 0"
        )
    if not count:
        return fallback, 1.0
    mean = total / count
    deviation = math.sqrt(max(squares / count - mean * mean, 0.0))
    return mean, deviation or 1.0
