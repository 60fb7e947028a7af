"""Which blocks a stage has: integer arithmetic that knows no storage and no scheduler.

A block writes whole write units (shards) of its output and no part of another's, so that two tasks can never
write the same file or object.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from vimvol.errors import ConfigError
from vimvol.geometry import Block, Grid, Index, round_up


@dataclass(frozen=True, slots=True)
class StagePlan:
    """The blocks of one stage.

    Attributes
    ----------
    name
        Name of the stage, as progress and ledger show it.
    blocks
        The output, cut into the boxes that one task each writes.
    unit
        Voxels (z, y, x) of one write unit (shard) of the output.
    region
        Where something is wanted: the stage has those blocks that share a voxel with it. None: everywhere.
    """

    name: str
    blocks: Grid
    unit: Index
    region: Block | None = None

    def __len__(self) -> int:
        return self.cells().size

    def __iter__(self) -> Iterator[Block]:
        return self.meeting(Block.whole(self.blocks.shape))

    def __getitem__(self, number: int) -> Block:
        """Return a block by its number in C order, without going through those before it."""
        cells = self.cells()
        index = Grid(cells.shape, (1,) * len(cells.shape)).index(number)
        return self.blocks.block(tuple(b + i for b, i in zip(cells.begin, index, strict=True)))

    @property
    def voxels(self) -> int:
        """Voxels of all blocks together."""
        cells = self.cells()
        extents = zip(cells.begin, cells.end, self.blocks.cell, self.blocks.shape, strict=True)
        return math.prod(max(0, min(end * c, s) - begin * c) for begin, end, c, s in extents)

    @property
    def wanted(self) -> int:
        """Voxels of all blocks together that lie in the region."""
        return self.voxels if self.region is None else self.region.clip(self.blocks.shape).size

    def wanted_of(self, block: Block) -> int:
        """Return the voxels of a block that lie in the region."""
        return block.size if self.region is None else block.intersect(self.region).size

    def meeting(self, box: Block) -> Iterator[Block]:
        """Yield, in C order, the blocks of the stage that share a voxel with a box."""
        # Ranges of cells meet: what lies outside is not even visited.
        cells = self.cells(box)
        for index in itertools.product(*(range(b, e) for b, e in zip(cells.begin, cells.end, strict=True))):
            yield self.blocks.block(index)

    def cells(self, box: Block | None = None) -> Block:
        """Return the numbers of the stage's blocks along every axis, those that meet a box, as a box of the grid."""
        cells = Block.whole(self.blocks.counts)
        for part in (self.region, box):
            if part is not None:
                inside = part.clip(self.blocks.shape)
                cells = cells.intersect(
                    inside.coarser(self.blocks.cell) if inside.size else Block(cells.begin, cells.begin)
                )
        return cells


LARGE_SHARD = (32, 512, 512)
FEWEST_SHARDS = 8


def default_shard(shape: Sequence[int], chunk: Sequence[int], tile: Sequence[int]) -> Index:
    """Choose the shard of a volume for which none is configured.

    A shard is the least that a task can write. Of a small volume it is halved until there are enough shards for some
    workers: first along z, since no tile of a prediction reaches over slices, then along y and x as far as tiles fit.

    Parameters
    ----------
    shape
        Voxels (z, y, x) of the volume.
    chunk
        Voxels (z, y, x) of a chunk.
    tile
        Voxels (y, x) of a tile of the prediction.

    Returns
    -------
    tuple of int
        Voxels (z, y, x), a multiple of the chunk.
    """
    shard = [round_up(min(s, e), c) for s, e, c in zip(LARGE_SHARD, shape, chunk, strict=True)]
    least = [chunk[0], max(chunk[1], tile[0]), max(chunk[2], tile[1])]
    while len(Grid(tuple(shape), tuple(shard))) < FEWEST_SHARDS:
        halves = [round_up(-(-s // 2), c) for s, c in zip(shard, chunk, strict=True)]
        axes = [a for a in (0, 1, 2) if least[a] <= halves[a] < shard[a]]
        if not axes:
            break
        axis = 0 if 0 in axes else max(axes, key=lambda a: shard[a])
        shard[axis] = halves[axis]
    return tuple(shard)


def plan_stage(
    name: str,
    shape: Sequence[int],
    unit: Sequence[int],
    block: Sequence[int] | None = None,
    region: Block | None = None,
) -> StagePlan:
    """Cut the output of a stage into blocks that own whole write units.

    Parameters
    ----------
    name
        Name of the stage.
    shape
        Voxels (z, y, x) of the output.
    unit
        Voxels (z, y, x) of one shard of the output, or of one chunk where it has no shards.
    block
        Voxels (z, y, x) of one task; none: one write unit.
    region
        Where something is wanted; see `StagePlan.region`.

    Raises
    ------
    ConfigError
        If the block is no multiple of the write unit along an axis on which it does not span the volume.
    """
    block = tuple(unit) if block is None else tuple(block)
    cell = []
    for axis, extent, u, b in zip("zyx", shape, unit, block, strict=True):
        if b >= extent:
            cell.append(round_up(extent, u))
        elif b % u:
            raise ConfigError(
                f"run.block = {block} is no multiple of the shard {tuple(unit)} along {axis}, so two tasks would write "
                f"one shard and lose data; take {round_up(b, u)} along {axis}"
            )
        else:
            cell.append(b)
    return StagePlan(name, Grid(tuple(shape), tuple(cell)), tuple(unit), region)
