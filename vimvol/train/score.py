"""A segmentation score for validation: what the boundaries are worth, not how close they are to a drawing of them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from skimage import measure

from vimvol.config import FragmentsConfig
from vimvol.evaluate.contingency import Contingency
from vimvol.evaluate.metrics import mean_segmentation_accuracy
from vimvol.segment.watershed import fragments_2d

THRESHOLDS = (0.03, 0.06, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5)
"""Boundary probabilities that are tried as the border between inside and boundary."""
SMALL = 25
"""Voxels below which an instance counts as absent, as in `vimvol.evaluate.protocol.score_slice`."""


def slice_accuracies(boundary: NDArray[np.float32], truth: NDArray[Any]) -> NDArray[np.float64]:
    """Segment a slice by flooding its boundaries from the parts that they enclose, and score the instances.

    Where a membrane is hard to see, the network hedges: a probability of .2 may be the only sign that closes a
    neurite. Which threshold serves best is therefore part of what a validation finds out.

    Parameters
    ----------
    boundary
        (y, x) probabilities in [0, 1].
    truth
        (y, x) integers, 0 not judged; the parts of a 3D body that do not touch in the slice count one by one.

    Returns
    -------
    NDArray
        Mean segmentation accuracy over overlaps of .5 to .95, in [0, 1], at each of `THRESHOLDS`; 0 if there is nothing
        to judge.
    """
    stored = np.rint(boundary * 255).astype(np.uint8)
    instances = measure.label(truth, background=0, connectivity=1)  # type: ignore[no-untyped-call]
    scores = []
    for threshold in THRESHOLDS:
        config = FragmentsConfig(dimension="2d", seeds="components", threshold=threshold)
        table = Contingency.from_arrays(fragments_2d(stored, config), instances).without_small(SMALL)
        scores.append(mean_segmentation_accuracy(table) if len(table) else 0.0)
    return np.array(scores)
