"""Stage fragments: a watershed in every tile, and the numbering that makes its labels unique in the volume.

Fragments are stored as the tile's own numbers from 1, and where they go on behind the faces of the tile (`pack`). The
offset of a tile, the number of fragments in all tiles before it, turns its numbers into global ids. Both depend on the
tile grid only, not on the blocks.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from vimvol.engine.plan import plan_stage
from vimvol.engine.run import Execution
from vimvol.engine.turns import turn
from vimvol.geometry import Block, Index
from vimvol.io.arrays import create_array, read_box, write_box
from vimvol.io.tables import read_table, write_table
from vimvol.segment.cells import cells_tile
from vimvol.segment.faces import open_faces_of, pack
from vimvol.segment.watershed import fragments_tile
from vimvol.stages.job import Cells, Job
from vimvol.stages.region import read_tissue, wanted_voxels
from vimvol.stages.stage import Stage, StoredArray

OFFSETS_CHUNK = 2**16
"""Offsets of tiles that are stored together, see `write_offsets`."""

OFFSETS_SPAN = 16 * OFFSETS_CHUNK
"""Those that are computed and written at once, 8 MiB."""


@dataclass(frozen=True)
class FragmentsBlock:
    """Makes and writes the fragments of one block."""

    job: Job

    def __call__(self, block: Block) -> dict[str, Any]:
        """Return the number of fragments in every tile that the block touches; no entry where there are none."""
        job = self.job
        config = job.fragments_config
        dimension: Literal["2d", "3d"] = "2d" if config.dimension == "2d" else "3d"
        grid, halo, voxel_size = job.fragment_tiles, halo_of(job), job.source.voxel_size
        result = np.zeros(block.shape, np.uint32)
        counts: dict[str, int] = {}
        reach = reach_of(job, block)
        if job.network.cells is not None:
            return self._cells(job.network.cells, block, reach)
        if not wanted_voxels(job.roi, job.mask, block).any():
            write_box(job.fragments, block, result)
            return {"counts": counts}
        boundaries, tissue = read_walls(job, reach)
        with turn():
            for index in grid.overlapping(block):
                tile = grid.block(index)
                window = tile.grow(halo).clip(job.shape)
                hole = ~tissue[tile.within(reach).slices]
                if hole.all():
                    continue
                labels, count, opened = fragments_tile(
                    boundaries[window.within(reach).slices], tile.within(window), config, dimension, voxel_size, hole
                )
                counts[str(grid.flat(index))] = count
                shared = tile.intersect(block)
                part = shared.within(tile).slices
                result[shared.within(block).slices] = pack(labels[part], opened[part])
        write_box(job.fragments, block, result)
        return {"counts": counts}

    def _cells(self, cells: Cells, block: Block, reach: Block) -> dict[str, Any]:
        job, grid = self.job, self.job.fragment_tiles
        prediction = read_box(job.boundaries, Block((0, *reach.begin), (job.network.channels, *reach.end)))
        prediction = prediction[list(cells.channels)]
        prediction[0][~read_tissue(job, reach)] = 0
        result = np.zeros(block.shape, np.uint32)
        counts = {}
        with turn():
            for index in grid.overlapping(block):
                tile = grid.block(index)
                wanted = _wanted_part(job, tile)
                if not wanted.size:
                    continue
                window = tile.grow(halo_of(job)).clip(job.shape)
                cut = prediction[(slice(None), *window.within(reach).slices)]
                labels, count, links = cells_tile(cut, tile.within(window), cells.method, job.config.cells)
                flat = str(grid.flat(index))
                counts[flat] = count
                shared = tile.intersect(block)
                result[shared.within(block).slices] = labels[shared.within(tile).slices]
                # of the blocks of the stage that see the tile, the first tells how it goes on
                if all(b <= first < e for b, first, e in zip(block.begin, wanted.begin, block.end, strict=True)):
                    write_table(links_of(job), flat, {"voxels": links + np.array(window.begin)})
        write_box(job.fragments, block, result)
        return {"counts": counts}


def reach_of(job: Job, block: Block) -> Block:
    """Return the box of the volume that the windows of a block's tiles cover."""
    grid = job.fragment_tiles
    cell = grid.cell
    begin = tuple(b // c * c for b, c in zip(block.begin, cell, strict=True))
    end = tuple(-(-e // c) * c for e, c in zip(block.end, cell, strict=True))
    return Block(begin, end).clip(grid.shape).grow(halo_of(job)).clip(grid.shape)


def halo_of(job: Job) -> Index:
    """Return the context of a watershed tile, voxels (z, y, x)."""
    return job.fragments_config.halo or (0, 0, 0)


@dataclass(frozen=True)
class _FragmentsStage(Stage):
    """The stage, after which fragments can be numbered."""

    def run(self, execution: Execution) -> dict[str, Any]:
        """Make the fragments of the whole volume and store the offset of every tile."""
        found = super().run(execution)
        write_offsets(self.job, (result for _, result in self.ledger.entries()))
        return found


def fragments_stage(job: Job) -> Stage:
    """Return the stage fragments."""
    return _FragmentsStage(
        job,
        plan_stage("fragments", job.shape, job.shard, job.config.run.block, job.roi),
        FragmentsBlock(job),
        array=StoredArray(job.fragments, job.shape, "uint32", job.chunk, job.shard),
        held=1 + 1 + 4,  # boundaries, where there is tissue, and numbers
    )


def write_offsets(job: Job, results: Iterable[dict[str, Any]], last: int | None = None) -> None:
    """Store the offset of every tile, from what `FragmentsBlock` returned for all blocks.

    A volume of 10^14 voxels has 4 * 10^8 tiles, so that no more than their counts, 4 bytes each, is held at once.

    Parameters
    ----------
    job
        The job.
    results
        Of every block; tiles that none names have no fragments.
    last
        The last tile that anybody will ask for, of a new output; none: any may be. The number of all fragments, behind
        the last of all tiles, is stored in any case.
    """
    tiles = len(job.fragment_tiles)
    counts, first = np.zeros(tiles, np.uint32), tiles
    for result in results:
        for tile, count in result["counts"].items():
            counts[int(tile)] = count
            first = min(first, int(tile))
    url, before = offsets_of(job), 0
    create_array(url, (tiles + 1,), "uint64", chunk=(min(tiles + 1, OFFSETS_CHUNK),))
    # of a sample, what lies before is 0 without being written, and what lies behind is not asked for
    start = 0 if last is None else first // OFFSETS_SPAN * OFFSETS_SPAN
    for begin in range(start, tiles + 1, OFFSETS_SPAN):
        end = min(begin + OFFSETS_SPAN, tiles + 1)
        if last is None or begin <= last + 1 or end == tiles + 1:
            through = np.concatenate([[0], np.cumsum(counts[begin:end], dtype=np.uint64)]).astype(np.uint64)
            through += np.uint64(before)
            write_box(url, Block((begin,), (end,)), through[: end - begin])
            before = int(through[-1])


def read_boundaries(job: Job, box: Block) -> npt.NDArray[np.uint8]:
    """Read the boundary channel (z, y, x) of a box."""
    channel = job.network.boundary
    boundaries: npt.NDArray[np.uint8] = read_box(job.boundaries, Block((channel, *box.begin), (channel + 1, *box.end)))[
        0
    ]
    return boundaries


def read_walls(job: Job, box: Block) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.bool_]]:
    """Read what the watershed of a box works on.

    Returns
    -------
    boundaries : numpy.ndarray
        (z, y, x) uint8, the boundary channel, 255 wherever nothing is segmented: so no seed lies there, and the widest
        distance to a boundary is one inside tissue.
    tissue : numpy.ndarray
        (z, y, x) bool, where something is segmented.
    """
    tissue = read_tissue(job, box)
    boundaries = read_boundaries(job, box)
    boundaries[~tissue] = 255
    return boundaries, tissue


def read_links(job: Job, box: Block) -> npt.NDArray[np.int64]:
    """Read the links of cells (N, 2, 3), voxels (z, y, x), of the watershed tiles in a box."""
    grid = job.fragment_tiles
    there = (index for index in grid.overlapping(box) if _wanted_part(job, grid.block(index)).size)
    found = [read_table(links_of(job), str(grid.flat(index)))["voxels"] for index in there]
    return np.concatenate([np.zeros((0, 2, 3), np.int64), *found])


def _wanted_part(job: Job, tile: Block) -> Block:
    """Return the part of a tile in the region of interest."""
    return tile if job.roi is None else tile.intersect(job.roi)


def links_of(job: Job) -> str:
    """Return the group of the tables of links, one a watershed tile: see `vimvol.segment.cells.cells_tile`."""
    return f"{job.work}/links"


def offsets_of(job: Job) -> str:
    """Return the array of offsets: fragments in all tiles before a tile, and in the end the number of all."""
    return f"{job.work}/offsets"


@dataclass(frozen=True)
class FragmentWindow:
    """Fragments of a box, numbered densely for the box.

    Attributes
    ----------
    labels
        (z, y, x) int64; 0 is background.
    ids
        (n,) uint64, ascending; ``ids[label - 1]`` is the global id of a label.
    places
        (n,) uint64, ascending; where each lies: ``tile << 32 | number`` in that tile. Other than an id it does not
        depend on how many fragments the tiles before have, so it is what is stored: see `ids_at`.
    faces
        (z, y, x) uint8, where fragments go on behind the faces of their tiles, see `vimvol.segment.faces`; empty if not
        asked for.
    """

    labels: npt.NDArray[np.int64]
    ids: npt.NDArray[np.uint64]
    places: npt.NDArray[np.uint64]
    faces: npt.NDArray[np.uint8]


def read_fragments(job: Job, box: Block, *, with_faces: bool = False) -> FragmentWindow:
    """Read the fragments of a box with unique numbers.

    The numbers are dense, since the memory of a graph grows with its largest node, and ascend with the global ids.
    """
    # compiled code is loaded by those who work on fragments, not by everybody who plans to
    from vimvol.segment.numbering import number_after

    grid = job.fragment_tiles
    stored = read_box(job.fragments, box)
    opened = open_faces_of(stored) if with_faces else np.empty((0, 0, 0), np.uint8)
    labels = np.empty(box.shape, np.int64)
    ids, places = [], []
    seen = 0
    indices = list(grid.overlapping(box))
    first, last = grid.flat(indices[0]), grid.flat(indices[-1])
    offsets = read_box(offsets_of(job), Block((first,), (last + 2,)))
    for index in indices:
        flat = grid.flat(index)
        begin, end = int(offsets[flat - first]), int(offsets[flat - first + 1])
        target = grid.block(index).intersect(box).within(box).slices
        number_after(stored[target], seen, labels[target])
        ids.append(np.arange(begin + 1, end + 1, dtype=np.uint64))
        places.append(np.uint64(flat << 32) + np.arange(1, end - begin + 1, dtype=np.uint64))
        seen += end - begin
    return FragmentWindow(labels, np.concatenate(ids), np.concatenate(places), opened)


def ids_at(job: Job, *places: npt.NDArray[np.uint64]) -> tuple[npt.NDArray[np.uint64], ...]:
    """Return the global ids of fragments by their places, see `FragmentWindow`; both are in the same order."""
    tiles = [column >> np.uint64(32) for column in places]
    first = min((int(tile.min()) for tile in tiles if len(tile)), default=0)
    last = max((int(tile.max()) for tile in tiles if len(tile)), default=0)
    offsets = read_box(offsets_of(job), Block((first,), (last + 1,)))
    numbers = zip(tiles, places, strict=True)
    return tuple(offsets[tile - np.uint64(first)] + (place & np.uint64(0xFFFFFFFF)) for tile, place in numbers)
