"""How a segmentation is scored: what is ignored, filled and averaged before the metrics.

Two protocols, for instances of slices and for bodies in a volume. Both leave out the voxels that the ground
truth does not label, unless label 0 is a background that somebody annotated, as between the cells of an image.
"""

from __future__ import annotations

from collections.abc import Collection

import bioimage_cpp as bic
import numpy as np
from numpy.typing import NDArray

from vimvol.errors import InputError
from vimvol.evaluate.contingency import Contingency
from vimvol.evaluate.fill import fill_background
from vimvol.evaluate.metrics import METRICS

PARTITION_METRICS = ("voi_split", "voi_merge", "adapted_rand", "cremi")
"""Metrics that compare partitions."""

OBJECT_METRICS = ("mean_segmentation_accuracy", "sa50", "sa75")
"""Metrics that compare objects."""

SMALL = {"ignore": 25, "keep": 0}
"""Voxels below which an object of a slice does not count, by what becomes of label 0 of the ground truth: ``ignore``,
nobody annotated it, so its voxels are left out; ``keep``, it is background, so its voxels count."""


def score_slices(
    seg: NDArray[np.integer], gt: NDArray[np.integer], min_size: int | None = None, background: str = "ignore"
) -> dict[str, float]:
    """Score the instances of slices: the mean over slices of every metric.

    Voxels where the ground truth is 0 are left out: a dense segmentation would otherwise lose accuracy for every
    membrane that it gives to a neighbour. For the metrics of objects, ground-truth objects below ``min_size`` are
    left out as well, and segments below ``min_size`` in the rest are background.

    With ``background="keep"`` every voxel counts, also where the ground truth is 0: a segment there is false, and
    what a segment covers of it enters the intersections over union. Background itself is no object. That is the
    accuracy that the ViM-UNet paper (Archit & Pape 2024) takes from elf, for images of cells.

    Parameters
    ----------
    seg, gt
        (Z, Y, X) integers; a label means nothing beyond its slice. Slices without ground truth are left out.
    min_size
        Voxels; none: that of `SMALL`.
    background
        Key of `SMALL`.

    Returns
    -------
    dict
        The names of `vimvol.evaluate.metrics.METRICS`.

    Raises
    ------
    InputError
        If the shapes do not fit or no slice has a ground truth.
    """
    _check(seg, gt)
    left_out = (0,) if background == "ignore" else ()
    small = SMALL[background] if min_size is None else min_size
    tables = [Contingency.from_arrays(a, b, left_out) for a, b in zip(seg, gt, strict=True)]
    scores = [score_slice(table, small) for table in tables if len(table)]
    if not scores:
        raise InputError(f"ground truth of {len(gt)} slices is 0 everywhere, so nothing can be scored; give labels")
    return {name: float(np.mean([score[name] for score in scores])) for name in METRICS}


def score_slice(table: Contingency, min_size: int = SMALL["ignore"]) -> dict[str, float]:
    """Score one slice from its table; see `score_slices`.

    Parameters
    ----------
    table
        Of the slice, without the voxels that do not count.
    min_size
        Voxels.

    Raises
    ------
    InputError
        If the table is empty.
    """
    scores = {name: METRICS[name](table) for name in PARTITION_METRICS}
    objects = table.without_small(min_size)
    return scores | {name: METRICS[name](objects) if len(objects) else 0.0 for name in OBJECT_METRICS}


def score_volume(
    seg: NDArray[np.integer], gt: NDArray[np.integer], band: int = 0, ignore_gt: Collection[int] = (0,)
) -> dict[str, float]:
    """Score the bodies of a volume by variation of information, adapted Rand error and CREMI score.

    Background of the segmentation (0) takes the nearest label. A ``band`` of 2 leaves out the voxels at boundaries
    of the ground truth, where annotators do not agree; without it, the placing of boundaries alone costs about .3 +
    .3 bits.

    Parameters
    ----------
    seg, gt
        (Z, Y, X) integers.
    band
        Voxels nearer than this to a boundary of the ground truth in their slice are left out; see `boundary_band`.
    ignore_gt
        Labels of the ground truth that are left out; their borders count as boundaries.

    Returns
    -------
    dict
        The names of `PARTITION_METRICS`.

    Raises
    ------
    InputError
        If the shapes do not fit or nothing is left to score.
    """
    _check(seg, gt)
    table = volume_table(fill_background(seg), gt, band, ignore_gt)
    return {name: METRICS[name](table) for name in PARTITION_METRICS}


def volume_table(
    seg: NDArray[np.integer], gt: NDArray[np.integer], band: int = 0, ignore_gt: Collection[int] = (0,)
) -> Contingency:
    """Return the table that `score_volume` scores; tables of disjoint blocks merge exactly.

    Parameters
    ----------
    seg
        (Z, Y, X) integers, background filled.
    gt, band, ignore_gt
        As in `score_volume`. Boundaries are those within the array: cut a block out behind `judged`, not before it.
    """
    return Contingency.from_arrays(seg, judged(gt, band, ignore_gt))


def judged(gt: NDArray[np.integer], band: int = 0, ignore_gt: Collection[int] = (0,)) -> NDArray[np.integer]:
    """Return the ground truth with 0 where it is not judged: ignored labels, and the band along boundaries.

    Parameters
    ----------
    gt
        (Z, Y, X) integers.
    band, ignore_gt
        As in `score_volume`; label 0 is never judged.
    """
    span = np.iinfo(gt.dtype)
    held = sorted(label for label in ignore_gt if label and span.min <= label <= span.max)  # others cannot occur
    result = np.where(np.isin(gt, np.array(held, gt.dtype)), 0, gt) if held else gt.copy()
    if band > 0:
        for kept, objects in zip(result, gt, strict=True):
            kept[boundary_band(objects, band)] = 0
    return np.asarray(result)


def boundary_band(gt: NDArray[np.integer], width: int) -> NDArray[np.bool_]:
    """Find the voxels of a slice nearer than ``width`` voxels to a boundary of the ground truth.

    Parameters
    ----------
    gt
        (Y, X) integers. Boundary voxels are those with another label, 0 included, among their 4 neighbours.
    width
        Voxels; 1 takes the boundary voxels themselves, 0 nothing.

    Returns
    -------
    numpy.ndarray
        (Y, X) bool.
    """
    edge = np.zeros(gt.shape, bool)
    vertical, horizontal = gt[1:] != gt[:-1], gt[:, 1:] != gt[:, :-1]
    edge[1:] |= vertical
    edge[:-1] |= vertical
    edge[:, 1:] |= horizontal
    edge[:, :-1] |= horizontal
    if width <= 0 or not edge.any():
        return np.zeros(gt.shape, bool)
    return np.asarray(bic.distance.distance_transform(~edge, number_of_threads=1) < width)


def _check(seg: NDArray[np.integer], gt: NDArray[np.integer]) -> None:
    if seg.ndim != 3 or seg.shape != gt.shape:
        raise InputError(
            f"segmentation of shape {seg.shape} and ground truth of shape {gt.shape} cannot be compared; "
            "give two volumes (z, y, x) of one shape"
        )
    for name, labels in (("segmentation", seg), ("ground truth", gt)):
        if labels.dtype.kind not in "iu":
            raise InputError(f"{name} of dtype {labels.dtype} holds no labels, which are integers; convert it")
