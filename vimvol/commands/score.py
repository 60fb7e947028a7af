"""Scoring: a segmentation against a ground truth, block by block, in memory that does not grow with the volume.

What grows is the table of overlaps: one row for every pair of a segment and an object that meet.
"""

from __future__ import annotations

import csv
import io
import math
import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from vimvol.commands.labels import apart_text, check_labels, look_at, sliced_text
from vimvol.engine.cluster import open_cluster
from vimvol.engine.pool import Pool
from vimvol.engine.run import Progress
from vimvol.errors import InputError
from vimvol.evaluate.metrics import METRICS
from vimvol.evaluate.objects import COLUMNS, Places, largest_errors
from vimvol.evaluate.protocol import PARTITION_METRICS, SMALL, score_slice
from vimvol.geometry import Block, Grid, Index, round_up
from vimvol.io import Volume, open_volume
from vimvol.outputs.beside import stale_labels_text
from vimvol.outputs.manifest import has_manifest, read_manifest
from vimvol.outputs.standing import check_finished
from vimvol.quality.counting import CountBlock, Counted, Gathered
from vimvol.report.progress import silent

MODES = ("auto", "2d", "3d")
BANDS = (0, 2)
"""Voxels next to a boundary of the ground truth that are left out; without any, where exactly annotators drew a
boundary costs about .3 bits of each VOI."""
CELL = (32, 1024, 1024)
"""Voxels (z, y, x) of one block, rounded up to the chunks of the segmentation."""
LARGE = 10**9
"""Voxels from which blocks are counted in several processes, unless the caller says how many."""


def score(
    segmentation: str | os.PathLike[str],
    ground_truth: str | os.PathLike[str],
    mode: str = "auto",
    *,
    bands: Sequence[int] | None = None,
    ignore: Sequence[int] = (),
    background: str = "ignore",
    objects: bool = False,
    workers: int | None = None,
    cell: Index = CELL,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Score a segmentation against a ground truth.

    Parameters
    ----------
    segmentation, ground_truth
        ``PATH[:DATASET]`` of (z, y, x) integers of one shape.
    mode
        ``3d``: bodies in the volume, once for each band along the boundaries of the ground truth; ``2d``: instances,
        the mean over slices; ``auto``: the mode in which vimvol made the segmentation, else by its depth.
    bands
        Voxels from the boundaries of the ground truth within which nothing is judged, in 3d mode; none: `BANDS`.
    ignore
        Labels of the ground truth that are not judged.
    background
        ``ignore``: label 0 of the ground truth is not judged, either, as nobody annotated it; ``keep``: it is
        background that counts, as between the cells of images, which are scored slice by slice.
    objects
        Also list the largest splits and merges, of the widest band.
    workers
        Processes that count; none: this one, or one a core for `LARGE` volumes.
    cell
        Voxels (z, y, x) that are counted at once, rounded up to chunks; with ``objects``, along x always those of
        `CELL`. The result does not depend on it.
    progress
        Who is told how far it is; none: nobody.

    Returns
    -------
    dict
        ``segmentation``, ``ground_truth``, ``mode``, ``background``; ``scores``: from a protocol's name to its metrics;
        ``region``: first voxel and voxel after the last (z, y, x) of what was scored, where that is not everything;
        ``warning``: one line, where the scores probably do not mean what they should;
        in 2d mode ``slices``: the metrics of every slice that was scored, with its number as ``slice``; and
        ``objects``: the rows of `vimvol.evaluate.objects.largest_errors`, if wanted.

    Raises
    ------
    InputError
        If one cannot be opened, the shapes differ, one holds intensities, a band or label is negative, bands are given
        in 2d mode, or nothing is left to judge.
    """
    if mode not in MODES:
        raise InputError(f"mode {mode!r} is not known, so nothing is scored; choose {', '.join(MODES)}")
    if background not in SMALL:
        raise InputError(f"background {background!r} is not known, so nothing is scored; choose {', '.join(SMALL)}")
    if background == "keep" and mode == "3d":
        raise InputError(
            "background = keep scores the cells of slices, and mode = 3d bodies in a volume, whose label 0 is never "
            "judged; leave out one of them"
        )
    if any(not 0 <= label < 2**64 for label in ignore):
        raise InputError(f"ignore = {list(ignore)} are no labels, so nothing is scored; give integers of 0 or more")
    if background == "keep" and 0 in ignore:
        raise InputError(
            "background = keep scores where the ground truth is 0, and ignore = 0 leaves that out; give one of them"
        )
    if bands is not None and (not bands or min(bands) < 0):
        raise InputError(f"bands = {list(bands)} do not name distances from a boundary; give 0 or more voxels")
    check_finished(os.fspath(segmentation), "missing parts would count as errors")
    found, truth = (open_volume(address, prefer="labels") for address in (segmentation, ground_truth))
    if found.shape != truth.shape:
        raise InputError(
            f"segmentation {found.address} has shape {found.shape} and ground truth {truth.address} {truth.shape} "
            "(z, y, x), so voxels do not correspond; crop one to the other"
        )
    if mode == "auto":
        mode = "2d" if background == "keep" else _mode_of(found)
    flat = mode == "2d"
    if flat and bands is not None:
        raise InputError(
            f"bands = {list(bands)} would leave out nothing, as this is scored in 2d mode, and only 3d mode has them; "
            "give none, or mode = 3d"
        )
    region = _region_of(found)
    looks = [look_at(volume, region) for volume in (found, truth)]
    for volume, look in zip((found, truth), looks, strict=True):
        check_labels(volume, look)
    stale = stale_labels_text(found.url, found.dataset, "its scores do not tell what the present settings are worth")
    sliced = "" if flat else sliced_text(truth, looks[1])
    warning = "; ".join(filter(None, (stale, apart_text(found, truth), sliced)))
    chunks = found.chunks or (1, 1, 1)
    cell = tuple(round_up(min(c, s), k) for c, s, k in zip(cell, found.shape, chunks, strict=True))
    if objects:  # their places are in the longest runs along x, which end with a block: always at the same voxels
        cell = (*cell[:2], CELL[2])
    grid = Grid(found.shape, cell)
    left_out = (*ignore,) if background == "keep" else (0, *ignore)
    task = CountBlock(found, truth, flat, (0,) if flat else sorted(set(bands or BANDS)), left_out, objects)
    if workers is None:
        workers = None if grid.voxels >= LARGE and len(grid) > 1 else 0
    with open_cluster("local", workers) as pool:
        counts = _run(pool, task, grid, region, progress or silent())
        tiles = math.prod(region.coarser(grid.cell).shape[1:])
        scored, rows = _slices(task, counts, tiles, SMALL[background]) if flat else _volume(task, counts)
    given: dict[str, Any] = {
        "segmentation": found.address,
        "ground_truth": truth.address,
        "mode": mode,
        "background": background,
    }
    if region != Block.whole(found.shape):
        given["region"] = [list(region.begin), list(region.end)]
    if warning:
        given["warning"] = warning
    return given | scored | ({"objects": rows} if objects else {})


def objects_csv(rows: Sequence[dict[str, Any]]) -> str:
    """Return the rows of `score` as the text of a CSV file."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _run(pool: Pool, task: CountBlock, grid: Grid, region: Block, progress: Progress) -> Iterator[Counted]:
    """Count all blocks of a region; a few are in flight, in the order of the storage."""
    parts = (grid.block(index).intersect(region) for index in grid)
    blocks = (part for part in parts if part.size)
    waiting: dict[int, Block] = {}
    progress.stage("count", math.prod(region.coarser(grid.cell).shape), 0, region.size, pool.slots)
    try:
        while True:
            while len(waiting) < 2 * pool.slots and (block := next(blocks, None)) is not None:
                waiting[pool.submit(task, block)] = block
            if not waiting:
                return
            ticket, outcome = pool.next_done()
            block = waiting.pop(ticket)
            if isinstance(outcome, BaseException):
                raise outcome
            yield from outcome
            progress.advance(1, block.size)
    finally:
        progress.finish()


def _volume(task: CountBlock, counts: Iterator[Counted]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the scores of the volume for every band, and the largest errors of the widest."""
    gathered = {band: Gathered() for band in task.bands}
    for counted in counts:
        gathered[counted.band].add(counted)
    tables = {band: one.table() for band, one in gathered.items()}
    for band, table in tables.items():
        if not len(table):
            raise _nothing_to_judge(task, band)
    scores = {
        "volume" if not band else f"volume, band {band}": {name: METRICS[name](table) for name in PARTITION_METRICS}
        for band, table in tables.items()
    }
    widest = max(task.bands)
    rows = largest_errors(tables[widest], Places.merge(gathered[widest].places)) if task.places else []
    return {"scores": scores}, rows


def _slices(
    task: CountBlock, counts: Iterator[Counted], tiles: int, min_size: int
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the scores of the slices, each forgotten as soon as its tiles are there, their mean, and errors."""
    open_slices: dict[int, Gathered] = {}
    scores: dict[int, dict[str, float]] = {}
    rows: dict[int, list[dict[str, Any]]] = {}
    for counted in counts:
        gathered = open_slices.setdefault(counted.slice, Gathered())
        gathered.add(counted)
        if gathered.blocks == tiles:
            table = open_slices.pop(counted.slice).table()
            if len(table):
                scores[counted.slice] = score_slice(table, min_size)
                if task.places:
                    rows[counted.slice] = largest_errors(table, Places.merge(gathered.places))
    if not scores:
        raise _nothing_to_judge(task)
    # In the order of the slices: a sum of floats depends on it.
    ordered = [{"slice": z} | scores[z] for z in sorted(scores)]
    means = {name: float(np.mean([one[name] for one in ordered])) for name in METRICS}
    errors = [row | {"bits": row["bits"] / len(ordered)} for z in sorted(rows) for row in rows[z]]
    return {"scores": {"slices": means}, "slices": ordered}, sorted(errors, key=lambda row: -row["bits"])


def _nothing_to_judge(task: CountBlock, band: int = 0) -> InputError:
    """Return the error of a ground truth of which everything is left out."""
    labels = sorted({*task.ignore} - {0})
    reasons = (
        *(["is 0"] if 0 in task.ignore else []),
        *([f"has label {', '.join(map(str, labels))}, which is ignored,"] if labels else []),
        *([f"lies nearer than {band} voxels to a boundary, its band,"] if band else []),
    )
    other = f"labels{' or a narrower band' if band else ''}"
    text = f"every voxel of ground truth {task.truth.address} {' or '.join(reasons)}".rstrip(",")
    return InputError(f"{text}, so nothing can be scored; give one with {other}")


def _region_of(volume: Volume) -> Block:
    """Return the region that vimvol was to segment, the rest being 0 without an error; else the whole volume."""
    whole = Block.whole(volume.shape)
    layout = (read_manifest(volume.url) or {}).get("layout", {}) if has_manifest(volume.url) else {}
    # a level of the pyramid counts other voxels
    if layout.get("roi") is None or tuple(layout["shape"]) != volume.shape:
        return whole
    return Block(*map(tuple, layout["roi"]))


def _mode_of(volume: Volume) -> str:
    """Return the mode that a segmentation was made in, as far as that can be known."""
    if has_manifest(volume.url):
        mode: str = (read_manifest(volume.url) or {}).get("mode", "3d")
        return mode
    return "3d" if volume.shape[0] > 1 else "2d"
