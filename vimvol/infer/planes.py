"""Planes: a volume cut into slices across one of its axes, or across each of them.

A 2D network that sees slices across z alone misses what runs parallel to them. Where voxels are about as deep as wide,
slices across y and x look the same to it, and the mean of all three is a boundary in 3D. The axes of a slice follow
each other in a cycle, so a volume whose axes are moved on in that cycle gives the same means, moved on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from vimvol.geometry import Block, Index
from vimvol.infer.standardization import Standardization
from vimvol.infer.tiles import Tiling, make_tiling, region_for

if TYPE_CHECKING:  # loads PyTorch, which who only looks at an output can do without
    from vimvol.infer.predictor import Fallbacks, Predictor

ORDERS: dict[str, Index] = {"z": (0, 1, 2), "y": (1, 2, 0), "x": (2, 0, 1)}
"""Axes of the volume (0, 1, 2 for z, y, x) as slices across an axis have them: that axis, rows, columns."""


@dataclass(frozen=True, slots=True)
class Plane:
    """Slices across one axis of a volume.

    Attributes
    ----------
    order
        Axes of the volume as the slices have them, of `ORDERS`.
    tiling
        Tiles of the volume turned into this order.
    """

    order: Index
    tiling: Tiling

    @property
    def axis(self) -> str:
        """The axis that the slices lie across."""
        return "zyx"[self.order[0]]

    @property
    def cell(self) -> Index:
        """Voxels (z, y, x) of a tile."""
        return tuple(self.tiling.grid.cell[i] for i in self._inverse)

    def turn(self, box: Block) -> Block:
        """Return a box (z, y, x) in the order of the slices."""
        return Block(*(tuple(corner[a] for a in self.order) for corner in (box.begin, box.end)))

    def region_for(self, block: Block) -> Block:
        """Return the box (z, y, x) of intensities that a block (z, y, x) is predicted from."""
        region = region_for(self.turn(block), self.tiling)
        return Block(*(tuple(corner[i] for i in self._inverse) for corner in (region.begin, region.end)))

    def turn_array(self, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return a view of an array (z, y, x) in the order of the slices."""
        return array.transpose(self.order)

    def turn_back(self, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return a view (c, z, y, x) of channels in the order of the slices."""
        return array.transpose(0, *(1 + i for i in self._inverse))

    @property
    def _inverse(self) -> Index:
        return tuple(self.order.index(a) for a in (0, 1, 2))


def make_plane(
    axis: str,
    shape: Sequence[int],
    tile: Sequence[int],
    halo: Sequence[int],
    divisor: int,
    scale: Sequence[float] = (1.0, 1.0, 1.0),
) -> Plane:
    """Lay tiles over the slices across an axis.

    Parameters
    ----------
    axis
        A key of `ORDERS`.
    shape
        Voxels (z, y, x) of the volume.
    tile, halo, divisor
        As in `make_tiling`, along rows and columns of a slice.
    scale
        The same, along (z, y, x) of the volume.

    Raises
    ------
    InputError
        If a slice is smaller than the divisor.
    """
    order = ORDERS[axis]
    names = "".join("zyx"[a] for a in order)
    along = [scale[a] for a in order[1:]]
    return Plane(order, make_tiling([shape[a] for a in order], tile, halo, divisor, names, along))


def predict_planes(
    predictor: Predictor,
    raw: npt.NDArray[Any],
    origin: Block,
    block: Block,
    planes: Sequence[Plane],
    standardization: Standardization,
    channels: int,
    fallbacks: Fallbacks | None = None,
    wanted: npt.NDArray[np.bool_] | None = None,
) -> npt.NDArray[np.uint8]:
    """Predict the boundaries of a block from slices across one axis or more, every channel as the mean over these.

    What is averaged are the 8-bit probabilities of each, in integers, so the mean does not depend on their order or on
    how the volume is cut into blocks.

    Parameters
    ----------
    predictor
        The network on its device.
    raw
        (z, y, x) intensities of ``origin``.
    origin
        The box of the volume that ``raw`` holds: at least `Plane.region_for` of the block, for every plane.
    block
        The box to predict.
    planes
        Slices to predict.
    standardization, channels, fallbacks, wanted
        As in `Predictor.predict_block`.

    Raises
    ------
    MemoryError, FloatingPointError
        As `Predictor.predict_block` does.

    Returns
    -------
    numpy.ndarray
        (c, z, y, x) probabilities of the block, 0..255 for 0..1.
    """

    def across(plane: Plane) -> npt.NDArray[np.uint8]:
        part = predictor.predict_block(
            plane.turn_array(raw),
            plane.turn(origin),
            plane.turn(block),
            plane.tiling,
            replace(standardization, axis=plane.order.index(0)),
            channels,
            fallbacks,
            None if wanted is None else plane.turn_array(wanted),
        )
        return plane.turn_back(part)

    if len(planes) == 1:
        return across(planes[0])
    total = np.zeros((channels, *block.shape), np.uint16)
    for plane in planes:
        total += across(plane)
    total += len(planes) // 2
    total //= len(planes)
    return total.astype(np.uint8)
