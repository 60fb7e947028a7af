"""From stored intensities to the input of a network."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from vimvol.geometry import Block


@dataclass(frozen=True, slots=True)
class Standardization:
    """Intensities to network input: ``(intensity - mean) / std``.

    Attributes
    ----------
    mean, std
        In units of the stored intensities; one value for the whole volume, or one for every z. Where intensities are
        inverted, ``std`` is negative.
    axis
        Where z is in what is standardised: 0, unless the axes of the volume are turned.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    # How it is looked at is no part of what was measured, which is what keys of stages are made of.
    axis: int = field(default=0, repr=False)

    def inverted(self, span: float = 0.0) -> Standardization:
        """Return what makes bright of dark; ``span``: of the input that stays where it is, 0 where its mean is 0."""
        mean = tuple(m + span * s for m, s in zip(self.mean, self.std, strict=True))
        return Standardization(mean, tuple(-s for s in self.std), self.axis)

    def apply(self, raw: npt.NDArray[Any], box: Block) -> npt.NDArray[np.float32]:
        """Standardise the intensities of a box of the volume; what is not finite is shown as the mean."""
        scaled: npt.NDArray[np.float32] = (raw.astype(np.float32) - self._of(self.mean, box)) / self._of(self.std, box)
        if raw.dtype.kind == "f" and not (finite := np.isfinite(scaled)).all():
            scaled[~finite] = 0
        return scaled

    def _of(self, values: tuple[float, ...], box: Block) -> np.float32 | npt.NDArray[np.float32]:
        """Return the numbers of a box, to be broadcast over it."""
        if len(values) == 1:
            return np.float32(values[0])
        shape = [1] * len(box.shape)
        shape[self.axis] = -1
        return np.array(values[box.begin[self.axis] : box.end[self.axis]], np.float32).reshape(shape)
