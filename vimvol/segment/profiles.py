"""Profiles: fragments of a section that boundaries alone join, before they are held against the next section.

A watershed cuts the profile of a neurite, what a section shows of it, into fragments. How far one of these lies over a
fragment of the next section tells little, since both may be any part of their profile. How far profiles lie over each
other tells whether they are of one neurite.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from vimvol.pairs import Pairs
from vimvol.segment.costs import cut_across, edge_costs, weights_across
from vimvol.segment.edges import ACROSS, HIGHEST, EdgeTable
from vimvol.segment.multicut.solvers import solve

BOND = 2.0**22
"""Cost of an edge within a profile, above all that could pull its fragments apart: a profile that fills a tile of 512 x
512 voxels, over fragments of 25 voxels in both sections beside, has a third of it in edges."""


@dataclass(frozen=True, slots=True, eq=False)
class Profiles:
    """Fragments of single sections, ascending by id, and the profiles that they are parts of.

    Attributes
    ----------
    fragment
        (N,) uint64, ids above 0.
    profile
        (N,) uint64, below N: equal for the parts of a profile.
    voxels
        (N,) int64, of the whole profile.
    """

    fragment: NDArray[np.uint64]
    profile: NDArray[np.uint64]
    voxels: NDArray[np.int64]


def join_profiles(
    fragment: NDArray[np.uint64],
    voxels: NDArray[np.int64],
    tile: NDArray[np.int64],
    tables: Iterable[EdgeTable],
    prior: float,
    size_weighting: bool = True,
) -> Profiles:
    """Join the fragments of a section to profiles, each watershed tile by itself, by greedy additive multicut.

    A profile so does not depend on what is looked at besides. A neurite that is cut by the face of a tile is several
    profiles, as it is in the next section.

    Parameters
    ----------
    fragment
        (N,) ids above 0, ascending.
    voxels
        (N,) of every fragment.
    tile
        (N,) the tile that each lies in, ascending.
    tables
        Edges; all of a tile within its sections stand in one table, what else there is of them is not looked at.
    prior
        Of a cut, in (0, 1]; 1 joins nothing.
    size_weighting
        Whether longer contacts weigh more.
    """
    profile = np.arange(len(fragment), dtype=np.uint64)
    for table in tables if prior < 1 else ():
        u, v = (np.searchsorted(fragment, end).clip(max=len(fragment) - 1) for end in (table.u, table.v))
        known = (fragment[u] == table.u) & (fragment[v] == table.v)
        inside = np.flatnonzero(known & (table.counts[ACROSS] == 0) & (tile[u] == tile[v]))
        u, v, home = u[inside], v[inside], tile[u[inside]]
        costs = edge_costs(table.mean()[inside], table.count[inside], prior, size_weighting)
        # edges are sorted by their first fragment, and so by tile
        for first, last in pairwise([0, *np.flatnonzero(np.diff(home)) + 1, len(home)]):
            if first < last:
                low, high = np.searchsorted(tile, home[first]), np.searchsorted(tile, home[first], side="right")
                uv = np.stack([u[first:last], v[first:last]], axis=1) - low
                groups = solve(int(high - low), uv.astype(np.uint64), costs[first:last], "greedy")
                profile[low:high] = groups + np.uint64(low)
    sums = np.bincount(profile.astype(np.int64), voxels, len(profile))  # the oldest NumPy that will do counts no uint64
    return Profiles(fragment, profile, sums.astype(np.int64)[profile])


def section_costs(
    table: EdgeTable, profiles: Profiles, beta: float, beta_across: float, size_weighting: bool = True
) -> NDArray[np.float64]:
    """Return what edges between fragments of single sections cost; positive attracts.

    Two profiles of neighbouring sections are one edge, whose cost their fragments' edges bear by their overlap. The
    fragments of a profile attract each other more than anything could part them.

    Parameters
    ----------
    table
        (E,) edges.
    profiles
        Of the fragments at both ends of all of them.
    beta, beta_across
        Prior probabilities of a cut within and across sections, in (0, 1).
    size_weighting
        Whether longer contacts, and larger overlaps, weigh more.
    """
    u, v = (np.searchsorted(profiles.fragment, end) for end in (table.u, table.v))
    smaller = np.minimum(profiles.voxels[u], profiles.voxels[v])
    across = table.counts[ACROSS] > 0
    costs = edge_costs(table.mean(), table.count, beta, size_weighting)
    costs[~across & (profiles.profile[u] == profiles.profile[v])] = BOND
    rows = np.flatnonzero(across)
    if len(rows):
        pairs = Pairs.of(profiles.profile[u[rows]], profiles.profile[v[rows]])
        overlap = pairs.merged(table.counts[ACROSS, rows])
        mean = pairs.merged(table.totals[ACROSS, rows]) / (HIGHEST * overlap)
        cut = cut_across(mean, overlap, pairs.first(smaller[rows]))
        whole = edge_costs(cut, weights_across(overlap), beta_across, size_weighting)
        lengths = np.diff([*pairs.starts, len(rows)])
        share = table.counts[ACROSS, rows[pairs.order]] / np.repeat(overlap, lengths)
        costs[rows[pairs.order]] = np.repeat(whole, lengths) * share
    return costs
