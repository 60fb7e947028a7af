"""Metrics of a segmentation, each a function of the contingency table.

``voi_split``, ``voi_merge``, ``adapted_rand`` and ``cremi`` compare partitions: every label, 0 included, is a
segment. The accuracies compare objects: 0 is background on both sides.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import maximum_bipartite_matching

from vimvol.errors import InputError
from vimvol.evaluate.contingency import Contingency

Metric = Callable[[Contingency], float]

# Formed like this because .6 and .7 come out one bit above the decimal, as everywhere that the metric is computed.
IOU_THRESHOLDS = np.arange(0.5, 1.0, 0.05)
"""Intersections over union at which the mean segmentation accuracy counts matches."""


def voi_split(table: Contingency) -> float:
    """Return the false splits in bits, H(segmentation | ground truth), lower is better (Meila 2007).

    Raises
    ------
    InputError
        If the table is empty.
    """
    _require_voxels(table)
    return max(_entropy(table.count) - _entropy(table.gt_sizes()[1]), 0.0)


def voi_merge(table: Contingency) -> float:
    """Return the false merges in bits, H(ground truth | segmentation), lower is better (Meila 2007).

    Raises
    ------
    InputError
        If the table is empty.
    """
    _require_voxels(table)
    return max(_entropy(table.count) - _entropy(table.seg_sizes()[1]), 0.0)


def adapted_rand(table: Contingency) -> float:
    """Return the adapted Rand error, 1 - F-score of voxel pairs, in [0, 1] (Arganda-Carreras et al. 2015).

    As in the CREMI challenge, a voxel also forms a pair with itself.

    Raises
    ------
    InputError
        If the table is empty.
    """
    _require_voxels(table)
    both = _sum_of_squares(table.count)
    precision = both / _sum_of_squares(table.seg_sizes()[1])
    recall = both / _sum_of_squares(table.gt_sizes()[1])
    return max(1 - 2 * precision * recall / (precision + recall), 0.0)


def cremi(table: Contingency) -> float:
    """Return the CREMI score, the geometric mean of the variation of information and the adapted Rand error.

    Raises
    ------
    InputError
        If the table is empty.
    """
    return math.sqrt(adapted_rand(table) * (voi_split(table) + voi_merge(table)))


def segmentation_accuracy(table: Contingency, iou: float) -> float:
    """Return TP / (TP + FP + FN), objects matched one to one where their intersection over union reaches a threshold.

    The definition of the Data Science Bowl 2018 (Caicedo et al. 2019).

    Parameters
    ----------
    table
        Label 0 is background on both sides.
    iou
        Intersection over union, at least 0.5.

    Returns
    -------
    float
        In [0, 1]; 0 where there is no match, also if neither side has an object.

    Raises
    ------
    InputError
        If the table is empty.
    """
    _require_voxels(table)
    return _accuracy(*_overlaps(table), iou)


def mean_segmentation_accuracy(table: Contingency) -> float:
    """Return the mean `segmentation_accuracy` over intersections over union of .5, .55 ... .95.

    Raises
    ------
    InputError
        If the table is empty.
    """
    _require_voxels(table)
    overlaps, n_seg, n_gt = _overlaps(table)
    return float(np.mean([_accuracy(overlaps, n_seg, n_gt, iou) for iou in IOU_THRESHOLDS]))


def sa50(table: Contingency) -> float:
    """Return the `segmentation_accuracy` at an intersection over union of .5."""
    return segmentation_accuracy(table, 0.5)


def sa75(table: Contingency) -> float:
    """Return the `segmentation_accuracy` at an intersection over union of .75."""
    return segmentation_accuracy(table, 0.75)


METRICS: dict[str, Metric] = {
    "voi_split": voi_split,
    "voi_merge": voi_merge,
    "adapted_rand": adapted_rand,
    "cremi": cremi,
    "mean_segmentation_accuracy": mean_segmentation_accuracy,
    "sa50": sa50,
    "sa75": sa75,
}


def _require_voxels(table: Contingency) -> None:
    if len(table) == 0:
        raise InputError(
            "0 voxels are labelled in the ground truth, so nothing can be scored; give one with labels above 0"
        )


def _entropy(counts: NDArray[np.int64]) -> float:
    """Return the entropy in bits of a distribution given by counts."""
    share = counts / counts.sum()
    return -math.fsum(share * np.log2(share))


def _sum_of_squares(counts: NDArray[np.int64]) -> float:
    # in float64: the square of 10^10 voxels exceeds 64 bits
    return math.fsum(counts.astype(np.float64) ** 2)


def _overlaps(table: Contingency) -> tuple[coo_array, int, int]:
    """Return the sparse intersections over union (segments, objects) without background, and both numbers."""
    segments, seg_sizes = table.seg_sizes()
    objects, gt_sizes = table.gt_sizes()
    row = np.searchsorted(segments, table.seg)
    column = np.searchsorted(objects, table.gt)
    iou = table.count / (seg_sizes[row] + gt_sizes[column] - table.count)
    both = (table.seg > 0) & (table.gt > 0)
    shape = (len(segments), len(objects))
    overlaps = coo_array((iou[both], (row[both], column[both])), shape=shape)
    return overlaps, int((segments > 0).sum()), int((objects > 0).sum())


def _accuracy(overlaps: coo_array, n_seg: int, n_gt: int, iou: float) -> float:
    match = overlaps.data >= iou
    rows, columns = overlaps.coords[0][match], overlaps.coords[1][match]
    found = int(match.sum())
    if found and (len(np.unique(rows)) < found or len(np.unique(columns)) < found):
        # only an intersection over union of exactly one half leaves a choice
        graph = coo_array((np.ones(found, bool), (rows, columns)), shape=overlaps.shape).tocsr()
        found = int((maximum_bipartite_matching(graph, perm_type="column") >= 0).sum())
    return found / (n_seg + n_gt - found) if found else 0.0
