"""Division of a multicut into overlapping subproblems: what is decided in parts, and what is left.

After Pape et al. (2017), "Solving large multicut problems for connectomics via domain decomposition", ICCV workshops.
Every node lies in one cell of a grid. A subproblem is a cell and a margin of nodes around it, a few edges deep. An edge
inside a cell is contracted if every subproblem that sees both its ends joins them; all other edges are kept, with
their costs added up, for the next level, whose cells are 2 x 2 x 2 of this one. A group of nodes goes on under the
smallest of their ids, so nodes never leave the cell that they lie in, and one numbering serves all levels.

Costs are integers in units of 2^-20, so that sums do not depend on the order in which they are taken.

A cell's edges are all with an end in it: those between two cells stand in both. They are kept in two parts, the rim,
which is all that a neighbouring subproblem wants to know, and the interior.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from vimvol.pairs import Pairs, pair_order
from vimvol.segment.multicut.solvers import solve
from vimvol.segment.stitch import union

UNIT = 2.0**-20
"""What one step of an integer cost is worth."""

BYTES_PER_EDGE = 450
"""Memory that a solver takes for an edge and its share of nodes: 443 were measured on a lattice of a million edges."""

BYTES_PER_LIFTED_EDGE = 700
"""The same of a solver that makes long-range edges besides."""

Ids = NDArray[np.uint64]


@dataclass(frozen=True, slots=True, eq=False)
class CostTable:
    """Edges and their costs, sorted by (u, v), each once.

    Attributes
    ----------
    u, v
        (E,) uint64, node ids; ``u < v``.
    cost
        (E,) int64, in units of `UNIT`; positive attracts.
    """

    u: Ids
    v: Ids
    cost: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.u)

    def where(self, mask: NDArray[np.bool_]) -> CostTable:
        """Return the rows of a mask."""
        return CostTable(self.u[mask], self.v[mask], self.cost[mask])

    def costs(self) -> NDArray[np.float64]:
        """Return the costs as numbers."""
        return np.multiply(self.cost, UNIT, dtype=np.float64)

    def columns(self) -> dict[str, NDArray[np.generic]]:
        """Return the columns by name, to be stored."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @classmethod
    def from_columns(cls, columns: Mapping[str, NDArray[np.generic]]) -> CostTable:
        """Return the table of stored columns; the inverse of `columns`."""
        return cls(
            np.asarray(columns["u"], np.uint64),
            np.asarray(columns["v"], np.uint64),
            np.asarray(columns["cost"], np.int64),
        )

    @classmethod
    def from_costs(cls, uv: Ids, costs: NDArray[np.float64]) -> CostTable:
        """Return the table of (E, 2) edges, each once, and their (E,) finite costs, rounded to the unit."""
        u, v = uv.min(axis=1).astype(np.uint64), uv.max(axis=1).astype(np.uint64)
        order = pair_order(u, v)
        return cls(u[order], v[order], np.rint(costs / UNIT).astype(np.int64)[order])


@dataclass(frozen=True, slots=True, eq=False)
class Decisions:
    """What one subproblem says of the edges that it sees.

    Attributes
    ----------
    joined
        (J, 2) uint64, edges inside the cell whose ends it joins.
    parted
        (P, 2) uint64, edges inside another cell whose ends it parts.
    """

    joined: Ids
    parted: Ids


@dataclass(frozen=True, slots=True, eq=False)
class Groups:
    """Nodes that were joined to another.

    Attributes
    ----------
    node
        (N,) uint64, ascending; nodes that are not named stay as they are.
    group
        (N,) uint64, the smallest id of each node's group; smaller than ``node``.
    """

    node: Ids
    group: Ids

    def of(self, ids: Ids) -> Ids:
        """Return the group of every id."""
        if not len(self.node):
            return ids
        place = np.minimum(np.searchsorted(self.node, ids), len(self.node) - 1)
        return np.where(self.node[place] == ids, self.group[place], ids)


def bytes_per_edge(solver: str) -> int:
    """Return the memory that a solver takes for an edge."""
    return BYTES_PER_LIFTED_EDGE if solver == "lifted" else BYTES_PER_EDGE


def merge_costs(tables: Iterable[CostTable], *, add: bool = False) -> CostTable:
    """Merge tables into one.

    Parameters
    ----------
    tables
        Tables that may share edges, then with the same cost.
    add
        Take edges of the same ends for parallel ones, and add up their costs.
    """
    parts = [table for table in tables if len(table)]
    if not parts:
        return CostTable(np.empty(0, np.uint64), np.empty(0, np.uint64), np.empty(0, np.int64))
    if len(parts) == 1 and not add:
        return parts[0]
    pairs = Pairs.of(np.concatenate([part.u for part in parts]), np.concatenate([part.v for part in parts]))
    cost = np.concatenate([part.cost for part in parts])
    return CostTable(pairs.u, pairs.v, pairs.merged(cost) if add else pairs.first(cost))


def split_rim(
    edges: CostTable, u_inside: NDArray[np.bool_], v_inside: NDArray[np.bool_], margin: int
) -> tuple[CostTable, CostTable]:
    """Split the edges of a cell into the rim, those that a neighbouring subproblem sees, and the interior.

    Parameters
    ----------
    edges
        All edges with an end in the cell.
    u_inside, v_inside
        (E,) whether the end lies in the cell.
    margin
        Edges between a cell and the nodes farthest from it in its subproblem.
    """
    _, (a, b) = _numbered(edges)
    inside = u_inside & v_inside
    seen = np.zeros(_count(a, b), bool)
    seen[a[~inside]] = True
    seen[b[~inside]] = True
    seen = _grown(seen, a[inside], b[inside], margin - 1)
    rim = ~inside | (seen[a] & seen[b])
    return edges.where(rim), edges.where(~rim)


def decide(
    edges: CostTable, u_cell: NDArray[np.int64], v_cell: NDArray[np.int64], cell: int, margin: int, solver: str
) -> Decisions:
    """Solve the subproblem of a cell.

    Parameters
    ----------
    edges
        The cell's edges and those of the rims around it.
    u_cell, v_cell
        (E,) cell of each end; negative where it is none of the cells around.
    cell
        The cell.
    margin
        Edges between the cell and the farthest nodes that take part.
    solver
        A name in `vimvol.segment.multicut.SOLVERS`.
    """
    if not len(edges):
        none = np.empty((0, 2), np.uint64)
        return Decisions(none, none)
    _, (a, b) = _numbered(edges)
    seen = np.zeros(_count(a, b), bool)
    seen[a[u_cell == cell]] = True
    seen[b[v_cell == cell]] = True
    known = (u_cell >= 0) & (v_cell >= 0)
    seen = _grown(seen, a[known], b[known], margin)
    part = known & seen[a] & seen[b]
    number = np.cumsum(seen) - 1
    pairs = np.stack([number[a[part]], number[b[part]]], axis=1).astype(np.uint64)
    labels = solve(int(seen.sum()), pairs, edges.where(part).costs(), solver, part=True)
    together = labels[pairs[:, 0]] == labels[pairs[:, 1]]
    ends = np.stack([edges.u[part], edges.v[part]], axis=1)
    within, own = u_cell[part] == v_cell[part], u_cell[part] == cell
    return Decisions(ends[together & within & own], ends[~together & within & ~own])


def contract(joined: Ids, parted: Ids) -> Groups:
    """Join the nodes of a cell that all subproblems agree on.

    Parameters
    ----------
    joined
        (J, 2) uint64, edges inside the cell that its own subproblem joins.
    parted
        (P, 2) uint64, edges that other subproblems part.
    """
    if len(joined) and len(parted):
        u, v = np.concatenate([joined, parted]).T
        veto = np.zeros(len(u), bool)
        veto[len(joined) :] = True
        order = np.lexsort((veto, v, u))
        u, v, veto = u[order], v[order], veto[order]
        # a joined edge stands alone, or right before its vetoes
        vetoed = np.zeros(len(u), bool)
        vetoed[:-1] = (u[1:] == u[:-1]) & (v[1:] == v[:-1]) & veto[1:]
        keep = ~veto & ~vetoed
        joined = np.stack([u[keep], v[keep]], axis=1)
    ids, local = np.unique(joined, return_inverse=True)
    labels = union(len(ids), local.reshape(-1, 2).astype(np.uint64))
    # groups are numbered by their first, that is smallest, node
    group = ids[np.unique(labels, return_index=True)[1]][labels]
    moved = group != ids
    return Groups(ids[moved], group[moved])


def reduce(edges: CostTable, groups: Groups) -> CostTable:
    """Put groups in place of nodes: edges within a group vanish, parallel ones become one with the sum of their costs.

    Parameters
    ----------
    edges
        Edges of the level, each once.
    groups
        Groups of all their ends.
    """
    u, v = groups.of(edges.u), groups.of(edges.v)
    between = u != v
    u, v = u[between], v[between]
    return merge_costs([CostTable(np.minimum(u, v), np.maximum(u, v), edges.cost[between])], add=True)


def solve_table(edges: CostTable, solver: str) -> tuple[Groups, float]:
    """Solve a graph as a whole; return the groups of its nodes, and the energy."""
    if not len(edges):
        return Groups(np.empty(0, np.uint64), np.empty(0, np.uint64)), 0.0
    ids, (a, b) = _numbered(edges)
    labels = solve(len(ids), np.stack([a, b], axis=1).astype(np.uint64), edges.costs(), solver)
    energy = int(edges.cost[labels[a] != labels[b]].sum()) * UNIT
    group = ids[np.unique(labels, return_index=True)[1]][labels]
    moved = group != ids
    return Groups(ids[moved], group[moved]), energy


def _numbered(edges: CostTable) -> tuple[Ids, tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Return the nodes of a table, ascending, and its edges by their places among them."""
    if len(edges) and (first := edges.u[0], last := edges.v.max()) and int(last - first) < 4 * len(edges):
        u, v = edges.u - first, edges.v - first
        there = np.zeros(int(last - first) + 1, np.bool_)
        there[u] = there[v] = True
        number = np.cumsum(there) - 1
        return np.flatnonzero(there).astype(np.uint64) + first, (number[u], number[v])
    # u is sorted, so its distinct values are cheap, and make both sorts and searches short
    starts = np.ones(len(edges), bool)
    starts[1:] = edges.u[1:] != edges.u[:-1]
    # numpy's own unique looks up every value in a hash table, which takes several times as long as sorting
    ids = np.sort(np.concatenate([edges.u[starts], edges.v]))
    ids = ids[np.append(True, ids[1:] != ids[:-1])] if len(ids) else ids
    return ids, (np.searchsorted(ids, edges.u), np.searchsorted(ids, edges.v))


def _count(a: NDArray[np.int64], b: NDArray[np.int64]) -> int:
    return int(max(a.max(initial=-1), b.max(initial=-1))) + 1


def _grown(seen: NDArray[np.bool_], a: NDArray[np.int64], b: NDArray[np.int64], steps: int) -> NDArray[np.bool_]:
    """Add to a set of nodes those that at most ``steps`` edges lead to."""
    for _ in range(steps):
        reached = seen.copy()
        reached[b[seen[a]]] = True
        reached[a[seen[b]]] = True
        seen = reached
    return seen
