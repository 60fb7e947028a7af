"""Colours of labels: a function of the id alone, so that a neuron keeps its colour in all slices and pictures."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# OKLab to linear sRGB (Ottosson 2020, "A perceptual color space for image processing"): colours of one lightness in
# it look equally light, so that no segment stands out by chance.
_TO_LMS = np.array(
    [[1.0, 0.3963377774, 0.2158037573], [1.0, -0.1055613458, -0.0638541728], [1.0, -0.0894841775, -1.2914855480]]
)
_TO_RGB = np.array(
    [
        [4.0767416621, -3.3077115913, 0.2309699292],
        [-1.2684380046, 2.6097574011, -0.3413193965],
        [-0.0041960863, -0.7034186147, 1.7076147010],
    ]
)
LIGHTNESS = (0.52, 0.66, 0.80)
CHROMA = (0.12, 0.19)


def label_colours(ids: NDArray[np.uint64]) -> NDArray[np.float32]:
    """Return the colour of every id.

    Parameters
    ----------
    ids
        Any shape; 0 is background.

    Returns
    -------
    array of ``ids.shape + (4,)``
        Red, green, blue and opacity in [0, 1]; background is transparent black, everything else opaque.
    """
    h = _hash(ids)
    hue = (h & np.uint64(0xFFFF)).astype(np.float64) / 65536 * 2 * np.pi
    lightness = np.array(LIGHTNESS)[((h >> np.uint64(16)) % np.uint64(len(LIGHTNESS))).astype(np.intp)]
    chroma = np.array(CHROMA)[((h >> np.uint64(32)) % np.uint64(len(CHROMA))).astype(np.intp)]
    lab = np.stack([lightness, chroma * np.cos(hue), chroma * np.sin(hue)], axis=-1)
    rgb = np.clip((lab @ _TO_LMS.T) ** 3 @ _TO_RGB.T, 0.0, 1.0)
    rgb = np.where(rgb <= 0.0031308, 12.92 * rgb, 1.055 * rgb ** (1 / 2.4) - 0.055)
    colours = np.concatenate([rgb, np.ones((*rgb.shape[:-1], 1))], axis=-1)
    colours[np.asarray(ids) == 0] = 0.0
    return colours.astype(np.float32)


def _hash(ids: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return 64 well-mixed bits for each id (the finalizer of splitmix64), so that neighbouring ids differ."""
    h = np.atleast_1d(ids).astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    h = (h ^ (h >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    h = (h ^ (h >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return (h ^ (h >> np.uint64(31))).reshape(np.shape(ids))
