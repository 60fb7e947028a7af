"""What is left of a stage, by arrays of one truth value a write unit: nothing takes a step for every finished block."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vimvol.engine.plan import StagePlan
from vimvol.geometry import Block, Grid

AT_ONCE = 1 << 18
"""Records, or write units, that are looked at together: they bound the memory that this takes."""


@dataclass(frozen=True)
class Left:
    """How much of a stage is left.

    Attributes
    ----------
    finished
        Blocks of which nothing is left.
    parts
        What is still to be computed, one for each call of the stage's task: whole blocks, and single write units of
        blocks that other blocks of an earlier run have finished in part.
    voxels
        Voxels of these in the region of the stage.
    """

    finished: int
    parts: int
    voxels: int


class Missing:
    """What is not done yet of an output that is cut into blocks.

    Parameters
    ----------
    blocks
        The output, cut into the blocks of the stage.
    units
        The same in write units, of which a block is made of whole ones; the blocks themselves where a record vouches
        for exactly its block.
    covered
        Which of the units are done, an array of ``units.counts``; none: no block is.
    """

    def __init__(self, blocks: Grid, units: Grid, covered: npt.NDArray[np.bool_] | None) -> None:
        self._blocks, self._units, self._covered = blocks, units, covered
        self._ratio = tuple(-(-b // u) for b, u in zip(blocks.cell, units.cell, strict=True))

    def __call__(self, block: Block) -> list[Block]:
        """Return those parts of a block that are not done yet.

        None of a finished block, the block itself where it was not begun, and its single write units where an earlier
        run with other blocks finished others of it.
        """
        if self._covered is None:
            return [block]
        cells = block.coarser(self._units.cell)
        state = self._covered[cells.slices]
        if state.all():
            return []
        if not state.any():
            return [block]
        return [self._units.block(tuple((cells.begin + index).tolist())) for index in np.argwhere(~state)]

    def count(self, plan: StagePlan) -> Left:
        """Return how much of a stage is left, whose blocks are those of this output."""
        if self._covered is None:
            return Left(0, len(plan), plan.wanted)
        finished = parts = voxels = 0
        for slab in self._slabs(plan):
            missing, whole = self._units_of(slab)
            finished += int((missing == 0).sum())
            parts += int(np.where(missing == whole, 1, missing).sum())
            voxels += self._voxels_of(slab, plan.region or Block.whole(plan.blocks.shape))
        return Left(finished, parts, voxels)

    def parts(self, plan: StagePlan) -> Iterator[Block]:
        """Yield, in C order of the stage's blocks, the parts of them that are not done yet."""
        if self._covered is None:
            yield from plan
            return
        for slab in self._slabs(plan):
            missing, _ = self._units_of(slab)
            indices = np.argwhere(missing) + slab.begin
            for first in range(0, len(indices), AT_ONCE):
                for index in indices[first : first + AT_ONCE].tolist():
                    yield from self(self._blocks.block(index))

    def _slabs(self, plan: StagePlan) -> Iterator[Block]:
        """Yield the numbers of the stage's blocks along every axis as boxes, not too many blocks each."""
        cells = plan.cells()
        if not cells.size:
            return
        row = math.prod(r * s for r, s in zip(self._ratio, (1, *cells.shape[1:]), strict=True))
        step = max(1, AT_ONCE // row)
        for begin in range(cells.begin[0], cells.end[0], step):
            end = min(begin + step, cells.end[0])
            yield Block((begin, *cells.begin[1:]), (end, *cells.end[1:]))

    def _window(self, slab: Block) -> Block:
        """Return the units of a box of blocks."""
        return Block(
            tuple(b * r for b, r in zip(slab.begin, self._ratio, strict=True)),
            tuple(min(e * r, n) for e, r, n in zip(slab.end, self._ratio, self._units.counts, strict=True)),
        )

    def _units_of(self, slab: Block) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Return for every block of a box how many units are missing of it, and how many it has."""
        assert self._covered is not None
        window = self._window(slab)
        missing = (~self._covered[window.slices]).astype(np.int64)
        whole = np.ones((1,) * missing.ndim, np.int64)
        for axis, (ratio, extent) in enumerate(zip(self._ratio, window.shape, strict=True)):
            starts = np.arange(0, extent, ratio)
            missing = np.add.reduceat(missing, starts, axis)
            along = np.diff(starts, append=extent)
            whole = whole * along.reshape([-1 if a == axis else 1 for a in range(missing.ndim)])
        return missing, whole

    def _voxels_of(self, slab: Block, region: Block) -> int:
        """Return the voxels in a region of all units that are missing of a box of blocks."""
        assert self._covered is not None
        window = self._window(slab)
        sums = (~self._covered[window.slices]).astype(np.int64)
        for axis in reversed(range(sums.ndim)):
            cell = self._units.cell[axis]
            begins = np.arange(window.begin[axis], window.end[axis]) * cell
            low, high = region.begin[axis], min(region.end[axis], self._units.shape[axis])
            sums = sums @ np.clip(np.minimum(begins + cell, high) - np.maximum(begins, low), 0, None)
        return int(sums)


def covered_units(
    units: Grid, recorded: Iterable[npt.NDArray[np.int64]], *, exactly: bool
) -> npt.NDArray[np.bool_] | None:
    """Tell which units of a grid lie whole in a recorded box.

    Parameters
    ----------
    units
        The grid.
    recorded
        Boxes, (n, 2, rank) each: first voxel, and voxel after the last.
    exactly
        Whether only a box counts that is a cell of the grid.

    Returns
    -------
    (counts of the grid) bool, or None if there is no box.
    """
    covered = None
    for boxes in recorded:
        if covered is None and len(boxes):
            covered = np.zeros(units.counts, bool)
        for first in range(0, len(boxes), AT_ONCE):
            assert covered is not None
            _cover(covered, units, boxes[first : first + AT_ONCE], exactly=exactly)
    return covered


def cells_of(grid: Grid, boxes: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """Return the number of the cell of every box, and whether the box is exactly this cell; 0 and false for others.

    Parameters
    ----------
    grid
        The grid.
    boxes
        (n, 2, rank), first voxel, and voxel after the last.
    """
    shape, cell = np.array(grid.shape), np.array(grid.cell)
    begin, end = boxes[:, 0], boxes[:, 1]
    exact = ((begin >= 0) & (begin < shape) & (begin % cell == 0)).all(axis=1)
    exact &= (end == np.minimum(begin + cell, shape)).all(axis=1)
    index = np.where(exact[:, None], begin // cell, 0)
    return np.ravel_multi_index(tuple(index.T), grid.counts), exact


def _cover(covered: npt.NDArray[np.bool_], units: Grid, boxes: npt.NDArray[np.int64], *, exactly: bool) -> None:
    """Mark the units that lie whole in one of the boxes."""
    shape, cell = np.array(units.shape), np.array(units.cell)
    begin, end = boxes[:, 0], boxes[:, 1]
    # first unit that lies whole in a box, and the unit after the last; the last one of an axis ends with the volume
    first, last = -(-begin // cell), np.where(end >= shape, units.counts, end // cell)
    if exactly:
        same = (begin % cell == 0).all(axis=1) & (end == np.minimum(begin + cell, shape)).all(axis=1)
        first, last = first[same], first[same] + 1
    extents = last - first
    some = (extents > 0).all(axis=1)
    first, extents = first[some], extents[some]
    limits = tuple(n + 1 for n in units.counts)
    kinds = np.ravel_multi_index(tuple(extents.T), limits)
    for kind in np.unique(kinds).tolist():
        extent = Grid(limits, (1,) * len(limits)).index(kind)
        of_kind = first[kinds == kind]
        if len(of_kind) > math.prod(extent):  # unit by unit, of all boxes at once
            for offset in np.ndindex(*extent):
                covered[tuple((of_kind + offset).T)] = True
        else:
            for low in of_kind.tolist():
                covered[tuple(slice(b, b + e) for b, e in zip(low, extent, strict=True))] = True
