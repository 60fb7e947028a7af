"""Sizes of segments: small ones join a neighbour, and holes are filled, on the graph of segments alone.

*Small segments.* In a round, every segment of fewer voxels than a limit joins the neighbour from which the lowest mean
boundary probability parts it, over all pairs of touching voxels; of equal ones that with the longer contact, then that
with the smaller id. All do so at once. Rounds follow until every segment has the size or no neighbour. A segment that
has the size joins nobody, so two such segments never become one.

*Holes.* A segment of fewer voxels than a limit that touches exactly one other, and neither background nor a face of the
volume, becomes part of that; again in rounds, so that a hole may have holes.

All sums are integers, so the result does not depend on the blocks that they were measured in. Filling a graph by its
lowest boundaries is what cluster_tools does with small fragments (Pape et al. 2017), by a watershed of edge weights.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vimvol.pairs import Pairs
from vimvol.segment.multicut.division import Groups
from vimvol.segment.stitch import union

Ids = NDArray[np.uint64]
Counts = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Contacts:
    """Where segments touch, sorted by (u, v), each pair once.

    Attributes
    ----------
    u, v
        (E,) uint64, segments; ``u <= v``, and equal for the fragments of one segment.
    pairs
        (E,) int64, pairs of touching voxels.
    totals
        (E,) int64, sums of the pairs' boundaries, 0..510 a pair.
    """

    u: Ids
    v: Ids
    pairs: Counts
    totals: Counts

    def __len__(self) -> int:
        return len(self.u)

    def columns(self) -> dict[str, NDArray[np.generic]]:
        """Return the columns by name, to be stored."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @classmethod
    def from_columns(cls, columns: Mapping[str, NDArray[np.generic]]) -> Contacts:
        """Return the table of stored columns; the inverse of `columns`."""
        u, v = np.asarray(columns["u"], np.uint64), np.asarray(columns["v"], np.uint64)
        return cls(u, v, np.asarray(columns["pairs"], np.int64), np.asarray(columns["totals"], np.int64))

    @classmethod
    def of(cls, u: Ids, v: Ids, pairs: Counts, totals: Counts) -> Contacts:
        """Return the table of rows in any order, in which a pair of segments may stand several times."""
        found = Pairs.of(np.minimum(u, v), np.maximum(u, v))
        return cls(found.u, found.v, found.merged(pairs), found.merged(totals))


def merge_contacts(tables: Iterable[Contacts]) -> Contacts:
    """Merge tables of different voxel pairs into one; exact, whatever their order."""
    no_ids, none = np.empty(0, np.uint64), np.empty(0, np.int64)
    parts = [Contacts(no_ids, no_ids, none, none), *tables]
    u, v = np.concatenate([part.u for part in parts]), np.concatenate([part.v for part in parts])
    return Contacts.of(
        u, v, np.concatenate([part.pairs for part in parts]), np.concatenate([part.totals for part in parts])
    )


class Settled(NamedTuple):
    """What became of small segments.

    Attributes
    ----------
    groups
        Segments that are part of another now, by the smallest id among all that became one.
    joined, filled
        How many segments vanished by either rule.
    """

    groups: Groups
    joined: int
    filled: int


def settle(
    contacts: Contacts, segment: Ids, voxels: Counts, surface: Counts, join_below: int = 0, fill_below: int = 0
) -> Settled:
    """Let small segments join a neighbour, then fill holes.

    Parameters
    ----------
    contacts
        All contacts of the small segments, those within one of them included.
    segment
        (S,) uint64, ascending: the segments of fewer voxels than either limit.
    voxels
        (S,) int64, their voxels.
    surface
        (S,) int64, faces of their voxels behind which there is another fragment, background or the end of the volume.
    join_below
        Voxels below which a segment joins a neighbour.
    fill_below
        Voxels below which a hole is filled.
    """
    ids = np.union1d(np.concatenate([contacts.u, contacts.v]), segment)
    place = np.searchsorted(ids, segment)
    large = np.ones(len(ids), bool)
    large[place] = False
    sums = np.zeros((2, len(ids)), np.int64)
    sums[:, place] = voxels, surface
    u, v = (np.searchsorted(ids, end).astype(np.uint64) for end in (contacts.u, contacts.v))
    graph = _Graph(Contacts(u, v, contacts.pairs, contacts.totals), large, *sums)
    labels = np.arange(len(ids), dtype=np.uint64)
    vanished = []
    for choose, below in ((_joining, join_below), (_filling, fill_below)):
        before = len(graph.large)
        while len(found := choose(graph, below)):
            merged = union(len(graph.large), found)
            graph, labels = _merged(graph, merged), merged[labels]
        vanished.append(before - len(graph.large))
    # groups are numbered by their first, that is smallest, segment
    group = ids[np.unique(labels, return_index=True)[1]][labels]
    moved = group != ids
    return Settled(Groups(ids[moved], group[moved]), vanished[0], vanished[1])


@dataclass(frozen=True, slots=True, eq=False)
class _Graph:
    """Segments 0..n-1: contacts, whether a segment is none of the small ones, and (n,) voxels and surface of those."""

    contacts: Contacts
    large: NDArray[np.bool_]
    voxels: Counts
    surface: Counts


def _joining(graph: _Graph, below: int) -> Ids:
    """Return (k, 2), every small segment that has neighbours with the one that it joins."""
    small = ~graph.large & (graph.voxels < below)
    table = graph.contacts
    apart = (table.u != table.v) & (small[table.u] | small[table.v])
    u, v, pairs = table.u[apart], table.v[apart], table.pairs[apart]
    # equal fractions are equal numbers, as both parts are exact
    mean = table.totals[apart] / pairs
    own, other = np.concatenate([u, v]), np.concatenate([v, u])
    order = np.lexsort((other, -np.tile(pairs, 2), np.tile(mean, 2), own))
    own, other = own[order], other[order]
    best = np.ones(len(own), bool)
    best[1:] = own[1:] != own[:-1]
    best &= small[own]
    return np.stack([own[best], other[best]], axis=1)


def _filling(graph: _Graph, below: int) -> Ids:
    """Return (k, 2), every hole with the segment around it."""
    table, n = graph.contacts, len(graph.large)
    apart = table.u != table.v
    exposed, neighbours = graph.surface.copy(), np.zeros(n, np.int64)
    around = np.zeros(n, np.uint64)
    for own, other in ((table.u, table.v), (table.v, table.u)):
        # a pair hides a face of either voxel
        np.subtract.at(exposed, own, table.pairs)
        np.add.at(neighbours, own[apart], 1)
        around[own[apart]] = other[apart]
    hole = np.flatnonzero(~graph.large & (graph.voxels < below) & (exposed == 0) & (neighbours == 1))
    return np.stack([hole.astype(np.uint64), around[hole]], axis=1)


def _merged(graph: _Graph, labels: Ids) -> _Graph:
    """Return the graph of groups; ``labels`` (n,) are consecutive by first segment."""
    n = int(labels.max()) + 1
    large = np.zeros(n, bool)
    large[labels[graph.large]] = True
    sums = np.zeros((2, n), np.int64)
    np.add.at(sums[0], labels, graph.voxels)
    np.add.at(sums[1], labels, graph.surface)
    table = graph.contacts
    return _Graph(Contacts.of(labels[table.u], labels[table.v], table.pairs, table.totals), large, *sums)
