"""What a run will take: blocks, time, memory and bytes of every stage, from its plan and a sample of its blocks."""

from __future__ import annotations

import heapq
import math
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import replace

from vimvol.address import is_url
from vimvol.engine.missing import Missing
from vimvol.engine.pool import Pool, Resource, Room
from vimvol.engine.usage import memory_of_process
from vimvol.geometry import Block
from vimvol.outputs.expected import Forecast, StageForecast
from vimvol.preflight.disk import existing_parent
from vimvol.preflight.probe import Probe
from vimvol.preflight.survey import spread
from vimvol.segment.multicut import is_divisible
from vimvol.segment.multicut.division import bytes_per_edge
from vimvol.stages.graph import graph_stage
from vimvol.stages.job import Job
from vimvol.stages.order import stages_of
from vimvol.stages.predict import predict_stage
from vimvol.stages.pyramid import PyramidBlock
from vimvol.stages.region import wanted_voxels
from vimvol.stages.solve import AT_ONCE, BYTES_PER_FRAGMENT, hierarchy_of, solver_of
from vimvol.stages.stage import Stage

MANY = 10_000
"""Blocks of a stage from which on their distribution over the workers is not simulated: all end at about one time."""
LOOKS = 1000
"""Blocks at most whose mask is looked at for the share that holds something."""


def forecast(job: Job, probes: Sequence[Probe], pool: Pool | None, *, fresh: bool) -> Forecast:
    """Forecast a run.

    Parameters
    ----------
    job
        The job.
    probes
        What single blocks took; none: only counts are told.
    pool
        The workers; needed with what single blocks took only.
    fresh
        Whether nothing in the output counts as done, since it is laid out anew.
    """
    share = _wanted_share(job)
    stages = stages_of(job)
    wanted = {stage.resource for stage in stages if stage.resource is not None}
    rooms = {resource: pool.room_for(resource) for resource in wanted} if pool else {}
    slots = {resource: pool.slots_for(resource) for resource in wanted} if pool else {}
    found = []
    edges = fragments = None
    if probes:
        ratio = graph_stage(job).plan.wanted * share / sum(probe.region.size for probe in probes)
        edges, fragments = (int(ratio * sum(n)) for n in zip(*((p.edges, p.fragments) for p in probes), strict=True))
    solver = _solver_edges(job, edges or 0)
    memory = bytes_per_edge(solver_of(job)) * solver + BYTES_PER_FRAGMENT * (fragments or 0)
    for stage in stages:
        counted, sizes = _count(stage, fresh=fresh)
        if not probes or stage.kind not in probes[0].stages:
            found.append(counted)
        elif stage.kind == "solve":
            if (levels := _levels(job, probes, edges or 0, share, slots["CPU"], counted)) is not None:
                found.append(replace(levels, memory_limit=rooms["CPU"].memory))
            found.append(_solve(counted, probes, solver, memory))
        elif stage.resource is None:
            found.append(_solve(counted, probes, 0, BYTES_PER_FRAGMENT * (fragments or 0)))
        else:
            at_once, room = slots[stage.resource], rooms[stage.resource]
            found.append(_scaled(stage, counted, sizes, probes, share, at_once, room))
    written = sum(taken.usage.written for probe in probes for taken in probe.stages.values())
    blocky = max(1.0, sum(probe.stored for probe in probes) / max(1, written))
    return Forecast(
        tuple(found),
        workers=slots.get("CPU", 0),
        sampled=len(probes),
        edges=edges,
        solver=memory if probes else None,
        solver_limit=job.config.agglomerate.memory,
        divisible=is_divisible(solver_of(job)) or job.stitched,
        disk=int(blocky * sum(stage.written or 0 for stage in found)) if probes else None,
        free=None if is_url(job.out) else shutil.disk_usage(existing_parent(job.out)).free,
    )


def calls_left(stages: Iterable[Stage], *, fresh: bool) -> dict[Resource, int]:
    """Return the most blocks that a stage has left, by what they want of a worker; ``fresh`` as `forecast` takes it.

    The cells of a large graph, which is known only later, are no more than its blocks by default.
    """
    found: dict[Resource, int] = {"CPU": 0, "GPU": 0}
    for stage in stages:
        if stage.resource is not None:
            found[stage.resource] = max(found[stage.resource], _missing(stage, fresh=fresh).count(stage.plan).parts)
    return found


def makespan(sizes: Sequence[float], slots: int) -> float:
    """Return when the last of some blocks ends if each goes to the first worker that is free, in units of the sizes."""
    busy = [0.0] * min(slots, max(1, len(sizes)))
    for size in sizes:
        heapq.heapreplace(busy, busy[0] + size)
    return max(busy)


def _count(stage: Stage, *, fresh: bool) -> tuple[StageForecast, list[int]]:
    """Return how much of a stage is left, and the sizes of these blocks unless there are `MANY`."""
    plan, missing = stage.plan, _missing(stage, fresh=fresh)
    left = missing.count(plan)
    sizes = [plan.wanted_of(part) for part in missing.parts(plan)] if left.parts <= MANY else []
    return StageForecast(stage.name, left.finished + left.parts, left.parts, left.voxels), sizes


def _missing(stage: Stage, *, fresh: bool) -> Missing:
    blocks = stage.plan.blocks
    return Missing(blocks, blocks, None) if fresh else stage.ledger.missing(blocks)


def _scaled(
    stage: Stage,
    counted: StageForecast,
    sizes: Sequence[int],
    probes: Sequence[Probe],
    share: float,
    slots: int,
    room: Room,
) -> StageForecast:
    """Scale what the sample took by voxels."""
    taken = [probe.stages[stage.kind] for probe in probes]
    finer = math.prod(stage.task.factor) if isinstance(stage.task, PyramidBlock) else 1  # voxels that one is made from
    voxels = sum(each.voxels for each in taken)
    per_voxel = finer * share / voxels
    seconds = sum(each.seconds for each in taken) * per_voxel
    besides = max(probe.besides for probe in probes) if counted.left else 0.0
    blocks = stage.plan.blocks
    largest = math.prod(min(c, s) for c, s in zip(blocks.cell, blocks.shape, strict=True))
    # what a process has besides its blocks does not grow with them; several of the sample ran in it at once
    together = min(room.calls, -(-len(probes) * room.calls // slots))
    grown = [room.calls / together * max(1.0, largest / each.largest) for each in taken]
    peak = max(each.base + by * max(0, each.usage.peak - each.base) for by, each in zip(grown, taken, strict=True))
    # beside each that is computed, one block is read ahead and one is being written
    peak += room.calls * largest * stage.held
    return replace(
        counted,
        seconds=seconds * (makespan(sizes, slots) if sizes else counted.voxels / slots) + besides,
        cpu=sum(each.usage.cpu for each in taken) * per_voxel * counted.voxels,
        peak=int(peak) if counted.left else 0,
        memory_limit=room.memory,
        read=int(sum(each.usage.read for each in taken) * per_voxel * counted.voxels),
        written=int(sum(each.usage.written for each in taken) * per_voxel * counted.voxels),
    )


def _solver_edges(job: Job, edges: int) -> int:
    """Return the edges that the last solve takes at the most; a large graph is reduced first, if the solver lets it."""
    config = job.config.agglomerate
    if config.levels == 0 or not (is_divisible(solver_of(job)) or job.stitched):
        return edges
    return min(edges, AT_ONCE, config.memory // bytes_per_edge(solver_of(job)))


def _solve(stage: StageForecast, probes: Sequence[Probe], edges: int, memory: int) -> StageForecast:
    """Forecast a stage of one block in the process of the run: the last solve, or what comes after it."""
    if not stage.left:
        return stage
    sample = [probe.stages[stage.name] for probe in probes]
    of_sample = sum(probe.edges for probe in probes)
    solving = [probe.solving if edges else 0.0 for probe in probes]
    fixed = sum(max(0.0, t.seconds - s) for t, s in zip(sample, solving, strict=True)) / len(probes)
    seconds = fixed + sum(solving) * edges / max(1, of_sample)
    busy = sum(t.usage.cpu for t in sample) / max(1e-9, sum(t.seconds for t in sample))
    scale = max(1.0, edges / max(1, of_sample)) / len(probes)
    return replace(
        stage,
        seconds=seconds,
        cpu=min(1.0, busy) * seconds,
        peak=memory_of_process() + memory,
        read=int(scale * sum(t.usage.read for t in sample)),
        written=int(scale * sum(t.usage.written for t in sample)),
    )


def _levels(
    job: Job, probes: Sequence[Probe], edges: int, share: float, slots: int, solve: StageForecast
) -> StageForecast | None:
    """Forecast the first level of a large graph, which takes most of what all take; none if the graph is small.

    The edges lie in blocks of the region of interest, and of these in the share of which a mask leaves something.
    """
    if _solver_edges(job, edges) == edges and not job.config.agglomerate.levels:
        return None
    hierarchy = hierarchy_of(job)
    region = job.roi or Block.whole(job.shape)
    # if the mask left nothing out, there would be as many edges more
    cells = hierarchy.cells(hierarchy.lowest(int(edges / max(share, 1 / LOOKS)), hierarchy.filled([region])))
    left = 4 * len(cells) if solve.left else 0  # collect, decide, contract, reduce
    sampled = sum(probe.edges for probe in probes)
    slope = sum(probe.solving for probe in probes) / max(1, sampled)
    base = max(probe.stages["costs"].base for probe in probes)
    whole = math.prod(min(c, s) for c, s in zip(cells.cell, cells.shape, strict=True))
    per_cell = min(edges, sampled * whole // sum(probe.region.size for probe in probes))
    return StageForecast(
        "levels",
        4 * len(cells),
        left,
        solve.voxels,
        seconds=slope * edges / min(slots, len(cells)) if left else 0.0,
        cpu=slope * edges if left else 0.0,
        peak=base + bytes_per_edge(solver_of(job)) * per_cell if left else 0,
    )


def _wanted_share(job: Job) -> float:
    """Return the share of the blocks that the mask leaves something of; the others cost next to nothing."""
    plan = predict_stage(job).plan
    if job.mask is None or not len(plan):
        return 1.0
    looked = [plan[number] for number in spread(len(plan), LOOKS)]
    return sum(bool(wanted_voxels(job.roi, job.mask, block).any()) for block in looked) / len(looked)
