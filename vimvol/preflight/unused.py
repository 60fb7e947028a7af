"""Settings that were given and that nothing of a run depends on: told, since their effect would be waited for."""

from __future__ import annotations

from collections.abc import Collection

from vimvol.config import SegmentConfig
from vimvol.preflight.announce import UNUSED
from vimvol.stages.job import Job


def settings_given(config: SegmentConfig) -> frozenset[str]:
    """Return the settings that somebody gave, ``section.key``, also where they are the defaults."""
    sections = {name: getattr(config, name) for name in config.model_fields_set}
    return frozenset(f"{name}.{key}" for name, section in sections.items() for key in section.model_fields_set)


def unused_texts(job: Job, given: Collection[str], *, sizes_known: bool) -> list[str]:
    """Return a line for each setting that was given and is not used.

    Parameters
    ----------
    job
        The job.
    given
        Settings that were given, ``section.key``.
    sizes_known
        Whether it is known on which voxel sizes the network was trained, and it takes slices of any size.
    """
    config, reasons = job.config, _reasons(job, sizes_known=sizes_known)
    found = []
    for key in sorted(given):
        section, name = key.split(".")
        reason = reasons.get(key, reasons.get(section, ""))
        if reason:
            value = getattr(getattr(config, section), name)
            found.append(f"{UNUSED}{key} = {value}, as {reason}")
    return found


def _reasons(job: Job, *, sizes_known: bool) -> dict[str, str]:
    """Return why settings are not used, by ``section.key``, or by section for all of it; empty where one is."""
    learned = "" if job.learned is None else "learned costs have a prior of their own, agglomerate.beta_learned"
    if job.flat:
        across = "in 2d mode nothing is joined across sections"
    elif not job.sectioned:
        across = "fragments reach through sections here, and agglomerate.beta counts for all edges"
    else:
        across = learned
    if job.config.predict.rescale == "none":
        rescale = ""  # followed, whatever is known
    elif job.network.given is not None:
        rescale = "boundaries are given and nothing is predicted"
    elif not job.source.voxel_size_known:
        rescale = "the voxel size is not known; give input.voxel_size in nm along z, y, x"
    else:
        rescale = "" if sizes_known else "the network does not tell on voxels of which size it was trained"
    whole = "fragments are whole instances here, and nothing is agglomerated" if job.stitched else ""
    return {
        "agglomerate.solver": whole,
        "agglomerate.beta": whole or learned,
        "agglomerate.beta_learned": whole or ("" if learned else "no learned costs are given"),
        "agglomerate.size_weighting": whole,
        "agglomerate.beta_across": across,
        "agglomerate.beta_profiles": across,
        "predict.rescale": rescale,
        "predict.invert": "" if job.network.given is None else "boundaries are given and nothing is predicted",
        "cells": "" if job.network.cells is not None else "the network predicts no foreground to make cells of",
    }
