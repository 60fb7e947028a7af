"""Replaced sections: a run on an input some sections of which are new keeps what does not depend on these.

The user says which sections were replaced; nothing checks that the others are the same. What was recorded of a block
under the keys of the old input is taken over under those of the new, unless the block read a changed slice: predictions
whose window holds a replaced section; fragments near a changed prediction; edges of changed fragments. Fragments are
stored by tile and tables by place (see `vimvol.stages.fragments`), so no id of the others changes. Costs, solution and
labels are made again, since every segment may be another.

The statistics that standardise intensities stay those of the first run, but for replaced slices where every slice has
its own: a volume whose mean changed by a hair would have to be predicted anew. So the result is, to the byte, that of a
new run on the new input with these statistics. Statistics and sections are in the manifest, and replaced sections are
part of the keys.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from vimvol.engine.ledger import Ledger
from vimvol.engine.segments import make_segment
from vimvol.errors import InputError, OutputExistsError
from vimvol.geometry import Block, Index
from vimvol.infer.standardization import Standardization
from vimvol.outputs.ahead import no_run_to_keep, not_only_replaced
from vimvol.outputs.manifest import read_manifest, recorded_settings
from vimvol.stages.fragments import fragments_stage, halo_of, reach_of
from vimvol.stages.graph import graph_stage
from vimvol.stages.job import Job, Sections
from vimvol.stages.predict import predict_stage, read_by_prediction
from vimvol.stages.pyramid import pyramid_stages
from vimvol.stages.region import context_of_missing
from vimvol.stages.stage import Stage

RECORDS_AT_ONCE = 1 << 16
"""Records that are taken over together: more would take memory, fewer would be many objects."""

Slices = npt.NDArray[np.bool_]
"""(Z,) whether a slice is another than before."""


def as_recorded(job: Job) -> Job:
    """Return a job with what its output has recorded of replaced sections, if that was on the same input."""
    try:
        manifest = read_manifest(job.out) or {}
    except OutputExistsError:  # no output of ours: whoever wants to write there is told
        return job
    same = bool(manifest.get("replaced")) and manifest["input"]["identity"] == job.identity
    return _recorded(job, manifest) if same and _surveys_the_same(job, manifest) else job


def with_replaced(job: Job, sections: Sequence[Sections], *, overwrite: bool) -> Job:
    """Return the job that goes on with an output after sections of its input have been replaced.

    Parameters
    ----------
    job
        The job on the new input.
    sections
        First section, and section after the last, of every range that was replaced.
    overwrite
        Whether other settings may differ, too.

    Raises
    ------
    InputError
        If a range lies outside, the output holds nothing to keep, or was made with other settings.
    """
    depth = job.shape[0]
    for begin, end in sections:
        if not 0 <= begin < end <= depth:
            raise InputError(
                f"sections {begin}:{end} are no part of the {depth} of {job.source.address}, so they cannot have been "
                "replaced; give first:end"
            )
    manifest = read_manifest(job.out)
    if manifest is None:
        raise no_run_to_keep(job.out)
    wanted, before = tuple((b, e) for b, e in sections), _history(manifest)
    if manifest["state"] != "complete" and manifest["keys"] == job.keys and before[-len(wanted) :] == wanted:
        return job  # the same command again: it goes on
    old = _recorded(job, manifest)
    if old.keys_of(manifest["input"]["identity"]) != manifest["keys"] and not (
        overwrite and _surveys_the_same(job, manifest)
    ):
        raise not_only_replaced(job.out, manifest, job.config)
    new = _mixed(old.standardization, job.standardization, wanted, depth)
    return replace(old, replaced=(*before, *wanted), standardization=new)


def carry_over(job: Job) -> None:
    """Take over what is recorded in the output and does not depend on sections replaced since.

    Does nothing if none were. The caller holds the lock of the output. A crash leaves records under keys that only the
    same command asks for.
    """
    manifest = read_manifest(job.out)
    before = _history(manifest or {})
    sections = job.replaced[len(before) :]
    if manifest is None or not sections or job.replaced[: len(before)] != before or manifest["keys"] == job.keys:
        return
    keys = _recorded(job, manifest).keys_of(manifest["input"]["identity"])
    for stage, stale in _stages(job, sections):
        if keys[stage.kind] == manifest["keys"].get(stage.kind):
            _adopt(stage.ledger, keys[stage.kind], stale)


def _stages(job: Job, sections: Sequence[Sections]) -> list[tuple[Stage, Callable[[Block], bool]]]:
    """Return the stages that keep records, and for each what tells whether a block is stale."""
    raw = np.zeros(job.shape[0], bool)
    for begin, end in sections:
        raw[begin:end] = True
    predicted = _slices(job, lambda box: _touches(read_by_prediction(job, box), raw))
    fragments = predicted.copy()
    tiles = job.fragment_tiles
    for layer in range(tiles.counts[0]):
        tile = tiles.block((layer, 0, 0))
        window = context_of_missing(job, tile.grow(halo_of(job)).clip(job.shape))
        fragments[tile.begin[0] : tile.end[0]] |= _touches(window, predicted)
    graph = graph_stage(job)
    blocks = set(graph.plan)
    found: list[tuple[Stage, Callable[[Block], bool]]] = [
        (predict_stage(job), lambda block: _touches(read_by_prediction(job, block), raw)),
        (fragments_stage(job), lambda block: _touches(context_of_missing(job, reach_of(job, block)), predicted)),
        # tables are named by their blocks, and a block looks at the first voxels behind it
        (graph, lambda b: b not in blocks or _touches(b.grow((0, 0, 0), (1, 0, 0)), fragments)),
    ]
    for stage, level in zip(pyramid_stages(job, labels=False), job.levels[1:], strict=True):
        found.append((stage, _coarser(predicted, level.factor)))
    return found


def _coarser(changed: Slices, factor: Index) -> Callable[[Block], bool]:
    """Return what tells whether a block of a level of the pyramid is made of changed slices."""
    step = factor[0]
    return lambda block: bool(changed[block.begin[0] * step : block.end[0] * step].any())


def _slices(job: Job, changes: Callable[[Block], bool]) -> Slices:
    depth, *plane = job.shape
    return np.array([changes(Block((z, 0, 0), (z + 1, plane[0], plane[1]))) for z in range(depth)])


def _touches(box: Block, changed: Slices) -> bool:
    return bool(changed[max(box.begin[0], 0) : box.end[0]].any())


def _adopt(ledger: Ledger, key: str, stale: Callable[[Block], bool]) -> None:
    """Write the records of finished blocks under another key down under that of a ledger, but for stale ones."""
    for segment in replace(ledger, key=key).segments():
        kept = (record for record in segment.records() if not record[1] and not stale(record[0]))
        while part := list(itertools.islice(kept, RECORDS_AT_ONCE)):
            ledger.write(make_segment(part))


def _recorded(job: Job, manifest: dict[str, Any]) -> Job:
    """Return the job with the statistics and replaced sections of a manifest."""
    numbers = manifest["standardization"]
    recorded = Standardization(tuple(numbers["mean"]), tuple(numbers["std"]))
    return replace(job, replaced=_history(manifest), standardization=recorded)


def _surveys_the_same(job: Job, manifest: dict[str, Any]) -> bool:
    """Tell whether the settings that statistics depend on are those of the manifest."""
    before, now = recorded_settings(manifest), job.config.model_dump(mode="json", exclude={"run"})
    shown = ("normalize", "invert")
    return bool(before["input"] == now["input"] and all(before["predict"][k] == now["predict"][k] for k in shown))


def _history(manifest: dict[str, Any]) -> tuple[Sections, ...]:
    return tuple((begin, end) for begin, end in manifest.get("replaced", ()))


def _mixed(old: Standardization, new: Standardization, sections: Sequence[Sections], depth: int) -> Standardization:
    """Return the old statistics, where every slice has its own with the new ones of replaced slices."""
    if not len(old.mean) == len(new.mean) == depth:
        return old
    mean, std = list(old.mean), list(old.std)
    for begin, end in sections:
        mean[begin:end], std[begin:end] = new.mean[begin:end], new.std[begin:end]
    return Standardization(tuple(mean), tuple(std))
