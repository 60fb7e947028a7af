"""Which intensities of an image are told apart where it is shown."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def span_of(values: NDArray[Any], percent: float = 1.0) -> tuple[float, float]:
    """Return the darkest and the brightest intensity to be shown.

    Parameters
    ----------
    values
        Intensities of any shape; NaN and infinity do not count.
    percent
        Of the intensities, how many are darker, and how many brighter.
    """
    finite = values[np.isfinite(values)]
    low, high = np.percentile(finite, (percent, 100 - percent)) if finite.size else (0.0, 1.0)
    return float(low), float(max(high, low + 1e-6))
