"""Size and shape of fragments, as exact sums over their voxels.

Sums of disjoint blocks add up to those of the whole volume. Sums of squared coordinates may exceed 64 bits in a very
long volume; they are kept modulo 2^64, and moving the origin into the fragment brings back the exact small numbers
that its extent needs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from vimvol.geometry import Block

_PRODUCTS = ((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2))

_DTYPES = {
    "fragment": np.uint64,
    "voxels": np.int64,
    "first": np.int64,
    "second": np.int64,
    "surface": np.int64,
    "border": np.bool_,
}


@dataclass(frozen=True, slots=True, eq=False)
class NodeTable:
    """Fragments and the sums over their voxels, ascending by id, each once.

    Attributes
    ----------
    fragment
        (N,) uint64, ids above 0.
    voxels
        (N,) int64, number of voxels.
    first
        (3, N) int64, sums of the coordinates z, y, x in the volume.
    second
        (6, N) int64, sums of their products zz, yy, xx, zy, zx, yx, modulo 2^64.
    surface
        (2, N) int64, faces of its voxels behind which it does not go on, within slices (along y and x) and across them
        (along z); faces of the volume and of background count like those of other fragments.
    border
        (N,) bool, whether the fragment reaches a face of the volume.
    """

    fragment: NDArray[np.uint64]
    voxels: NDArray[np.int64]
    first: NDArray[np.int64]
    second: NDArray[np.int64]
    surface: NDArray[np.int64]
    border: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.fragment)

    def columns(self) -> dict[str, NDArray[np.generic]]:
        """Return the columns by name, to be stored."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @classmethod
    def from_columns(cls, columns: Mapping[str, NDArray[np.generic]]) -> NodeTable:
        """Return the table of stored columns; the inverse of `columns`."""
        return cls(**{name: np.asarray(columns[name], dtype) for name, dtype in _DTYPES.items()})

    def find(self, fragment: NDArray[np.uint64]) -> NDArray[np.intp]:
        """Return where fragments are in the table.

        Raises
        ------
        ValueError
            If one is not there.
        """
        place = np.minimum(np.searchsorted(self.fragment, fragment), max(len(self) - 1, 0))
        if len(fragment) and (not len(self) or (self.fragment[place] != fragment).any()):
            raise ValueError("an edge names a fragment that the table of fragments lacks")
        return place

    def centroid(self) -> NDArray[np.float64]:
        """Return the centres of mass (3, N), voxels z, y, x."""
        return np.asarray(self.first / self.voxels)

    def covariance(self) -> NDArray[np.float64]:
        """Return the covariances (N, 3, 3) of the coordinates of each fragment's voxels, voxels squared."""
        anchor = self.first // np.maximum(self.voxels, 1)
        centred = _moved(self.voxels, self.first, self.second, -anchor)
        mean = centred[0] / self.voxels
        result = np.empty((len(self), 3, 3))
        for i, (a, b) in enumerate(_PRODUCTS):
            result[:, a, b] = result[:, b, a] = centred[1][i] / self.voxels - mean[a] * mean[b]
        return result


def node_table(
    labels: NDArray[np.int64], own: Block, ids: NDArray[np.uint64], origin: Sequence[int], shape: Sequence[int]
) -> NodeTable:
    """Collect the fragments of a block.

    Parameters
    ----------
    labels
        (Z, Y, X) int64 in 0..n; 0 is outside.
    own
        The block in coordinates of ``labels``, whose voxels count. A fragment that goes on behind it has to be seen
        there for one voxel, or its surface is too large.
    ids
        (n,) uint64, ascending: the fragment of label i is ``ids[i - 1]``.
    origin
        Voxel (z, y, x) of the volume at which ``labels`` begin.
    shape
        Voxels (z, y, x) of the volume.
    """
    from vimvol.segment.accumulate import voxel_sums

    sums = np.ascontiguousarray(voxel_sums(np.ascontiguousarray(labels), own.begin, own.end, len(ids)).T)
    first, second = _moved(sums[0], sums[1:4], sums[4:10], np.array(origin, np.int64)[:, None])
    # a voxel has four faces within its slice and two across, and a pair of voxels hides one of each of them
    surface = np.stack([4 * sums[0] - 2 * sums[10], 2 * sums[0] - 2 * sums[11]])
    border = np.zeros(len(ids) + 1, bool)
    for axis, (begin, end) in enumerate(zip(own.begin, own.end, strict=True)):
        faces = ((begin, origin[axis] + begin == 0), (end - 1, origin[axis] + end == shape[axis]))
        for plane in (plane for plane, outermost in faces if outermost):
            face = [slice(b, e) for b, e in zip(own.begin, own.end, strict=True)]
            face[axis] = slice(plane, plane + 1)
            border[labels[tuple(face)]] = True
    there = sums[0] > 0
    return NodeTable(
        ids[there], sums[0][there], first[:, there], second[:, there], surface[:, there], border[1:][there]
    )


def merge_nodes(tables: Iterable[NodeTable]) -> NodeTable:
    """Merge tables of disjoint blocks, or of merged blocks, into one; exact, whatever their order."""
    parts = list(tables)
    columns = (
        {name: np.concatenate([getattr(part, name) for part in parts], axis=-1) for name in _DTYPES} if parts else {}
    )
    if not parts or not len(columns["fragment"]):
        shapes = {"first": (3, 0), "second": (6, 0), "surface": (2, 0)}
        return NodeTable.from_columns(
            {name: np.empty(shapes.get(name, (0,)), dtype) for name, dtype in _DTYPES.items()}
        )
    order = np.argsort(columns["fragment"], kind="stable")
    fragment = columns.pop("fragment")[order]
    starts = np.flatnonzero(np.append(True, fragment[1:] != fragment[:-1]))
    merged: dict[str, NDArray[np.generic]] = {"fragment": fragment[starts]}
    for name, column in columns.items():
        by = np.logical_or if name == "border" else np.add
        merged[name] = by.reduceat(np.take(column, order, axis=-1), starts, axis=-1)
    return NodeTable.from_columns(merged)


def _moved(
    voxels: NDArray[np.int64], first: NDArray[np.int64], second: NDArray[np.int64], by: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return both sums in coordinates to which ``by`` (3, 1 or N) is added, modulo 2^64."""
    moved = second.copy()
    for i, (a, b) in enumerate(_PRODUCTS):
        # array arithmetic wraps around silently, as wanted
        moved[i] += by[a] * first[b] + by[b] * first[a] + by[a] * by[b] * voxels
    return first + by * voxels, moved
