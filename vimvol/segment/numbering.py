"""Numbers of the fragments of several tiles in one array; compiled."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vimvol.jit import compiled
from vimvol.segment.faces import BITS

_NUMBER = (1 << BITS) - 1


@compiled()
def number_after(stored: NDArray[np.uint32], seen: int, labels: NDArray[np.int64]) -> None:
    """Write the fragments of a tile, numbered on from those seen before.

    Parameters
    ----------
    stored
        (Z, Y, X) uint32, as `vimvol.segment.faces.pack` returns them; 0 is outside.
    seen
        The largest number of the tiles before.
    labels
        int64 of that shape, to be written: ``seen + 1`` on, 0 outside.
    """
    for z in range(stored.shape[0]):
        for y in range(stored.shape[1]):
            row, into = stored[z, y], labels[z, y]
            for x in range(len(row)):
                number = np.int64(row[x]) & _NUMBER
                into[x] = number + seen if number > 0 else 0
