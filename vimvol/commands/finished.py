"""The job of a finished run, for commands that work on what it has left."""

from __future__ import annotations

from typing import Any

from vimvol.config import SegmentConfig
from vimvol.errors import InputError
from vimvol.outputs.manifest import input_address
from vimvol.outputs.stored import STORED, lacking, missing_stage, stored_job
from vimvol.preflight.announce import Tell, nobody
from vimvol.preflight.prepare import prepare
from vimvol.stages.job import Job


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
