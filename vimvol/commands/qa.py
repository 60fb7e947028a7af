"""Quality: whether the planes where blocks meet can be seen in a segmentation.

Two questions. Do more segments end at the planes of shards, watershed tiles, prediction tiles or subproblems than at
planes between them? And does a region come out the same if its fragments are made on tiles that lie elsewhere? Both
read samples of bounded size, whatever the size of the volume.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from vimvol.engine.run import Progress
from vimvol.errors import DiskFullError, InputError, StorageError, VimvolError
from vimvol.evaluate.seams import Endings, endings, judge
from vimvol.geometry import Block
from vimvol.io.arrays import read_box
from vimvol.io.mask import open_mask
from vimvol.io.objects import open_objects
from vimvol.io.storage import holds_node
from vimvol.io.volume import forget_open
from vimvol.outputs.beside import note_of, refuse_stale
from vimvol.outputs.manifest import STORED, finished_run, input_address, settings_of
from vimvol.outputs.ownership import lock_of
from vimvol.outputs.stored import PLANES, stored_job
from vimvol.preflight.prepare import prepare
from vimvol.quality.planes import Family, families_of, looks_at
from vimvol.quality.shifted import compare_shifted
from vimvol.report.progress import silent
from vimvol.report.seam import draw_seam
from vimvol.stages.fragments import read_boundaries
from vimvol.stages.job import Job
from vimvol.stages.levels import levels_reduced
from vimvol.stages.names import SEGMENTATION
from vimvol.stages.region import wanted_voxels


@dataclass(frozen=True)
class Place:
    """Endings at one place of a plane, and at planes near it."""

    box: Block
    axis: int
    plane: int
    seam: Endings
    interior: Endings
    planes: int


def check_seams(out: str, *, name: str = SEGMENTATION, progress: Progress | None = None) -> dict[str, Any]:
    """Look for seams in a finished output. Its input and the network may be gone; a mask that it had must be there.

    Parameters
    ----------
    out
        Path of an output of `vimvol.commands.segment.segment_volume`.
    name
        Name of the segmentation among its labels.
    progress
        Who is told how far it is; none: nobody.

    Returns
    -------
    dict
        ``passed``; ``planes``: one entry a family of planes; ``shifted``: the comparison with shifted tiles, none where
        there is nothing to shift; ``worst``: the place of the largest excess of endings, with its ``picture``. The same
        is written to ``OUT/vimvol/qa.json``, of another segmentation ``qa-NAME.json``, where that can be written; else
        there is no picture either. In that there are no intensities where the input is gone.

    Raises
    ------
    InputError
        If ``out`` is no complete output, or has no such segmentation, or that is not complete or stale.
    """
    manifest = finished_run(out)
    telling = progress or silent()
    try:
        made = manifest if name == SEGMENTATION else _made_beside(out, manifest, name)
        job = replace(_job(out, made), name=name)
        labels = f"{job.labels}/0"
        families = list(families_of(job, levels_reduced([level["level"] for level in made.get("levels", ())])))
        planes, places = [], []
        for family in families:
            found = list(_places(family, families, job, labels, telling))
            places += found
            count = max((place.planes for place in found), default=0)
            verdict = judge([p.seam for p in found], [p.interior for p in found], count, len(families))
            planes.append(
                {
                    "what": ", ".join(family.names),
                    "axis": "zyx"[family.axis],
                    "step": family.step,
                    "segments": verdict.seam.total,
                    "rate": round(verdict.seam.rate, 4),
                    "interior": round(verdict.interior.rate, 4),
                    "p": verdict.p,
                    "passed": verdict.passed,
                }
            )
        shifted = compare_shifted(job, labels, telling.note)
        worst = _worst(places)
        shown = None if worst is None else _draw(job, labels, worst)
    finally:
        forget_open()
    result = {
        "segmentation": labels,
        "passed": all(p["passed"] for p in planes) and (shifted is None or shifted["passed"]),
        "planes": planes,
        "shifted": shifted,
        "worst": shown,
    }
    try:
        open_objects(job.work).put(f"{_report_of(job)}.json", (json.dumps(result, indent=2) + "\n").encode())
    except DiskFullError:
        raise
    except StorageError:
        pass  # who may only read an output is told all of it anyway
    return result


def _made_beside(out: str, manifest: dict[str, Any], name: str) -> dict[str, Any]:
    """Return the manifest of a run with the settings and levels of another segmentation in its output.

    Of labels that vimvol did not make, nothing is known of how they were solved: they have no levels.
    """
    if not holds_node(f"{out}/labels/{name}"):
        raise InputError(f"{out} has no segmentation {name!r}, so there is nothing to check; give one that it has")
    note = note_of(out, f"labels/{name}")
    if not note:
        return {**manifest, "levels": ()}
    if note.get("state") != "complete":
        lock_of(out).refuse_if_held()  # it will be, then
        raise InputError(f"segmentation {name!r} of {out} is not complete; run vimvol agglomerate again first")
    refuse_stale(out, name, manifest, "what is stored cannot tell where its parts met")
    return {**manifest, "config": note["config"], "levels": note["levels"]}


def _job(out: str, manifest: dict[str, Any]) -> Job:
    """Return the job of a segmentation: from what is stored, or where an earlier version made it from its input."""
    config = settings_of(manifest)
    if PLANES not in manifest.get(STORED, {}):
        return prepare(input_address(manifest), out, config)
    job = stored_job(out, manifest, config)
    return job if config.input.mask is None else replace(job, mask=open_mask(config.input.mask, job.source))


def _report_of(job: Job) -> str:
    """Return what the files of a report are called."""
    return "qa" if job.name == SEGMENTATION else f"qa-{job.name}"


def _places(family: Family, families: list[Family], job: Job, labels: str, progress: Progress) -> Iterator[Place]:
    """Yield the endings at every place of a family that is looked at."""
    axis, looks = family.axis, looks_at(family, families, job.shape)
    voxels = sum(box.size for _, box in looks)
    progress.stage(f"{'zyx'[axis]} every {family.step}", len(looks), 0, voxels)
    for near, box in looks:
        slices = np.moveaxis(read_box(labels, box), axis, 0)
        # A segment that ends with the region of interest or the mask ends at no seam.
        wanted = np.moveaxis(wanted_voxels(job.roi, job.mask, box), axis, 0)
        first = box.begin[axis]
        counted = []
        for p in (p - first for p in near):
            both = wanted[p - 1] & wanted[p]
            counted.append(endings(np.where(both, slices[p - 1], 0), np.where(both, slices[p], 0)))
        yield Place(box, axis, near[0], counted[0], sum(counted[1:], Endings(0, 0)), len(near) - 1)
        progress.advance(1, box.size)
    progress.finish()


def _worst(places: list[Place]) -> Place | None:
    """Return the place with the largest excess of endings."""
    return max(places, key=lambda p: p.seam.ended - p.interior.rate * p.seam.total, default=None)


def _draw(job: Job, labels: str, place: Place) -> dict[str, Any]:
    """Draw a cut through the worst place, across the seam; return where it is."""
    axis = place.axis
    # across the seam and along x, or along y where x is across
    along = 1 if axis == 2 else 2
    middle = [(b + e) // 2 for b, e in zip(place.box.begin, place.box.end, strict=True)]
    half = [0, 0, 0]
    half[axis] = half[along] = 128
    middle[axis] = place.plane
    box = Block(
        tuple(m - h for m, h in zip(middle, half, strict=True)),
        tuple(m + max(h, 1) for m, h in zip(middle, half, strict=True)),
    ).clip(job.shape)
    flat = 3 - axis - along
    rows, columns = sorted((axis, along))
    raw: npt.NDArray[Any] | None = None
    with contextlib.suppress(VimvolError):  # it may be gone
        raw = job.source.read(box).squeeze(flat)
    boundaries, segmentation = read_boundaries(job, box), read_box(labels, box)
    path = f"{job.work}/{_report_of(job)}.png"
    picture: str | None = path
    try:
        draw_seam(
            raw,
            boundaries.squeeze(flat),
            segmentation.squeeze(flat),
            path,
            seam=place.plane - box.begin[axis],
            horizontal=axis == rows,
            aspect=job.source.voxel_size[rows] / job.source.voxel_size[columns],
            title=f"{'zyx'[axis]} = {place.plane}, {place.seam.ended} of {place.seam.total} segments end, "
            f"{place.interior.rate:.0%} near it",
        )
    except StorageError:  # who may only read an output is told the rest
        picture = None
    return {
        "axis": "zyx"[axis],
        "plane": place.plane,
        "box": str(place.box),
        "ended": place.seam.ended,
        "segments": place.seam.total,
        "interior": round(place.interior.rate, 4),
        "picture": picture,
    }
