"""Planes at which something meets in an output, and where they are looked at beside planes at which nothing does."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

from vimvol.geometry import Block, Grid, Index
from vimvol.stages.job import Job
from vimvol.stages.solve import hierarchy_of

WINDOW = (64, 256, 256)
"""Voxels (z, y, x) of a place where endings are counted; one plane thick across the seam."""
PLACES = 100
"""Places of a family of planes that are looked at, spread evenly over the volume."""
CONTROLS = 4
"""Planes near a seam that it is compared with."""


@dataclass(frozen=True)
class Family:
    """Planes at all multiples of a step along an axis.

    Attributes
    ----------
    names
        What meets there.
    axis
        0, 1, 2 for z, y, x.
    step
        Voxels between planes.
    """

    names: tuple[str, ...]
    axis: int
    step: int


def families_of(job: Job, levels: range) -> Iterator[Family]:
    """Yield the planes inside a volume at which something meets, those of one place under all their names.

    Parameters
    ----------
    job
        The job.
    levels
        Levels at which the graph was solved in parts.
    """
    across = {"y": " across y", "x": " across x"}
    cells = {
        "shard": job.shard,
        "watershed tile": job.fragment_tiles.cell,
        **{"prediction tile" + across.get(plane.axis, ""): plane.cell for plane in job.planes},
        "subproblem": hierarchy_of(job).cells(levels.start).cell if levels else job.shape,
    }
    for axis in (1, 2) if job.flat else (0, 1, 2):
        # planes at every voxel, as between slices, have nothing between them to compare with
        steps = sorted({cell[axis] for cell in cells.values() if 1 < cell[axis] < job.shape[axis]})
        for step in steps:
            yield Family(tuple(name for name, cell in cells.items() if cell[axis] == step), axis, step)


def looks_at(family: Family, families: list[Family], shape: Index) -> list[tuple[list[int], Block]]:
    """Return what is looked at of a family: a plane and those near it that it is compared with, and the box of both."""
    axis = family.axis
    steps = [other.step for other in families if other.axis == axis]
    planes = range(family.step, shape[axis], family.step)
    sizes = [min(w, s) for w, s in zip(WINDOW, shape, strict=True)]
    sizes[axis] = shape[axis]
    window = Grid(shape, tuple(sizes))
    total = len(planes) * len(window)
    found = []
    for number in range(min(PLACES, total)):
        at, where = divmod(number * total // min(PLACES, total), len(window))
        near = [planes[at], *_controls(planes[at], shape[axis], steps)]
        whole = window.block(window.index(where))
        box = Block(
            tuple(min(near) - 1 if a == axis else b for a, b in enumerate(whole.begin)),
            tuple(max(near) + 1 if a == axis else e for a, e in enumerate(whole.end)),
        )
        found.append((near, box))
    return found


def _controls(plane: int, extent: int, steps: list[int]) -> list[int]:
    """Return the nearest planes at which nothing meets, right at the seam excepted."""
    found: list[int] = []
    for distance, sign in itertools.product(range(2, extent), (1, -1)):
        other = plane + sign * distance
        if 0 < other < extent and all(other % step for step in steps):
            found.append(other)
        if len(found) == CONTROLS:
            break
    return found
