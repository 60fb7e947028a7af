"""The region adjacency graph of a block: the edges between its fragments, and what lies between them.

Every pair of touching voxels belongs to the block that holds its voxel nearer to the origin.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vimvol.geometry import Block
from vimvol.segment.edges import EdgeTable, merge

# Ids up to this are sorted and looked up as one key of 64 bits.
_DENSE = 2**31

# A voxel begins at most two pairs of an edge in a direction, and their number has to fit 32 bits.
_LARGEST_BLOCK = 2**31


def edge_table(
    labels: NDArray[np.uint64] | NDArray[np.int64],
    boundaries: NDArray[np.uint8],
    own: Block,
    across: bool = True,
    faces: NDArray[np.uint8] | None = None,
) -> EdgeTable:
    """Collect the edges of a block.

    Parameters
    ----------
    labels
        (Z, Y, X) or (Y, X) uint64 or int64, fragments by global id, 0 outside: the block and a halo of one voxel away
        from the origin along every axis, unless the volume ends there. Ids below 2^31 are faster.
    boundaries
        uint8, the same shape.
    own
        The block in coordinates of ``labels``. It owns the pairs whose voxel nearer to the origin lies inside.
    across
        Whether pairs along z count; without them slices stay apart, and no halo along z is needed.
    faces
        uint8, the same shape, where fragments go on behind the faces of their tiles; none: nowhere.

    Raises
    ------
    ValueError
        If the shapes differ, ``boundaries`` are not uint8 or the block lies outside.
    """
    if labels.shape != boundaries.shape or boundaries.dtype != np.uint8:
        raise ValueError(
            f"labels {labels.shape} and boundaries {boundaries.shape} {boundaries.dtype} are not one window with uint8"
        )
    if faces is None:
        faces = np.zeros(labels.shape, np.uint8)
    elif faces.shape != labels.shape:
        raise ValueError(f"open faces {faces.shape} do not fill the window of labels {labels.shape}")
    if not Block.whole(labels.shape).contains(own):
        raise ValueError(f"block {own} lies outside a window of shape {labels.shape}")
    if labels.ndim == 2:
        slab = Block((0, *own.begin), (1, *own.end))
        return edge_table(labels[None], boundaries[None], slab, across=False, faces=faces[None])
    if own.size == 0:
        return EdgeTable.empty()
    if own.size > _LARGEST_BLOCK:
        return merge([edge_table(labels, boundaries, half, across, faces) for half in _halves(own)])
    if int(labels.max()) >= _DENSE:
        ids, dense = np.unique(np.append(labels, 0), return_inverse=True)
        window = dense[:-1].astype(np.int64).reshape(labels.shape)
        return edge_table(window, boundaries, own, across, faces).renumbered(ids[1:].astype(np.uint64))

    # compiled code is loaded by those who measure, not by everybody who plans to
    from vimvol.segment.accumulate import pair_sums

    window = np.ascontiguousarray(labels, np.int64)
    found = pair_sums(window, np.ascontiguousarray(boundaries), np.ascontiguousarray(faces), own.begin, own.end, across)
    order = np.argsort(found.keys)
    keys = found.keys[order]
    sums, extremes = np.moveaxis(found.sums[order], 0, -1), np.moveaxis(found.extremes[order], 0, -1)
    histograms = np.ascontiguousarray(np.moveaxis(found.histograms[order], 0, -1))
    return EdgeTable.from_columns(
        {
            "u": keys >> 32,
            "v": keys & 0xFFFFFFFF,
            "counts": histograms.sum(axis=1, dtype=np.int64),
            "totals": sums[:, 0],
            "squares": sums[:, 1],
            "minima": extremes[:, 0],
            "maxima": extremes[:, 1],
            "histograms": histograms,
        }
    )


def _halves(block: Block) -> tuple[Block, Block]:
    """Cut a block in the middle of its longest axis."""
    axis = int(np.argmax(block.shape))
    middle = block.begin[axis] + block.shape[axis] // 2
    end = tuple(middle if a == axis else e for a, e in enumerate(block.end))
    begin = tuple(middle if a == axis else b for a, b in enumerate(block.begin))
    return Block(block.begin, end), Block(begin, block.end)
