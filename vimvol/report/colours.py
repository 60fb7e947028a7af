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
LIGHTNESS = (0.404, 0.792)
"""Of the darkest and the lightest."""
CHROMA = 0.13
_HUE, _LIGHT = np.uint64(0xC5BC9A011226D801), np.uint64(0x925B7D99AC0A1801)
"""Steps, of 2^64, from an id to the next on the circle of hues and in lightness, where darkest follows lightest.
With the two, a hue that comes again has another lightness. Steps, lightness and chroma were searched for: in OKLab no
two ids are nearer than 0.083 up to 8 apart, 0.053 up to 31 and 0.014 up to 500, so that no column of segments that are
numbered row by row has one colour. The price is beyond: 558 apart it may be 0.004."""


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
    # modulo 2^64 is wanted
    turn, rise = ((np.multiply(numbers, s) >> np.uint64(11)).astype(np.float64) / 2**53 for s in (_HUE, _LIGHT))
    hue, lightness = 2 * np.pi * turn, LIGHTNESS[0] + (LIGHTNESS[1] - LIGHTNESS[0]) * rise
    lab = np.stack([lightness, CHROMA * np.cos(hue), CHROMA * np.sin(hue)], axis=-1)
    rgb = np.clip((lab @ _TO_LMS.T) ** 3 @ _TO_RGB.T, 0.0, 1.0)
    rgb = np.where(rgb <= 0.0031308, 12.92 * rgb, 1.055 * rgb ** (1 / 2.4) - 0.055)
    colours = np.concatenate([rgb, np.ones((*rgb.shape[:-1], 1))], axis=-1)
    colours[numbers == 0] = 0.0
    return colours.astype(np.float32)
