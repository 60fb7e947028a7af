"""How many times nnU-Net halves an image, and with what convolutions (Isensee et al. 2021, Nature Methods 18:203).

Of nnU-Net's plan this is the topology of its 2D configuration, which follows from patch and pixel size alone. Patch and
batch themselves are chosen by whoever trains; see docs/nnunet.md.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from vimvol.errors import InputError

Pair = tuple[int, int]

LEAST = 4
"""Pixels along an axis that the coarsest map of a patch has at least."""


@dataclass(frozen=True)
class UNetPlan:
    """The stages of a U-Net, finest first.

    Attributes
    ----------
    strides
        Factors (y, x) by which each stage reduces the map before it; (1, 1) for the first.
    kernels
        Extents (y, x) of the convolutions of each stage.
    features
        Channels of each stage.
    """

    strides: tuple[Pair, ...]
    kernels: tuple[Pair, ...]
    features: tuple[int, ...]

    @property
    def divisor(self) -> int:
        """Multiple that Y and X of an image must have."""
        return max(math.prod(s[axis] for s in self.strides) for axis in (0, 1))


def plan_unet(
    patch: Sequence[int], spacing: Sequence[float] = (1.0, 1.0), features: int = 32, most: int = 512
) -> UNetPlan:
    """Plan the stages for a patch as nnU-Net does.

    An axis is halved as long as `LEAST` pixels are left of it, and where it is not sampled twice as coarsely as the
    other; a single axis only as long as one and a half times as many are left. A kernel spans 3 pixels along an axis
    from the stage on at which it is sampled less than twice as coarsely as the other, 1 before.

    Parameters
    ----------
    patch
        Pixels (y, x) of a training crop.
    spacing
        Extent (y, x) of a pixel, in any unit.
    features, most
        Channels of the first stage, which double at each, and their limit.

    Raises
    ------
    InputError
        If a value is not positive, or the patch is too small to be halved even once.
    """
    values = (*patch, *spacing, features, most)
    if len(patch) != 2 or len(spacing) != 2 or min(values) <= 0:
        raise InputError(
            f"patch={tuple(patch)}, spacing={tuple(spacing)}, features={features}, most={most} plan no network; give "
            "two positive numbers (y, x) each, and positive numbers of channels"
        )
    size, step = list(patch), list(spacing)
    kernel = [1, 1]
    strides, kernels = [(1, 1)], []
    while True:
        axes = [a for a in (0, 1) if size[a] >= 2 * LEAST]
        finest = min((step[a] for a in axes), default=0.0)
        axes = [a for a in axes if step[a] < 2 * finest]
        if not axes or (len(axes) == 1 and size[axes[0]] < 3 * LEAST):
            break
        kernel = [3 if step[a] < 2 * min(step) else kernel[a] for a in (0, 1)]
        kernels.append((kernel[0], kernel[1]))
        factors = [2 if a in axes else 1 for a in (0, 1)]
        strides.append((factors[0], factors[1]))
        size = [-(-s // f) for s, f in zip(size, factors, strict=True)]
        step = [s * f for s, f in zip(step, factors, strict=True)]
    if not kernels:
        raise InputError(f"patch={tuple(patch)} cannot be halved; give at least {3 * LEAST} pixels along an axis")
    kernels.append((3, 3))
    widths = tuple(min(features * 2**stage, most) for stage in range(len(strides)))
    return UNetPlan(tuple(strides), tuple(kernels), widths)
