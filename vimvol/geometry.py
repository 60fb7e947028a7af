"""Boxes and grids of voxels: integers only.

Every box is half open, ``begin <= voxel < end``, in the axis order of the volume (z, y, x). A grid is
anchored to the origin of the volume, so that what is computed in one of its cells does not depend on
how cells are handed out to workers.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

Index = tuple[int, ...]
"""Position, extent or cell number, one integer an axis."""

AXES = "tczyx"
"""Names of the axes of a stored volume: time, channel, and space."""

USABLE_AXES = "y and x, and of z, c, t those that there are, each once"


def are_axes(names: str) -> bool:
    """Tell whether small letters name the axes of a stored volume, as `USABLE_AXES` says."""
    return len(set(names)) == len(names) and set("yx") <= set(names) <= set(AXES)


@dataclass(frozen=True, slots=True, order=True)
class Block:
    """A half-open box of voxels.

    Attributes
    ----------
    begin, end
        First voxel, and the voxel after the last, one integer an axis. ``begin`` may be negative and ``end`` may lie
        outside the volume for a window with a halo; see `clip`.

    Raises
    ------
    ValueError
        If the ranks differ or an extent is negative.
    """

    begin: Index
    end: Index

    def __post_init__(self) -> None:
        if len(self.begin) != len(self.end):
            raise ValueError(f"begin {self.begin} and end {self.end} have different ranks")
        if any(b > e for b, e in zip(self.begin, self.end, strict=True)):
            raise ValueError(f"begin {self.begin} lies behind end {self.end}")

    @classmethod
    def whole(cls, shape: Sequence[int]) -> Block:
        """Return the box of a volume of this shape."""
        return cls((0,) * len(shape), tuple(int(s) for s in shape))

    @property
    def shape(self) -> Index:
        """Extent along every axis, in voxels."""
        return tuple(e - b for b, e in zip(self.begin, self.end, strict=True))

    @property
    def size(self) -> int:
        """Number of voxels."""
        return math.prod(self.shape)

    @property
    def slices(self) -> tuple[slice, ...]:
        """Slices that cut this box out of an array of the volume."""
        return tuple(slice(b, e) for b, e in zip(self.begin, self.end, strict=True))

    def grow(self, before: Sequence[int], after: Sequence[int] | None = None) -> Block:
        """Return the box with a halo: ``before`` voxels towards the origin, ``after`` (or the same) away."""
        after = before if after is None else after
        return Block(
            tuple(b - h for b, h in zip(self.begin, before, strict=True)),
            tuple(e + h for e, h in zip(self.end, after, strict=True)),
        )

    def intersect(self, other: Block) -> Block:
        """Return the part shared with ``other``; a box of size 0 where they do not meet."""
        begin = tuple(max(a, b) for a, b in zip(self.begin, other.begin, strict=True))
        end = tuple(max(b, min(x, y)) for b, x, y in zip(begin, self.end, other.end, strict=True))
        return Block(begin, end)

    def clip(self, shape: Sequence[int]) -> Block:
        """Return the part that lies inside a volume of this shape."""
        return self.intersect(Block.whole(shape))

    def hull(self, other: Block) -> Block:
        """Return the smallest box that holds this one and ``other``."""
        return Block(
            tuple(min(a, b) for a, b in zip(self.begin, other.begin, strict=True)),
            tuple(max(a, b) for a, b in zip(self.end, other.end, strict=True)),
        )

    def coarser(self, factor: Sequence[int]) -> Block:
        """Return the box on a grid whose cells are ``factor`` voxels wide: all cells that this box meets."""
        return Block(
            tuple(b // f for b, f in zip(self.begin, factor, strict=True)),
            tuple(-(-e // f) for e, f in zip(self.end, factor, strict=True)),
        )

    def contains(self, other: Block) -> bool:
        """Tell whether ``other`` lies inside this box."""
        return all(a <= b for a, b in zip(self.begin, other.begin, strict=True)) and all(
            a >= b for a, b in zip(self.end, other.end, strict=True)
        )

    def moved(self, by: Sequence[int]) -> Block:
        """Return the box that lies so many voxels further along every axis."""
        return Block(
            tuple(b + m for b, m in zip(self.begin, by, strict=True)),
            tuple(e + m for e, m in zip(self.end, by, strict=True)),
        )

    def within(self, outer: Block) -> Block:
        """Return this box in coordinates that count from the begin of ``outer``."""
        return Block(
            tuple(b - o for b, o in zip(self.begin, outer.begin, strict=True)),
            tuple(e - o for e, o in zip(self.end, outer.begin, strict=True)),
        )

    def __str__(self) -> str:
        return "[" + ", ".join(f"{b}:{e}" for b, e in zip(self.begin, self.end, strict=True)) + "]"


@dataclass(frozen=True, slots=True)
class Grid:
    """A volume cut into cells of one shape from its origin on; the last cell of an axis may be smaller.

    Cells are numbered along every axis (`Index`), and flat in C order, the last axis fastest.

    Raises
    ------
    ValueError
        If the ranks differ, the volume is empty or a cell has an extent below 1.
    """

    shape: Index
    cell: Index

    def __post_init__(self) -> None:
        if len(self.shape) != len(self.cell):
            raise ValueError(f"shape {self.shape} and cell {self.cell} have different ranks")
        if any(s < 1 for s in self.shape) or any(c < 1 for c in self.cell):
            raise ValueError(f"shape {self.shape} and cell {self.cell} must be at least 1 along every axis")

    @property
    def counts(self) -> Index:
        """Number of cells along every axis."""
        return tuple(-(-s // c) for s, c in zip(self.shape, self.cell, strict=True))

    @property
    def voxels(self) -> int:
        """Number of voxels of the volume."""
        return math.prod(self.shape)

    def __len__(self) -> int:
        return math.prod(self.counts)

    def block(self, index: Sequence[int]) -> Block:
        """Return the voxels of a cell, clipped to the volume.

        Raises
        ------
        IndexError
            If there is no such cell.
        """
        if any(not 0 <= i < n for i, n in zip(index, self.counts, strict=True)):
            raise IndexError(f"no cell {tuple(index)} in a grid of {self.counts}")
        begin = tuple(i * c for i, c in zip(index, self.cell, strict=True))
        return Block(begin, tuple(min(b + c, s) for b, c, s in zip(begin, self.cell, self.shape, strict=True)))

    def flat(self, index: Sequence[int]) -> int:
        """Return the flat number of a cell, in C order."""
        flat = 0
        for i, n in zip(index, self.counts, strict=True):
            flat = flat * n + i
        return flat

    def index(self, flat: int) -> Index:
        """Return the cell of a flat number; the inverse of `flat`."""
        index = []
        for n in reversed(self.counts):
            flat, i = divmod(flat, n)
            index.append(i)
        return tuple(reversed(index))

    def __iter__(self) -> Iterator[Index]:
        return itertools.product(*(range(n) for n in self.counts))

    def overlapping(self, block: Block) -> Iterator[Index]:
        """Yield, in C order, the cells that share at least one voxel with ``block``."""
        inside = block.clip(self.shape)
        if inside.size == 0:
            return
        cells = inside.coarser(self.cell)
        yield from itertools.product(*(range(b, e) for b, e in zip(cells.begin, cells.end, strict=True)))


def round_up(value: int, multiple: int) -> int:
    """Return the smallest multiple of ``multiple`` that is not below ``value``."""
    return -(-value // multiple) * multiple
