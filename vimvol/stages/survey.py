"""Statistics of the intensities, decided once for a run: what standardises the network's input."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence

import numpy as np

from vimvol.errors import InputError
from vimvol.geometry import Block, Grid
from vimvol.infer.standardization import Standardization
from vimvol.io import Volume
from vimvol.io.mask import Mask
from vimvol.stages.region import wanted_voxels

WINDOW = (1, 256, 256)
WINDOWS_OF_VOLUME = 128
WINDOWS_OF_SLICE = 8
LOOKS = 64
"""Windows whose mask is looked at for every one that is wanted."""
GOLDEN_RATIO = (math.sqrt(5) - 1) / 2


def survey(volume: Volume, scope: str, roi: Block | None = None, mask: Mask | None = None) -> Standardization:
    """Measure mean and standard deviation of a volume from a fixed sample of windows.

    The windows depend on the shape of the volume, region and mask only, so every run on the same data decides the
    same. Voxels that are exactly 0 count as padding and are left out, unless there is nothing else; values that are not
    finite are left out in any case.

    Parameters
    ----------
    volume
        The intensities.
    scope
        ``volume``: one pair of numbers; ``slice``: one a slice of the volume; (0, 1) for slices outside the region.
    roi, mask
        Voxels outside do not count and, as far as whole windows lie outside, are not read; none: all count.

    Raises
    ------
    InputError
        If no value of the sample is finite.
    """
    region = Block.whole(volume.shape) if roi is None else roi
    grid = Grid(region.shape, WINDOW)

    def windows(first: int, count: int, wanted: int) -> list[Block]:
        draws = wanted if mask is None else wanted * LOOKS
        places = range(count) if count <= wanted else spread(count, draws)
        found = (grid.block(grid.index(first + i)).moved(region.begin) for i in places)
        seen = (w for w in found if mask is None or wanted_voxels(None, mask, w).any())
        return sorted(itertools.islice(seen, wanted))

    if scope == "volume":
        found = [_moments(volume, windows(0, len(grid), WINDOWS_OF_VOLUME), mask)]
        mean, std = _known(volume, found)[0]
        return Standardization((mean,), (std,))
    per_slice = len(grid) // grid.counts[0]
    slices = range(0, len(grid), per_slice)
    found = [_moments(volume, windows(first, per_slice, WINDOWS_OF_SLICE), mask) for first in slices]
    pairs = [(0.0, 1.0)] * volume.shape[0]
    pairs[region.begin[0] : region.end[0]] = _known(volume, found)
    return Standardization(tuple(m for m, _ in pairs), tuple(s for _, s in pairs))


def _known(volume: Volume, found: Sequence[tuple[float, float] | None]) -> list[tuple[float, float]]:
    """Return moments with (0, 1) in place of none, unless there is nothing else."""
    if found.count(None) == len(found):
        raise InputError(
            f"{volume.address} holds no finite value where it was looked at, only NaN and infinity, so nothing can be "
            "predicted; check how it was written"
        )
    return [(0.0, 1.0) if each is None else each for each in found]


def spread(count: int, draws: int) -> Iterator[int]:
    """Yield different numbers below ``count``, at any time evenly spread but in step with no row or column."""
    return iter(dict.fromkeys(int(count * ((i * GOLDEN_RATIO) % 1.0)) for i in range(draws)))


def _moments(volume: Volume, windows: list[Block], mask: Mask | None) -> tuple[float, float] | None:
    """Return mean and standard deviation over windows, 1 for that of a constant; none where there is no number."""
    count, total, squares = 0, 0.0, 0.0
    fallback: float | None = None
    for window in windows:
        values = volume.read(window)
        values = values.ravel() if mask is None else values[wanted_voxels(None, mask, window)]
        if values.dtype.kind == "f":
            values = values[np.isfinite(values)]
        if not values.size:
            continue
        fallback = float(values[0])
        values = values[values != 0].astype(np.float64)
        count, total, squares = (
            count + values.size,
            total + float(values.sum()),
            squares + float(np.square(values).sum()),
        )
    if fallback is None:
        return None
    if not count:
        return fallback, 1.0
    mean = total / count
    deviation = math.sqrt(max(squares / count - mean * mean, 0.0))
    return mean, deviation or 1.0
