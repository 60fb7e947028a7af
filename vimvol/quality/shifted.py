"""Whether a region comes out the same if its fragments are made on tiles that lie elsewhere."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from vimvol.evaluate.contingency import Contingency
from vimvol.evaluate.metrics import voi_merge, voi_split
from vimvol.geometry import Block, Index
from vimvol.io.arrays import read_box
from vimvol.segment.graph import edge_table
from vimvol.segment.multicut import solve
from vimvol.segment.nodes import node_table
from vimvol.segment.profiles import join_profiles
from vimvol.segment.watershed import crop_and_relabel, fragments_tile
from vimvol.stages.costs import costs_of_edges
from vimvol.stages.fragments import halo_of, read_boundaries
from vimvol.stages.job import Job

REGION = (64, 512, 512)
"""Voxels (z, y, x) of the region that is made again."""
EXCESS = 0.1
"""VOI, bits, by which a region made on shifted tiles may differ more than one made again on the same tiles."""


def compare_shifted(job: Job, labels: str, tell: Callable[[str], None] | None = None) -> dict[str, Any] | None:
    """Make a region again on tiles shifted by half a tile, and on the same tiles; compare both with what is stored.

    Watershed and agglomeration are made again, from the stored boundaries. The region is solved by itself, so pieces
    that are joined outside it only count as several. ``tell`` is told that it begins.
    """
    cell = job.fragment_tiles.cell
    if job.stitched or all(c >= s or c == 1 for c, s in zip(cell, job.shape, strict=True)):
        return None
    box = _region(job)
    if tell is not None:
        tell(f"shifted tiles: making {box} again")
    stored, _ = _pieces(read_box(labels, box))
    found = {}
    for what, shift in (("same", (0, 0, 0)), ("shifted", tuple(c // 2 for c in cell))):
        again, _ = _pieces(_made_again(job, box, shift))
        both = (stored > 0) & (again > 0)
        table = Contingency.from_arrays(again[both], stored[both])
        found[what] = round(voi_split(table) + voi_merge(table), 4) if both.any() else 0.0
    return {"region": str(box), **found, "passed": found["shifted"] - found["same"] <= EXCESS}


def _region(job: Job) -> Block:
    """Return a region around the corner of tiles that is nearest to the middle of what was to be segmented."""
    begin, end = [], []
    wanted = job.roi or Block.whole(job.shape)
    for low, high, cell, size in zip(wanted.begin, wanted.end, job.fragment_tiles.cell, REGION, strict=True):
        corner = min(max(round((low + high) / 2 / cell), 1) * cell, high - 1)
        first = min(max(low, corner - size // 2), max(low, high - size))
        begin.append(first)
        end.append(min(high, first + size))
    return Block(tuple(begin), tuple(end))


def _made_again(job: Job, box: Block, shift: Index) -> npt.NDArray[np.uint64]:
    """Return the segmentation of a box by itself, its watershed tiles shifted."""
    halo, config = halo_of(job), job.fragments_config
    dimension: Literal["2d", "3d"] = "2d" if config.dimension == "2d" else "3d"
    reach = box.grow(halo).clip(job.shape)
    boundaries, tissue = stored_walls(job, reach)
    fragments, opened = np.zeros(box.shape, np.int64), np.zeros(box.shape, np.uint8)
    counts: list[int] = []
    for tile in _shifted_tiles(job.fragment_tiles.cell, box, shift):
        window = tile.grow(halo).clip(job.shape)
        cut, hole = boundaries[window.within(reach).slices], ~tissue[tile.within(reach).slices]
        labels, found, faces = fragments_tile(cut, tile.within(window), config, dimension, job.source.voxel_size, hole)
        fragments[tile.within(box).slices] = np.where(labels > 0, labels + np.int64(sum(counts)), 0)
        opened[tile.within(box).slices] = faces
        counts.append(found)
    inside = boundaries[box.within(reach).slices]
    table = edge_table(fragments, inside, Block.whole(box.shape), across=not job.flat, faces=opened)
    count, settings = sum(counts), job.config.agglomerate
    ids = np.arange(1, count + 1, dtype=np.uint64)
    nodes = node_table(fragments, Block.whole(box.shape), ids, box.begin, job.shape)
    profiles = None
    if job.sectioned and job.learned is None:
        tiles = np.repeat(np.arange(len(counts)), counts)
        profiles = join_profiles(ids, nodes.voxels, tiles, [table], settings.beta_profiles, settings.size_weighting)
    groups = solve(count + 1, table.uv, costs_of_edges(job, table, nodes, profiles), settings.solver) + np.uint64(1)
    groups[0] = 0
    return np.asarray(groups[fragments])


def stored_walls(job: Job, box: Block) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.bool_]]:
    """Return what `vimvol.stages.fragments.read_walls` does, without the input: all tissue, and no more, has fragments.

    That is so where fragments are watersheds; not where they are cells (`Job.stitched`).
    """
    tissue = read_box(job.fragments, box) > 0
    boundaries = read_boundaries(job, box)
    boundaries[~tissue] = 255
    return boundaries, tissue


def _shifted_tiles(cell: Index, box: Block, shift: Index) -> Iterator[Block]:
    """Yield the tiles of a shifted grid, cut to a box."""
    cuts = []
    for c, s, begin, end in zip(cell, shift, box.begin, box.end, strict=True):
        inner = [p for p in range((begin - s) // c * c + s, end, c) if p > begin]
        cuts.append(list(itertools.pairwise([begin, *inner, end])))
    for corner in itertools.product(*cuts):
        yield Block(tuple(b for b, _ in corner), tuple(e for _, e in corner))


def _pieces(labels: npt.NDArray[np.uint64]) -> tuple[npt.NDArray[np.uint32], int]:
    """Return the connected pieces of the segments in a region, numbered, and how many there are."""
    small = np.unique(labels, return_inverse=True)[1].reshape(labels.shape).astype(np.uint32)
    return crop_and_relabel(small + np.uint32(labels.min() > 0), Block.whole(labels.shape))
