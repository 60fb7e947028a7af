"""The job of a finished run, for commands that work on what it has left."""

from __future__ import annotations

from typing import Any

from vimvol.config import SegmentConfig
from vimvol.errors import InputError
from vimvol.outputs.manifest import STORED, input_address, settings_of
from vimvol.outputs.stored import stored_job
from vimvol.preflight.announce import Tell, nobody
from vimvol.preflight.prepare import prepare
from vimvol.stages.job import Job
from vimvol.stages.learned import BOUNDARY
from vimvol.stages.order import stages_of


def finished_job(out: str, manifest: dict[str, Any], config: SegmentConfig) -> Job:
    """Return the job on the fragments and edges that a finished run has left; input and network may be gone.

    Those of an output of an earlier version, which did not note what has to be known of them, are looked at.

    Raises
    ------
    InputError
        If what is stored does not serve: some of it is missing, or another version of vimvol stored it otherwise.
    """
    if STORED not in manifest:
        return unchanged_job(out, manifest, config)
    job = stored_job(out, manifest, config)
    if stage := missing_stage(out, manifest):
        raise lacking(out, stage)
    return job


def unchanged_job(
    out: str, manifest: dict[str, Any], config: SegmentConfig, *, writing: bool = False, tell: Tell = nobody
) -> Job:
    """Return the job of a finished run, whose input and network have to be there and as they were.

    Parameters
    ----------
    out, manifest
        The output, and its manifest.
    config
        The settings of the run, but for those of the agglomeration.
    writing, tell
        As `vimvol.preflight.prepare.prepare` takes them.

    Raises
    ------
    InputError
        If they are not.
    """
    job = prepare(input_address(manifest), out, config, writing=writing, tell=tell)
    if job.keys["graph"] != manifest["keys"]["graph"]:
        raise InputError(
            f"the input or the weights of {out} have changed since, or vimvol has, so stored edges do not serve; run "
            "vimvol segment"
        )
    return job


def missing_stage(out: str, manifest: dict[str, Any]) -> str:
    """Return the first of the stages before the agglomeration of which something is missing; empty if none is."""
    settings = settings_of(manifest)
    # these stages do not depend on what edges cost, and the file of learned costs may be gone
    plain = settings.agglomerate.model_copy(update={"costs": BOUNDARY})
    job = stored_job(out, manifest, settings.model_copy(update={"agglomerate": plain}))
    for stage in stages_of(job):
        if stage.own:
            continue
        if stage.array is not None:
            missing = stage.ledger.missing(stage.plan.blocks).count(stage.plan).parts > 0
        else:
            # another segmentation may have measured the edges in other blocks, and then this one does so again
            edges = stage.ledger.progress()
            missing = edges is None or not edges.complete
        if missing:
            return stage.name
    return ""


def lacking(out: str, stage: str) -> InputError:
    """Return the error for an output of which blocks of a stage are missing."""
    return InputError(
        f"{out} lacks blocks of stage {stage} that its manifest tells of, so stored edges do not serve; run vimvol "
        "segment"
    )
