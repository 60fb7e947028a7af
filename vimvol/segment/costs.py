"""Edge costs of the multicut from probabilities of a cut."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_SMALLEST = 0.001

ACROSS_WEIGHT = 1.5
"""What edges across sections weigh, in square roots of their overlap; chosen on FIB-25 and the ventral nerve cord, see
docs/agglomeration-quality.md."""


def edge_costs(
    mean: NDArray[np.float64],
    size: NDArray[np.integer] | NDArray[np.floating],
    beta: float | NDArray[np.float64] = 0.5,
    size_weighting: bool = True,
) -> NDArray[np.float64]:
    """Turn the probability that an edge is to be cut into its cost: positive attracts, negative repels.

    The cost is the log-likelihood ratio of joining to cutting, ``log((1 - p) / p) + log((1 - beta) / beta)``, of
    Andres et al. (2012), "Globally optimal closed-surface segmentation for connectomics", ECCV. With size weighting
    it is multiplied by the number of voxel pairs, the likelihood of independent pairs; Beier et al. (2017), "Multicut
    brings automated neurite segmentation closer to human performance", Nature Methods 14:101, divide that by the
    size of the largest edge, which scales all costs alike and so changes no solution, but would make a cost depend on
    the rest of the volume.

    Parameters
    ----------
    mean
        (E,) probability in [0, 1]; clipped to [0.001, 0.999].
    size
        (E,) number of voxel pairs, at least 1, or another weight.
    beta
        Prior probability of a cut, in (0, 1), of all edges or (E,) of each.
    size_weighting
        Whether larger edges weigh more.

    Returns
    -------
    numpy.ndarray
        (E,) float64.

    Raises
    ------
    ValueError
        If ``beta`` lies outside (0, 1).
    """
    if not (np.min(beta, initial=0.5) > 0 and np.max(beta, initial=0.5) < 1):
        raise ValueError(f"beta = {beta} is no probability between 0 and 1")
    p = np.clip(np.asarray(mean, np.float64), _SMALLEST, 1 - _SMALLEST)
    cost = np.log((1 - p) / p) + np.log((1 - beta) / beta)
    if size_weighting:
        cost *= size
    return np.asarray(cost)


def weights_across(overlap: NDArray[np.integer]) -> NDArray[np.float64]:
    """Return what the costs of edges between neighbouring sections are to be multiplied by.

    Voxel pairs within a section are as many as the contact is long, those across sections as the overlap is large. Were
    both taken as they are, a fragment that lies over two others would attract them more than any membrane between them
    could part them. So an edge across weighs what a length of the size of its overlap does: `ACROSS_WEIGHT` times the
    square root.

    Parameters
    ----------
    overlap
        (E,) number of voxel pairs, at least 1.
    """
    return np.asarray(ACROSS_WEIGHT * np.sqrt(overlap))


def cut_across(
    mean: NDArray[np.float64], overlap: NDArray[np.integer], smaller: NDArray[np.integer]
) -> NDArray[np.float64]:
    """Return the probability that profiles of neighbouring sections belong to different neurites.

    Boundaries alone do not tell: sections are far apart and never aligned well, so that a profile lies in part over
    the inside of other neurites, where boundaries are low. That two are one takes both, no boundary between them and
    that they lie over each other: ``1 - (1 - mean) * (overlap / smaller) ** (1 / 4)``, where the square root of areas
    makes lengths of them, and that of lengths lets overlap weigh half as much as boundaries.

    Parameters
    ----------
    mean
        (E,) mean boundary probability of the voxel pairs, in [0, 1].
    overlap
        (E,) number of voxel pairs, the area of one over the other.
    smaller
        (E,) voxels of the smaller of the two.
    """
    return np.asarray(1 - (1 - mean) * np.sqrt(np.sqrt(overlap / smaller)))
