"""Colours of labels: a function of the id alone, so that a neuron keeps its colour in all slices and pictures.

Segments that touch often have ids that are near each other, as ids are given in the order of the volume; so it is ids
near each other that get colours far apart, better than by chance.
"""

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
LIGHTNESS = (0.45, 0.53, 0.85, 0.61, 0.69, 0.77)
"""Of an id and the five after it, over and over. The order was searched for: of any 32 ids in a row no two are nearer
than 0.049 in OKLab, and of any 9 none nearer than 0.075."""
CHROMA = 0.17
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
"""2^64 / 1.618...: multiples of the golden ratio, modulo 1, spread over the circle of hues as evenly as can be."""


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
    numbers = np.asarray(ids, np.uint64)
    hue = (
        (np.multiply(numbers, _GOLDEN) >> np.uint64(11)).astype(np.float64) / 2**53 * 2 * np.pi
    )  # modulo 2^64 is wanted
    lightness = np.array(LIGHTNESS)[(numbers % np.uint64(len(LIGHTNESS))).astype(np.intp)]
    lab = np.stack([lightness, CHROMA * np.cos(hue), CHROMA * np.sin(hue)], axis=-1)
    rgb = np.clip((lab @ _TO_LMS.T) ** 3 @ _TO_RGB.T, 0.0, 1.0)
    rgb = np.where(rgb <= 0.0031308, 12.92 * rgb, 1.055 * rgb ** (1 / 2.4) - 0.055)
    colours = np.concatenate([rgb, np.ones((*rgb.shape[:-1], 1))], axis=-1)
    colours[numbers == 0] = 0.0
    return colours.astype(np.float32)
