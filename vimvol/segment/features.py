"""Features of edges for a classifier, from the tables of edges and fragments alone.

Every feature is computed from the exact sums of its own edge and of its two fragments by operations that IEEE 754
rounds correctly (+, -, *, /, square root), so it is the same to the bit for any blocks, and whatever edges stand beside
it in a table. Sizes are not put on a logarithmic scale: trees do not see the difference, and logarithms are not exact.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vimvol.segment.edges import ACROSS, BINS, HIGHEST, WITHIN, EdgeTable
from vimvol.segment.nodes import NodeTable, merge_nodes

QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9)
"""Quantiles of the boundary probability that are features."""

_WIDTH = (HIGHEST + 2) // BINS
_DIRECTIONS = {"all": (WITHIN, ACROSS), "within": (WITHIN,), "across": (ACROSS,)}


class Features(NamedTuple):
    """Features of edges.

    Attributes
    ----------
    names
        F names.
    values
        (E, F) float64; NaN where an edge has no voxel pair of a direction.
    """

    names: tuple[str, ...]
    values: NDArray[np.float64]


def edge_features(edges: EdgeTable, nodes: NodeTable) -> Features:
    """Return the features of edges.

    Of the boundary probability along an edge, of all its voxel pairs, those within slices and those across slices:
    mean, standard deviation, extremes and `QUANTILES`, all in [0, 1]. Of the contact: ``count``, pairs, and
    ``across_share``, the part of them that lies across slices. Of the two fragments: voxels of the smaller and of the
    larger, ``overlap`` and ``iou``, the area across slices in parts of the smaller fragment and of their union (for
    fragments of single slices those of touching sections), ``gap``, the squared distance of the centres in parts of
    the summed squared radii of gyration, and ``loose``, the lesser and the greater of squared radius to the third
    power in squared voxels, which grows as a fragment departs from a ball.

    Parameters
    ----------
    edges
        E edges.
    nodes
        Fragments, among them both of every edge.

    Raises
    ------
    ValueError
        If a fragment is missing.
    """
    columns: dict[str, NDArray[np.float64]] = {}
    for name, directions in _DIRECTIONS.items():
        columns |= {f"{name}_{key}": value for key, value in _evidence(edges, list(directions)).items()}
    count, across = edges.count.astype(np.float64), edges.counts[ACROSS].astype(np.float64)
    a, b = nodes.find(edges.u), nodes.find(edges.v)
    voxels = nodes.voxels.astype(np.float64)
    smaller, larger = np.minimum(voxels[a], voxels[b]), np.maximum(voxels[a], voxels[b])
    radius = np.trace(nodes.covariance(), axis1=1, axis2=2)
    # a single voxel has an extent, too
    radius = radius + 0.25
    loose = radius * radius * radius / (voxels * voxels)
    centre = nodes.centroid()
    step = centre[:, a] - centre[:, b]
    columns |= {
        "count": count,
        "across_share": across / count,
        "smaller": smaller,
        "larger": larger,
        "overlap": across / smaller,
        "iou": across / (smaller + larger - across),
        "gap": (step[0] * step[0] + step[1] * step[1] + step[2] * step[2]) / (radius[a] + radius[b]),
        "loose_lesser": np.minimum(loose[a], loose[b]),
        "loose_greater": np.maximum(loose[a], loose[b]),
    }
    return Features(tuple(columns), np.stack(list(columns.values()), axis=1))


def feature_names() -> tuple[str, ...]:
    """Return the names of the features that edges have."""
    return edge_features(EdgeTable.empty(), merge_nodes([])).names


def _evidence(edges: EdgeTable, directions: list[int]) -> dict[str, NDArray[np.float64]]:
    """Return statistics (E,) of the boundary probability over the pairs of some directions; NaN without a pair."""
    count = edges.counts[directions].sum(axis=0).astype(np.float64)
    n = np.where(count > 0, count, np.nan)
    mean = edges.totals[directions].sum(axis=0) / n
    variance = edges.squares[directions].sum(axis=0) / n - mean * mean
    lowest = np.where(count > 0, edges.minima[directions].min(axis=0), np.nan)
    highest = np.where(count > 0, edges.maxima[directions].max(axis=0), np.nan)
    # squares and their sums are exact, but a difference of quotients may fall below 0
    result = {"mean": mean, "deviation": np.sqrt(np.maximum(variance, 0)), "lowest": lowest, "highest": highest}
    histogram = edges.histograms[directions].sum(axis=0, dtype=np.int64)
    for q in QUANTILES:
        result[f"quantile_{q * 100:.0f}"] = np.clip(_quantile(histogram, q), lowest, highest)
    return {name: value / HIGHEST for name, value in result.items()}


def _quantile(histogram: NDArray[np.int64], q: float) -> NDArray[np.float64]:
    """Return a quantile (E,) from histograms (BINS, E), as if the values of a bin lay evenly in it."""
    until = np.cumsum(histogram, axis=0)
    rank = q * until[-1]
    at = np.argmax(until >= np.maximum(rank, 1e-9), axis=0)[None]
    inside = np.take_along_axis(histogram, at, axis=0)[0]
    before = np.take_along_axis(until, at, axis=0)[0] - inside
    return np.asarray((at[0] + (rank - before) / np.maximum(inside, 1)) * _WIDTH)
