"""Statistics of the intensities, decided once for a run: what standardises the network's input."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

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
WALKED = 1 << 30
"""Voxels of a mask up to which all of it is read rather than looked at window by window; the outcome is the same."""
GOLDEN_RATIO = (math.sqrt(5) - 1) / 2


def survey(
    volume: Volume, scope: str, roi: Block | None = None, mask: Mask | None = None, missing: float | None = 0
) -> Standardization:
    """Measure mean and standard deviation of a volume from a fixed sample of windows.

    The windows depend on the shape of the volume, region and mask only, so every run on the same data decides the
    same. Voxels of the missing value count as padding and are left out, unless there is nothing else; values that are
    not finite are left out in any case.

    Parameters
    ----------
    volume
        The intensities.
    scope
        ``volume``: one pair of numbers; ``slice``: one a slice of the volume; (0, 1) for slices outside the region.
    roi, mask
        Voxels outside do not count and, as far as whole windows lie outside, are not read; none: all count.
    missing
        Intensity of voxels without data; none: there is no such intensity.

    Raises
    ------
    InputError
        If no voxel is wanted, or no value of the sample is finite.
    """
    region = Block.whole(volume.shape) if roi is None else roi
    grid = Grid(region.shape, WINDOW)
    walked = mask is not None and math.prod(mask.volume.shape) <= WALKED

    @functools.cache
    def touched() -> npt.NDArray[np.int64]:
        return np.zeros(0, np.int64) if mask is None else mask.touched(region, WINDOW)

    def chosen(numbers: Iterable[int], wanted: int) -> list[Block]:
        found = (grid.block(grid.index(number)).moved(region.begin) for number in numbers)
        seen = (w for w in found if mask is None or wanted_voxels(None, mask, w).any())
        return sorted(itertools.islice(seen, wanted))

    def windows(first: int, count: int, wanted: int) -> list[Block]:
        draws = wanted if mask is None else wanted * LOOKS
        numbers = np.array([first + i for i in (range(count) if count <= wanted else spread(count, draws))])
        if walked:
            numbers = numbers[np.isin(numbers, touched())]
        found = chosen(numbers.tolist(), wanted)
        if mask is None or count <= wanted or len(found) == wanted:
            return found
        # so little is wanted that most looks are in vain
        begin, end = np.searchsorted(touched(), (first, first + count))
        there = touched()[begin:end].tolist()
        return chosen(there if len(there) <= wanted else (there[i] for i in spread(len(there), draws)), wanted)

    if scope == "volume":
        sample = [windows(0, len(grid), WINDOWS_OF_VOLUME)]
    else:
        per_slice = len(grid) // grid.counts[0]
        sample = [windows(first, per_slice, WINDOWS_OF_SLICE) for first in range(0, len(grid), per_slice)]
    if mask is not None and not any(sample):
        raise InputError(
            f"mask {mask.volume.address} is 0 wherever {volume.address} could be segmented, so nothing would be; "
            "correct it, or input.roi"
        )
    found = _known(volume, [_moments(volume, each, mask, missing) for each in sample])
    if scope == "volume":
        return Standardization((found[0][0],), (found[0][1],))
    pairs = [(0.0, 1.0)] * volume.shape[0]
    pairs[region.begin[0] : region.end[0]] = found
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


def _moments(
    volume: Volume, windows: list[Block], mask: Mask | None, missing: float | None
) -> tuple[float, float] | None:
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
        values = values[values != missing].astype(np.float64) if missing is not None else values.astype(np.float64)
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
