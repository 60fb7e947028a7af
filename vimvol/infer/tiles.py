"""Tiles of a slice: the boxes of one forward pass each, anchored to the volume.

A tile is predicted from its window, the tile and a halo of context. What the window shows beyond the edge of the
slice is mirrored. Neither depends on the block that is being computed, so neighbouring blocks agree to the byte.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from vimvol.errors import InputError
from vimvol.geometry import Block, Grid, Index, round_up


@dataclass(frozen=True, slots=True)
class Tiling:
    """How slices are cut into tiles.

    Attributes
    ----------
    grid
        Tiles of the volume, (1, y, x) voxels each.
    window
        Voxels (y, x) that the network sees for a tile, a multiple of its divisor.
    before
        Voxels (y, x) of the window before the begin of the tile.
    shown
        Voxels (y, x) that the window is resampled to for the network, a multiple of its divisor, too; none: it is shown
        as it is.
    """

    grid: Grid
    window: Index
    before: Index
    # Keys of stages name it by itself, where there is one.
    shown: Index | None = field(default=None, repr=False)

    def window_of(self, index: Sequence[int]) -> Block:
        """Return the window of a tile as a box (1, y, x) that may lie partly outside the volume."""
        begin = tuple(i * c for i, c in zip(index, self.grid.cell, strict=True))
        y, x = (b - h for b, h in zip(begin[1:], self.before, strict=True))
        return Block((begin[0], y, x), (begin[0] + 1, y + self.window[0], x + self.window[1]))


def make_tiling(
    shape: Sequence[int],
    tile: Sequence[int],
    halo: Sequence[int],
    divisor: int,
    axes: str = "zyx",
    scale: Sequence[float] = (1.0, 1.0),
) -> Tiling:
    """Lay tiles over the slices of a volume.

    Along an axis that fits one window the whole axis is one tile, without a seam; a longer one is cut into tiles of
    the configured size.

    Parameters
    ----------
    shape
        Voxels (z, y, x) of the volume.
    tile
        Voxels (y, x) of a tile.
    halo
        Voxels (y, x) of context on every side of it, at least.
    divisor
        Multiple that the network needs the window to have.
    axes
        Names of the axes, for messages; others where slices lie across another axis than z.
    scale
        Voxels (y, x) that the network is to see in place of one, as nearly as its divisor allows. The halo is at least
        as wide in these, too.

    Raises
    ------
    InputError
        If a slice is smaller than the divisor, too small to say anything about.
    """
    cell, window, before, shown = [], [], [], []
    for axis, extent, t, h, s in zip(axes[1:], shape[1:], tile, halo, scale, strict=True):
        reach = math.ceil(h / min(s, 1.0))
        if extent < divisor:
            raise InputError(
                f"the volume has {extent} voxels along {axis} (shape {tuple(shape)} in {', '.join(axes)}), less than "
                f"the {divisor} that the network needs, so no boundary can be predicted; give a larger volume or other "
                "axes"
            )
        single = extent <= round_up(t + 2 * reach, divisor)
        c = extent if single else t
        # Two coarsest points at least: a single one has no statistics to normalise by.
        w = max(round_up(c, divisor), 2 * divisor) if single else round_up(c + 2 * reach, divisor)
        cell.append(c)
        window.append(w)
        before.append((w - c) // 2)
        shown.append(max(round(w * s / divisor), 2) * divisor)
    resampled = any(s != 1 for s in scale)
    return Tiling(Grid(tuple(shape), (1, *cell)), tuple(window), tuple(before), tuple(shown) if resampled else None)


def cut_mirrored(region: npt.NDArray[Any], origin: Block, window: Block) -> npt.NDArray[Any]:
    """Cut a window out of a region of the volume, mirroring what lies outside.

    Parameters
    ----------
    region
        (y, x) intensities of one slice; it ends where the volume ends on every side where the window goes beyond it.
    origin
        The box (1, y, x) of the volume that ``region`` holds.
    window
        The box (1, y, x) to cut; may lie partly outside of ``origin``.

    Returns
    -------
    numpy.ndarray
        (y, x) of the window's shape.
    """
    inside = window.intersect(origin)
    part = region[inside.within(origin).slices[1:]]
    pad = [(i - w, v - e) for w, i, e, v in zip(window.begin, inside.begin, inside.end, window.end, strict=True)][1:]
    return np.pad(part, pad, mode="reflect") if any(map(any, pad)) else part


def region_for(block: Block, tiling: Tiling) -> Block:
    """Return the box of the volume that holds the windows of all tiles of a block, clipped to the volume."""
    windows = [tiling.window_of(index) for index in _corner_tiles(block, tiling)]
    begin = (block.begin[0], *(min(w.begin[a] for w in windows) for a in (1, 2)))
    end = (block.end[0], *(max(w.end[a] for w in windows) for a in (1, 2)))
    return Block(begin, end).clip(tiling.grid.shape)


def _corner_tiles(block: Block, tiling: Tiling) -> Iterator[Index]:
    """Yield the first and the last tile of a block."""
    cell = tiling.grid.cell
    yield tuple(b // c for b, c in zip(block.begin, cell, strict=True))
    yield tuple((e - 1) // c for e, c in zip(block.end, cell, strict=True))
