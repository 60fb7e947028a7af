"""From finished outputs with ground truth to learned costs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from vimvol import __version__
from vimvol.commands.finished import finished_job
from vimvol.commands.labels import check_truth
from vimvol.commands.workers import execution_of
from vimvol.engine.cluster import open_cluster
from vimvol.errors import InputError
from vimvol.geometry import Block
from vimvol.io import Volume, open_volume
from vimvol.io.errors import storage_errors
from vimvol.io.volume import forget_open
from vimvol.outputs.manifest import finished_run, settings_of
from vimvol.outputs.ownership import lock_of, owned
from vimvol.pairs import pair_order
from vimvol.report.importances import draw_importances
from vimvol.report.progress import silent
from vimvol.segment.edges import GRAPH_FORMAT
from vimvol.segment.features import Features, edge_features
from vimvol.segment.forest import Forest
from vimvol.stages.fragments import read_fragments
from vimvol.stages.graph import graph_stage, nodes_of_edges, read_edges
from vimvol.stages.job import Job
from vimvol.stages.learned import TABLES, kind_of
from vimvol.train.edges import check_installed, train_forest


@dataclass(frozen=True)
class TrainedEdges:
    """What was learned.

    Attributes
    ----------
    path
        The file.
    picture
        PNG of the importances.
    edges
        Edges that were learned from.
    cut
        How many of them lie between two objects.
    importances
        By feature, greatest first.
    """

    path: str
    picture: str
    edges: int
    cut: int
    importances: dict[str, float]


def train_edges(
    pairs: Sequence[tuple[str, str]], path: str, slab: tuple[int, int] | None = None, note: str = ""
) -> TrainedEdges:
    """Learn from finished outputs and their ground truth which edges to cut; their inputs need not be there any more.

    A fragment belongs to the object that has most of its voxels; fragments of which less than half is annotated are
    left out, and so are those that reach out of the slab. An edge is to be cut if its fragments belong to two objects.

    Parameters
    ----------
    pairs
        Outputs of `segment_volume`, each with ``PATH[:DATASET]`` of its ground truth, (z, y, x), 0 is not annotated.
    path
        File to write; a PNG of the importances is put beside it.
    slab
        First slice, and slice after the last, that may be learned from; none: all.
    note
        Data and licence, for the card.

    Raises
    ------
    InputError
        If an output is not finished or not like the first, a ground truth does not fit, or nothing can be learned.
    OutputBusyError
        If a run writes an output.
    StorageError
        If something cannot be read or written.
    MissingExtraError
        If scikit-learn is not installed.
    """
    check_installed()
    target = Path(path)
    if not target.parent.is_dir():
        raise InputError(f"folder {target.parent} does not exist, so {target.name} cannot be written; make it first")
    if target.is_dir():
        raise InputError(f"{path} is a folder; give a file to write")
    if not os.access(target.parent, os.W_OK):
        raise InputError(f"{path} cannot be written, the right is missing or the disk read-only; choose another path")
    found, kinds, sizes = [], [], []
    try:
        for out, truth in pairs:
            job, volume = _opened(out, truth, slab)
            kinds.append(kind_of(job.config, job.fragments_config))
            if kinds[-1] != kinds[0]:
                raise InputError(f"{out} has {kinds[-1]} and {pairs[0][0]} {kinds[0]}; learn from one kind at a time")
            sizes.append(" x ".join(f"{size:g}" for size in job.source.voxel_size))
            _measured(job)
            found.append(_labelled(job, volume, slab))
    finally:
        forget_open()
    features = Features(found[0][0].names, np.concatenate([part.values for part, _ in found]))
    cut = np.concatenate([part for _, part in found])
    forest, importances = train_forest(features, cut)
    card = {
        "edges": kinds[0],
        "number": f"{len(cut)}, {int(cut.sum())} of them between objects",
        "slices": "all" if slab is None else f"{slab[0]} to {slab[1] - 1}",
        "voxel sizes, nm": "; ".join(dict.fromkeys(sizes)),
        "network": "; ".join(dict.fromkeys(_network(out) for out, _ in pairs)),
        "data": note or "not told",
        "vimvol": __version__,
        TABLES: str(GRAPH_FORMAT),
    }
    picture = target.with_suffix(".png")
    _write(forest, card, target)
    draw_importances(importances, picture, f"{target.name}: {len(cut)} {kinds[0]}")
    return TrainedEdges(str(target), str(picture), len(cut), int(cut.sum()), importances)


def _opened(out: str, truth: str, slab: tuple[int, int] | None) -> tuple[Job, Volume]:
    manifest = finished_run(out)
    settings = settings_of(manifest)
    # what the edges cost before does not matter, and its file may be gone
    plain = settings.agglomerate.model_copy(update={"costs": "boundary"})
    job = finished_job(out, manifest, settings.model_copy(update={"agglomerate": plain}))
    if job.stitched:
        raise InputError(f"{out} was made without agglomeration, so it has no edges to learn from; give another output")
    volume = open_volume(truth, prefer="labels")
    if volume.shape != job.shape:
        raise InputError(
            f"ground truth {volume.address} has shape {volume.shape} and {out} {job.shape} (z, y, x), so voxels do not "
            "correspond; crop one to the other"
        )
    if slab is not None and not 0 <= slab[0] < slab[1] <= job.shape[0]:
        raise InputError(f"slab {slab[0]}:{slab[1]} is no part of the {job.shape[0]} slices of {out}; give first:end")
    region = job.roi or Block.whole(job.shape)
    if slab is not None:
        region = region.intersect(Block((slab[0], 0, 0), (slab[1], *job.shape[1:])))
    check_truth(volume, region, linked=not job.flat)
    return job, volume


def _measured(job: Job) -> None:
    """Measure the edges again if the blocks of the run were others; else there is nothing to do."""
    lock_of(job.out).refuse_if_held()
    with open_cluster("local", 0) as pool, owned(job.out) as lock:
        graph_stage(job).run(execution_of(job.config.run, pool, lock, silent()))


def _network(out: str) -> str:
    settings = settings_of(finished_run(out)).predict
    return settings.boundaries or f"{settings.model}, across {', '.join(settings.axes)}"


def _labelled(job: Job, truth: Volume, slab: tuple[int, int] | None) -> tuple[Features, npt.NDArray[np.bool_]]:
    """Return the features (E, F) of the annotated edges, in the order of their fragments, and whether to cut them."""
    objects: dict[int, int] = {}
    for block in graph_stage(job).plan:
        objects |= _objects(job, truth, block, slab)
    ids = np.array(sorted(objects), np.uint64)
    owner = np.array([objects[int(i)] for i in ids], np.uint64)
    values, uv, cut = [], [np.zeros((0, 2), np.uint64)], [np.zeros(0, bool)]
    names: tuple[str, ...] = ()
    for block in graph_stage(job).plan:
        table = read_edges(job, block)
        names, found = edge_features(table, nodes_of_edges(job, block))
        known = np.isin(table.u, ids) & np.isin(table.v, ids)
        a, b = (owner[np.searchsorted(ids, end[known])] for end in (table.u, table.v))
        values.append(found[known])
        uv.append(table.uv[known])
        cut.append(a != b)
    pairs = np.concatenate(uv)
    # what is learned does not depend on the blocks of the run
    order = pair_order(pairs[:, 0], pairs[:, 1])
    return Features(names, np.concatenate(values)[order]), np.concatenate(cut)[order]


def _objects(job: Job, truth: Volume, block: Block, slab: tuple[int, int] | None) -> dict[int, int]:
    """Return the object of every fragment of a block that is annotated well enough; fragments end with the block."""
    window = read_fragments(job, block)
    inside = window.labels > 0
    fragment, label = window.labels[inside], truth.read_labels(block)[inside].astype(np.uint64)
    pairs, count = np.unique(np.stack([fragment.astype(np.uint64), label]), axis=1, return_counts=True)
    size = np.bincount(fragment, minlength=len(window.ids) + 1)
    if slab is not None:
        begin, end = (min(max(z - block.begin[0], 0), block.shape[0]) for z in slab)
        outside = np.concatenate([window.labels[:begin], window.labels[end:]])
        size[np.unique(outside)] = 0
    annotated = pairs[1] > 0
    own, other, count = pairs[0][annotated].astype(np.int64), pairs[1][annotated], count[annotated]
    total = np.bincount(own, count, minlength=len(size))
    # the most voxels last, and of equal numbers the smaller label, so that it is the one that stays
    order = np.lexsort((~other, count, own))
    best = dict(zip(own[order].tolist(), other[order].tolist(), strict=True))
    return {int(window.ids[f - 1]): o for f, o in best.items() if size[f] and 2 * total[f] >= size[f]}


def _write(forest: Forest, card: dict[str, str], target: Path) -> None:
    whole = replace(forest, card=card)
    with storage_errors(f"writing {target}"):
        draft = target.with_name(f".{target.name}")
        draft.write_bytes(whole.to_bytes())
        draft.replace(target)
