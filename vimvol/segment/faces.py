"""Where fragments go on behind the faces of their tiles.

Two tiles whose common face cuts a fragment each hold a part of it, and what lies between the parts is no boundary. The
watershed of a tile's window sees a little of what is behind the face: where the same fragment is on both sides of it,
the face is open. Where the watersheds of both tiles say so, the pair of voxels is inside a fragment, however high the
boundary probability is there, as it would be without tiles.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vimvol.geometry import Block

BACKWARD = 3
"""Bit ``axis`` of a voxel is its face away from the origin along that axis, bit ``BACKWARD + axis`` the other."""

BITS = 26
"""Bits of a stored fragment that are its number; the six above are its open faces."""

_NUMBER = np.uint32((1 << BITS) - 1)


def open_faces(labels: NDArray[np.uint32], inner: Block) -> NDArray[np.uint8]:
    """Tell where the fragments of a window go on behind the faces of a box inside it.

    Parameters
    ----------
    labels
        (Z, Y, X) or (Y, X) uint32, the fragments of the window.
    inner
        The box, in coordinates of ``labels``.

    Returns
    -------
    numpy.ndarray
        uint8 of the shape of ``inner``. Bits are set only in voxels at a face behind which the window goes on; axes are
        numbered as if there were always three.
    """
    ndim = labels.ndim
    result = np.zeros(inner.shape, np.uint8)
    for axis in range(ndim):
        for plane, behind, bit in (
            (inner.end[axis] - 1, inner.end[axis], 0),
            (inner.begin[axis], inner.begin[axis] - 1, BACKWARD),
        ):
            if not 0 <= behind < labels.shape[axis]:
                continue
            here, there = (_plane(inner, axis, at) for at in (plane, behind))
            same = labels[here.slices] == labels[there.slices]
            result[here.within(inner).slices] |= same.astype(np.uint8) << (bit + 3 - ndim + axis)
    return result


def pack(labels: NDArray[np.uint32], faces: NDArray[np.uint8]) -> NDArray[np.uint32]:
    """Return the fragments of a tile and their open faces in one array, to be stored.

    `vimvol.segment.numbering.number_after` and `open_faces_of` take them apart.

    Raises
    ------
    ValueError
        If there are more fragments than numbers.
    """
    if int(labels.max(initial=0)) > int(_NUMBER):
        raise ValueError(f"{int(labels.max())} fragments in one tile exceed {int(_NUMBER)}; make tiles smaller")
    return labels | faces.astype(np.uint32) << np.uint32(BITS)


def open_faces_of(stored: NDArray[np.uint32]) -> NDArray[np.uint8]:
    """Return the open faces of what `pack` returned."""
    return (stored >> np.uint32(BITS)).astype(np.uint8)


def _plane(box: Block, axis: int, at: int) -> Block:
    """Return the plane of a box at a coordinate, which may lie outside."""
    begin = tuple(at if a == axis else b for a, b in enumerate(box.begin))
    return Block(begin, tuple(at + 1 if a == axis else e for a, e in enumerate(box.end)))
