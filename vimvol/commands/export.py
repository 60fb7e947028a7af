"""Export: a finished output, or some of its segmentations, copied as OME-Zarr 0.4 for older viewers.

Arrays are copied block by block, as a run computes them: by any number of workers, and again only what is missing.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vimvol.address import absolute
from vimvol.commands.workers import workers_of
from vimvol.config.cluster import ClusterConfig
from vimvol.engine.cluster.enough import Calls
from vimvol.engine.ledger import Ledger, content_key
from vimvol.engine.plan import plan_stage
from vimvol.engine.run import Execution, Progress, run_stage
from vimvol.errors import IncompleteRunError
from vimvol.geometry import Block, Grid, Index
from vimvol.io.arrays import read_box, write_box
from vimvol.io.fence import may_write
from vimvol.io.objects import open_objects
from vimvol.io.omezarr_v04 import create_copy, finish_copy, levels_of, list_labels, missing_levels, reopen_copy
from vimvol.io.storage import join
from vimvol.outputs.beside import note_of
from vimvol.outputs.copies import check_copy, check_target, unit_of
from vimvol.outputs.images import Image, content_of
from vimvol.outputs.manifest import COPY
from vimvol.outputs.ownership import guard_of, owned
from vimvol.preflight.disk import check_writable
from vimvol.report.progress import silent

BEGUN = "begun"
"""Beside what a copy is known by, the folder of one digest an image that is being copied: of what the output said of it
when that began."""


@dataclass(frozen=True)
class CopyBlock:
    """Copies one block of one array.

    Attributes
    ----------
    source, target
        Paths or URLs of arrays of one shape, (z, y, x) or (c, z, y, x).
    channels
        Length of the channel axis; none: there is no such axis.
    dtype
        Of the target.
    """

    source: str
    target: str
    channels: int | None
    dtype: str

    def __call__(self, block: Block) -> dict[str, Any]:
        """Read and write the block's voxels of all channels."""
        box = block if self.channels is None else Block((0, *block.begin), (self.channels, *block.end))
        write_box(self.target, box, read_box(self.source, box).astype(self.dtype, copy=False), zarr_format=2)
        return {}


@dataclass(frozen=True)
class Exported:
    """What was copied.

    Attributes
    ----------
    target
        Path or URL of the copy.
    labels
        Names of the segmentations that were copied.
    kept
        Names of others that were in the copy, which are as they were.
    left_out
        Of every segmentation that is left out as it is stale, why and how to make it again, as a line.
    done_before
        Whether all was there, so that nothing was copied.
    """

    target: str
    labels: tuple[str, ...]
    kept: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    done_before: bool = False


def export(
    out: str,
    target: str,
    *,
    names: Sequence[str] = (),
    chunk: Sequence[int] | None = None,
    dtype: str = "uint64",
    cluster: str | ClusterConfig = "local",
    workers: int | None = None,
    progress: Progress | None = None,
) -> Exported:
    """Copy a finished output as OME-Zarr 0.4: boundaries and segmentations with their pyramids.

    A copy that was interrupted goes on where it stopped; of one that is complete, only what has changed since, such as
    a segmentation that was agglomerated again, is copied again.

    The output is not locked meanwhile: it may be one that can only be read, and several copies may be made of it at
    once. Whatever changes an output says so in its manifest, or in the note of a segmentation, before anything else.
    So these are looked at before an image is finished, and what was copied of one that has changed counts for nothing.

    Parameters
    ----------
    out
        Path or URL of an output of `vimvol.commands.segment.segment_volume`.
    target
        Path or URL of the copy.
    names
        Segmentations to copy; none: all that vimvol made, but for those that are not complete or stale.
    chunk
        Voxels (z, y, x) of a chunk, each of which is a file, since version 0.4 has no shards; none: that of the
        output. The output's shard is a multiple of it.
    dtype
        Of segmentations, ``uint64`` or ``uint32``.
    cluster, progress
        As in `vimvol.commands.segment.segment_volume`.
    workers
        Worker processes; none: as many as cores.

    Raises
    ------
    InputError
        If ``out`` is no complete output, something given does not fit it, or a segmentation of ``names`` is stale.
    OutputBusyError
        If a run writes ``out`` or ``target``.
    OutputExistsError
        If something else is at ``target``, as the copy of another output.
    StorageError, IncompleteRunError
        If copying fails, or a run has changed ``out`` meanwhile; finished blocks are kept.
    """
    out, target = absolute(out), absolute(target)
    copy = check_copy(out, target, names, chunk, dtype)
    check_writable(target)
    shown = progress or silent()
    arrays = (array for image in copy.images for _, array in levels_of(join(out, image.path)))
    calls: Calls = {"CPU": max(len(Grid(array.shape[-3:], unit_of(array))) for array in arrays), "GPU": 0}
    with owned(target) as lock, workers_of(cluster, workers, shown.note, calls=calls) as pool:
        check_target(target, copy.mark)
        _mark(target, copy.mark, "running")
        execution = Execution(pool, shown, check=lock.check, guard=guard_of(lock)).on("CPU")
        copied = [_copy(out, target, image, copy.chunk, execution) for image in copy.images]
        labels = copy.labels
        listed = list_labels(target, labels)
        others = open_objects(f"{target}/vimvol/{BEGUN}").names("")  # that were not asked for this time
        _mark(target, copy.mark, "running" if others else "complete")
    kept = tuple(name for name in listed if name not in labels)
    return Exported(target, labels, kept, copy.left_out, done_before=not any(copied))


def _mark(target: str, mark: dict[str, str], state: str) -> None:
    """Write what a copy is known by, and whether it is complete."""
    may_write()
    open_objects(target).put(COPY, json.dumps({**mark, "state": state}, indent=2).encode())


def _copy(out: str, target: str, image: Image, chunk: Index, execution: Execution) -> bool:
    """Copy what is not there yet of an image, level by level; its metadata come last. Return whether anything was."""
    source, copied = join(out, image.path), join(target, image.path)
    ledgers, begun = open_objects(f"{target}/vimvol/ledger"), open_objects(f"{target}/vimvol/{BEGUN}")
    mark, state = image.path.replace("/", "-") or "0", content_key(note_of(out, image.path)).encode()
    if begun.get(mark) not in (None, state):  # who copied it was killed, and did not look whether it changed meanwhile
        for path, _ in levels_of(source):
            ledgers.remove(_records(image, path))
    for path in missing_levels(source, copied, chunk=chunk, dtype=image.dtype):
        ledgers.remove(_records(image, path))  # before there is an empty array of which they would say that it is full
    create_copy(source, copied, chunk=chunk, dtype=image.dtype)
    stages = []
    for path, array in levels_of(source):
        channels = array.shape[0] if array.ndim == 4 else None
        unit = unit_of(array)
        dtype = image.dtype or str(np.dtype(array.dtype))
        plan = plan_stage(f"copy {join(image.path, path).strip('/')}", array.shape[-3:], unit)
        ledger = Ledger(ledgers, _records(image, path), content_key(image.content, path, dtype, chunk), unit)
        if ledger.missing(plan.blocks).count(plan).parts:
            stages.append((plan, CopyBlock(join(source, path), join(copied, path), channels, dtype), ledger))
    if stages:
        begun.put(mark, state)
        reopen_copy(copied)
    changed = False
    try:
        for plan, task, ledger in stages:
            run_stage(plan, task, ledger, execution)
    finally:
        # labels may have changed back, too
        back = bool(image.path) and content_key(note_of(out, image.path)).encode() != state
        if stages and (back or content_of(out, image.path) != image.content):
            changed = True
            for _, _, ledger in stages:
                ledgers.remove(ledger.stage)
    if changed:
        raise IncompleteRunError(
            f"{source} changed while it was copied, so old and new would be mixed and this copy is none yet; when what "
            f"writes {out} has ended, run the same command again"
        )
    finish_copy(source, copied)
    begun.remove(mark)
    return bool(stages)


def _records(image: Image, path: str) -> str:
    """Return the name under which it is recorded what is copied of a level of an image."""
    return f"copy {join(image.path, path).strip('/').replace('/', '-')}"
