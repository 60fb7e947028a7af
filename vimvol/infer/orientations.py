"""Orientations of a slice: flips and turns that a network is shown beside the slice as it is, and how to undo them.

A network that was trained on mirrored and turned crops finds the same boundaries in each but for its errors, of which
the mean over orientations has fewer (test-time augmentation).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True)
class Orientation:
    """One of the eight ways to lay a square onto itself.

    Attributes
    ----------
    flipped
        Axes that are mirrored, counted from the end: -2 for rows, -1 for columns.
    transposed
        Whether rows become columns, before axes are mirrored.
    """

    flipped: tuple[int, ...] = ()
    transposed: bool = False

    def show(self, images: torch.Tensor) -> torch.Tensor:
        """Return images (..., Y, X) in this orientation, (..., X, Y) where transposed; in memory as any others."""
        turned = images.transpose(-2, -1) if self.transposed else images
        return turned.flip(self.flipped).contiguous()

    def undo(self, maps: torch.Tensor) -> torch.Tensor:
        """Return maps of images in this orientation as maps (..., Y, X) of the images as they are."""
        back = maps.flip(self.flipped)
        return back.transpose(-2, -1) if self.transposed else back


_FLIPS = tuple(Orientation(flipped) for flipped in ((), (-2,), (-1,), (-2, -1)))

ORIENTATIONS: Mapping[str, tuple[Orientation, ...]] = {
    "none": _FLIPS[:1],
    "flips": _FLIPS,
    "all": (*_FLIPS, *(Orientation(each.flipped, transposed=True) for each in _FLIPS)),
}
"""By the setting ``predict.augment``; as many as a power of two, so that their mean is exact."""
