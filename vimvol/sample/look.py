"""How the inside of a specimen looks under its stain: what differs between preparations and microscopes."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from vimvol.errors import InputError

LIMITS = {
    "dark": 1.0,
    "matrix": 255.0,
    "cristae": 2.0,
    "membrane": 160.0,
    "patchy": 2.0,
    "blur": 3.0,
}
"""Largest value of what has a bound of its own; of the others it is `MOST`."""
MOST = 4.0


@dataclass(frozen=True, slots=True)
class Look:
    """Staining, organelles and sharpness of a synthetic volume; the defaults are of ssTEM of *Drosophila*.

    Where nothing else is said, a number is a strength relative to the default: 0 is none, 1 as in that recording.

    Attributes
    ----------
    tones
        How much the cytoplasm of neurites differs in brightness.
    dark
        Share of neurites whose cytoplasm is dark, 0-1.
    texture
        Specks and mottle of the cytoplasm.
    grains
        Contrast of vesicles, microtubules and dense cores.
    crowding
        How many of them there are.
    mitochondria
        How many mitochondria there are.
    matrix
        Grey value of the inside of mitochondria, 0-255; cytoplasm has about 180.
    cristae
        Contrast of the stripes in them.
    membrane
        Grey value of a membrane that is cut at a right angle, 0-160: more is paler.
    patchy
        How much membranes vary in strength along their way.
    thickened
        How many stretches of membrane are thick and dark, as at synapses; 0 by default.
    reticulum
        How much pale membrane runs inside large neurites; 0 by default.
    blur
        Standard deviation of the blur of the picture, in pixels of 4.6 nm.

    Raises
    ------
    InputError
        If a number is negative, too large or not finite.
    """

    tones: float = 1.0
    dark: float = 0.04
    texture: float = 1.0
    grains: float = 1.0
    crowding: float = 1.0
    mitochondria: float = 1.0
    matrix: float = 82.0
    cristae: float = 1.0
    membrane: float = 26.0
    patchy: float = 0.5
    thickened: float = 0.0
    reticulum: float = 0.0
    blur: float = 0.7

    def __post_init__(self) -> None:
        for field in fields(self):
            value, most = getattr(self, field.name), LIMITS.get(field.name, MOST)
            if not (math.isfinite(value) and 0 <= value <= most):
                raise InputError(f"{field.name} of a sample's look is {value}; give a number from 0 to {most:g}")
