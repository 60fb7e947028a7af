"""The key of every stage of a segmentation: a digest of all that determines its result.

A stage whose key is that of an earlier run has nothing to do again, and every other has.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from vimvol.engine.ledger import content_key
from vimvol.segment.costs import ACROSS_WEIGHT
from vimvol.segment.edges import GRAPH_FORMAT

if TYPE_CHECKING:
    from vimvol.stages.job import Job

FORMAT = 4
"""Version of what the stages write; part of every key, raised when a stage computes something else."""

NETWORK_FORMAT = 2
"""Version of what networks compute, to the last bit; part of the keys of what one predicts and of those that follow."""

SOLVE_FORMAT = 5
"""Version of what is solved for; part of the keys of its stage, of its levels and of those that follow."""

FRAGMENTS_FORMAT = 2
"""Version of the fragments; part of the keys of their stage and of those that follow."""

FORMATS = {"boundaries": FORMAT, "fragments": FRAGMENTS_FORMAT, "edges": GRAPH_FORMAT}
"""Versions of what segmentations are made of."""

PRIORS = frozenset({"beta", "beta_across", "beta_profiles", "beta_learned"})
"""Settings of the agglomeration that hold prior probabilities of a cut."""

LIMITS = frozenset({"join_below", "fill_below"})
"""Those that change segments which the solver has made."""


def stage_keys(job: Job, identity: str) -> dict[str, str]:
    """Return the key of every stage, those of the stages before it included, in the order in which they run.

    Parameters
    ----------
    job
        The job.
    identity
        Of the input, see `Volume.identity`.
    """
    predict = _predict(job, identity)
    fragments = _fragments(job, predict)
    graph = content_key("graph", GRAPH_FORMAT, fragments, job.config.segment.mode)
    pyramid = content_key("pyramid", predict, [level.shape for level in job.levels])
    return keys_after(job, {"predict": predict, "fragments": fragments, "graph": graph, "pyramid": pyramid})


def keys_after(job: Job, shared: Mapping[str, str]) -> dict[str, str]:
    """Return the key of every stage, given those of stages that serve every segmentation of an output."""
    config, graph = job.config, shared["graph"]
    costs = content_key("costs", graph, {} if job.stitched else _weighing(job))
    solving = config.agglomerate.model_dump(exclude={*PRIORS, *LIMITS, "size_weighting", "costs"})
    solve = content_key("solve", SOLVE_FORMAT, costs, {} if job.stitched else solving)
    limits = config.agglomerate.model_dump(include=set(LIMITS))
    sizes = content_key("sizes", solve, config.segment.min_size, limits)
    write = content_key("write", sizes)
    return {
        "predict": shared["predict"],
        "fragments": shared["fragments"],
        "graph": graph,
        "costs": costs,
        "solve": solve,
        **({"contacts": content_key("contacts", solve, job.small_below)} if job.small_below else {}),
        "sizes": sizes,
        "write": write,
        "label-pyramid": content_key("label-pyramid", write, [level.shape for level in job.levels]),
        "pyramid": shared["pyramid"],
    }


def _predict(job: Job, identity: str) -> str:
    config = job.config
    settings = config.predict.model_dump(include={"precision", "batch", "device"})
    if config.predict.augment != "none":
        settings["augment"] = config.predict.augment
    if config.predict.boundaries is None:
        settings["network"] = NETWORK_FORMAT
    if job.planes[0].tiling.shown is not None:
        settings["shown"] = [plane.tiling.shown for plane in job.planes]
    return content_key(
        "predict",
        (FORMAT, job.shape, job.chunk, job.shard),
        (identity, job.source.axes, job.source.voxel_size),
        (None if job.roi is None else str(job.roi), None if job.mask is None else job.mask.identity()),
        config.input.missing,
        job.network.digest,
        repr(job.planes[0].tiling),
        repr(job.standardization),
        settings,
        *map(repr, job.planes[1:]),
        *job.replaced,
    )


def _fragments(job: Job, predict: str) -> str:
    if (cells := job.network.cells) is not None:
        grid = (job.fragment_tiles.cell, job.fragments_config.halo)
        return content_key("cells", predict, repr(cells), grid, job.config.cells.model_dump())
    return content_key("fragments", FRAGMENTS_FORMAT, predict, job.network.boundary, job.fragments_config.model_dump())


def _weighing(job: Job) -> dict[str, Any]:
    """Return what decides about costs: settings that are used, and constants that have changed before."""
    settings = job.config.agglomerate
    if job.learned is not None:  # they know of overlaps
        found = settings.model_dump(include={"beta_learned", "size_weighting"})
        found["costs"] = job.learned.digest
    elif job.sectioned:
        found = settings.model_dump(include={"beta", "beta_across", "beta_profiles", "size_weighting"})
    else:
        found = settings.model_dump(include={"beta", "size_weighting"})
    if job.sectioned:
        found["across"] = ACROSS_WEIGHT
    return found
