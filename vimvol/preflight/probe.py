"""What a block takes of a worker: it goes through all stages there, in a folder of its own, and is timed.

The worker is one of the run's own, the network and the data are the real ones: what a block takes is measured and not
modelled. It is probed by the job with the block as its region of interest, so by the very code of the stages.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from vimvol.engine.blocks import BlockTask, compute_blocks
from vimvol.engine.lock import Permit
from vimvol.engine.usage import Usage, memory_of_process, release_memory
from vimvol.geometry import Block
from vimvol.io.arrays import read_box, write_box
from vimvol.io.fence import writing_only_if
from vimvol.io.volume import forget_open
from vimvol.preflight.disk import stored_bytes
from vimvol.segment.multicut.division import merge_costs, solve_table
from vimvol.stages.costs import costs_stage
from vimvol.stages.fragments import FragmentsBlock, fragments_stage, reach_of, read_fragments, write_offsets
from vimvol.stages.graph import graph_stage
from vimvol.stages.job import Job
from vimvol.stages.levels import LevelReport
from vimvol.stages.predict import PredictBlock
from vimvol.stages.pyramid import pyramid_stages
from vimvol.stages.sizes import contacts_stage, sizes_stage
from vimvol.stages.solve import Solve, all_costs, solve_stage, solver_of
from vimvol.stages.stage import Stage
from vimvol.stages.write import write_stage

WARM_UP = "warm-up"
EDGES_BEYOND = {"3d": (3, 3, 3), "2d": (2, 1, 1)}
"""Edges that a fragment, 3D or 2D, at the end of a block along z, y, x has beyond it, rather too few: along z 3.4 were
measured between blocks of FIB-25 (3D) and 2.3 between those of VNC (2D); within slices 2D fragments touch in lines."""


@dataclass(frozen=True)
class Taken:
    """What a stage took for the block.

    Attributes
    ----------
    voxels
        Of the block in the region of interest, at full resolution, also where a level of the pyramid is made from it.
    largest
        Voxels of the largest box that was computed at once.
    seconds
        Wall time.
    usage
        Of the worker process.
    base
        Bytes of memory that the process had before.
    """

    voxels: int
    largest: int
    seconds: float
    usage: Usage
    base: int


@dataclass(frozen=True)
class Probe:
    """What one block took.

    Attributes
    ----------
    job
        The job whose region of interest and output are those of the sample.
    block
        The block.
    stages
        What the stages took, by the first word of their names.
    result
        What the prediction returned; none: the boundaries were there.
    edges
        Edges of the block's graph.
    fragments
        Its fragments.
    stored
        Bytes that what its stages wrote takes on the disk, in whole blocks of the file system.
    solving
        Seconds that partitioning this graph took; what else the stage of that name took does not grow with it.
    besides
        Seconds that a stage takes besides its blocks.
    """

    job: Job
    block: Block
    stages: dict[str, Taken]
    result: dict[str, Any] | None = None
    edges: int = 0
    fragments: int = 0
    stored: int = 0
    solving: float = 0.0
    besides: float = 0.0

    @property
    def region(self) -> Block:
        """The part of the block in the region of interest."""
        return _region_of(self.job)


def _region_of(job: Job) -> Block:
    """Return the region of interest of a sample, which has one."""
    assert job.roi is not None
    return job.roi


def probe_prediction(job: Job, block: Block, permit: Permit) -> Probe:
    """Predict the block, on a worker; before that one tile, for which the network is loaded and loops compiled."""
    with writing_only_if(permit.check):
        _timed(WARM_UP, PredictBlock(_smallest(job)), [block], _region_of(job).size, 0)
        # or what the warm-up has read would be at hand
        forget_open()
        release_memory()
        taken, results = _timed("predict", PredictBlock(job), [block], _region_of(job).size, memory_of_process())
    return Probe(job, block, {"predict": taken}, results[0])


def probe_others(probe: Probe, roi: Block | None, permit: Permit) -> Probe:
    """Take the block of a job with this region through the other stages, on a worker; before that a single voxel."""
    with writing_only_if(permit.check):
        _stages(_smallest(probe.job), probe.block, probe.job.roi, warm_up=True)
        _surround(probe.job, probe.block)
        forget_open()
        found = _stages(probe.job, probe.block, roi, warm_up=False)
    stored = _stored(probe.job, boundaries=bool(probe.stages))
    return replace(found, stages=probe.stages | found.stages, result=probe.result, stored=stored)


def _smallest(job: Job) -> Job:
    """Return the job of one voxel in the middle of its region."""
    region = _region_of(job)
    middle = tuple((b + e) // 2 for b, e in zip(region.begin, region.end, strict=True))
    return replace(job, roi=Block(middle, tuple(m + 1 for m in middle)))


def _surround(job: Job, block: Block) -> None:
    """Surround the boundaries of the block by their mirror image, so that its fragments cost what they will."""
    channels = job.network.channels
    reach = reach_of(job, block).hull(block)
    inside = read_box(job.boundaries, Block((0, *block.begin), (channels, *block.end)))
    pad = [(b - r, s - e) for r, b, e, s in zip(reach.begin, block.begin, block.end, reach.end, strict=True)]
    write_box(
        job.boundaries, Block((0, *reach.begin), (channels, *reach.end)), np.pad(inside, [(0, 0), *pad], "symmetric")
    )


def _stored(job: Job, *, boundaries: bool) -> int:
    """Return the bytes that a sample takes on the disk but for what does not grow, its metadata; 0 behind a URL."""
    whole = stored_bytes(Path(job.out), but="zarr.json")
    return whole if boundaries else whole - stored_bytes(Path(job.boundaries), but="zarr.json")


def _stages(job: Job, block: Block, roi: Block | None, *, warm_up: bool) -> Probe:
    """Take a block through all stages but the first; fragments are made as in a job with the region ``roi``."""
    stages = {}
    # of all stages, and without what earlier ones left to be used again: it is no part of what the process has besides
    release_memory()
    base = memory_of_process()

    def timed(stage: Stage, blocks: Iterable[Block] | None = None) -> list[dict[str, Any]]:
        name, boxes = WARM_UP if warm_up else stage.kind, list(stage.plan if blocks is None else blocks)
        stages[stage.kind], results = _timed(name, stage.task, boxes, _region_of(job).size, base)
        return results

    made = timed(replace(fragments_stage(job), task=FragmentsBlock(replace(job, roi=roi))))
    # tiles of all that lies behind would take longer than the sample
    seen = _region_of(job).grow((1, 1, 1)).clip(job.shape)
    write_offsets(job, made, max(map(job.fragment_tiles.flat, job.fragment_tiles.overlapping(seen))))
    timed(graph_stage(job))
    edges = sum(result["edges"] for result in timed(costs_stage(job)))
    start = time.perf_counter()
    solve_table(merge_costs(all_costs(job)), solver_of(job))
    solving = time.perf_counter() - start
    (solved,) = timed(replace(solve_stage(job), task=Solve(job, (LevelReport(0, edges, 0.0),))))
    if job.small_below:
        timed(contacts_stage(job))
    timed(sizes_stage(job))
    timed(write_stage(job))
    if len(job.levels) > 1:
        level = job.levels[1]
        coarse = [block.coarser(level.factor).clip(level.shape)]
        for labels in (True, False):
            timed(next(pyramid_stages(job, labels=labels)), coarse)
    edges += 0 if job.stitched else _beyond(job, block, roi)
    release_memory()
    return Probe(job, block, stages, None, edges, solved["fragments"], solving=solving)


def _beyond(job: Job, block: Block, roi: Block | None) -> int:
    """Return about how many edges lead out of the block towards higher coordinates, in a job with this region."""
    labels = read_fragments(job, block).labels
    last = job.shape if roi is None else roi.end
    edges = 0
    for axis, each in enumerate(EDGES_BEYOND["3d" if job.fragments_config.dimension == "3d" else "2d"]):
        if block.end[axis] < last[axis] and (axis or not job.flat):
            end = np.take(labels, -1, axis=axis)
            edges += each * len(np.unique(end[end > 0]))
    return edges


def _timed(
    stage: str, task: BlockTask, blocks: Sequence[Block], voxels: int, base: int
) -> tuple[Taken, list[dict[str, Any]]]:
    """Compute blocks and return what that took, and what they returned."""
    release_memory()
    outcomes = compute_blocks(task, blocks, stage)
    for outcome in outcomes:
        if outcome.error is not None:
            raise outcome.error
    largest = max(block.size for block in blocks)
    usage = sum((outcome.usage for outcome in outcomes), Usage())
    seconds = sum(outcome.seconds for outcome in outcomes)
    return Taken(voxels, largest, seconds, usage, base), [outcome.result or {} for outcome in outcomes]
