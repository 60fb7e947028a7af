"""Agglomerating again: another segmentation from the fragments and edges that a run has left."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from vimvol.address import absolute
from vimvol.commands.finished import lacking, missing_stage, unchanged_job
from vimvol.commands.segmentations import segment_beside, segment_instead
from vimvol.config import SegmentConfig, load_config
from vimvol.config.cluster import ClusterConfig
from vimvol.engine.performance import check_report
from vimvol.engine.run import Progress
from vimvol.errors import ConfigError, InputError
from vimvol.io.objects import open_objects
from vimvol.io.volume import forget_open
from vimvol.outputs.ahead import AGGLOMERATING, listed
from vimvol.outputs.beside import command_for
from vimvol.outputs.manifest import (
    STORED,
    differences,
    finished_run,
    made_manifest,
    parse_note,
    recorded_settings,
    settings_of,
)
from vimvol.outputs.record import Telling
from vimvol.outputs.stored import stored_job
from vimvol.preflight.announce import UNUSED, Tell
from vimvol.preflight.disk import check_writable
from vimvol.preflight.unused import unused_texts
from vimvol.report.jsonlog import JsonLog
from vimvol.report.progress import silent
from vimvol.segment.multicut import check_solver
from vimvol.segment.multicut.division import bytes_per_edge, merge_costs, solve_table
from vimvol.stages.job import Job
from vimvol.stages.names import NOTE, SEGMENTATION
from vimvol.stages.sizes import check_sizes
from vimvol.stages.solve import all_costs, solver_of


@dataclass(frozen=True)
class Agglomerated:
    """What was made.

    Attributes
    ----------
    out
        Path of the output.
    labels
        Path of the segmentation, (z, y, x) uint64 at full resolution in its array ``0``.
    segments
        Number of segments.
    joined, filled
        Small segments that joined a neighbour, and holes that were filled.
    levels
        Edges and energy of every level of the solver, the whole graph first; see `LevelReport`.
    energy
        Summed costs of the edges that the solution cuts, before sizes are looked at; lower is better.
    best
        The same of one solve of the whole graph, where that was asked for.
    replaced
        Settings, before and now, where a segmentation of that name with others was replaced.
    former
        The command that gives that one back; empty where none was replaced, or its edges are there no more.
    done_before
        Where all was there, so that nothing was computed: when the run ended that made it, ISO 8601; else empty.
    """

    out: str
    labels: str
    segments: int
    joined: int
    filled: int
    levels: list[dict[str, Any]]
    energy: float
    best: float | None
    replaced: tuple[str, ...] = ()
    former: str = ""
    done_before: str = ""

    @property
    def gap(self) -> float | None:
        """How far the energy lies above that of one solve of the whole graph, as a part of its size."""
        if self.best is None:
            return None
        return (self.energy - self.best) / abs(self.best) if self.best else 0.0


def agglomerate(
    out: str,
    overrides: Sequence[str] = (),
    *,
    name: str = SEGMENTATION,
    compare: bool = False,
    cluster: str | ClusterConfig = "local",
    workers: int | None = None,
    progress: Progress | None = None,
    command: str = "",
    log: str | None = None,
    performance_report: str | None = None,
) -> Agglomerated:
    """Partition the fragments of a finished output again.

    Boundaries, fragments and edges stay; what is computed are costs, solution, labels and their pyramid, and of these
    only what depends on what has changed. Neither the input nor the network is looked at: they may be gone or others by
    now.

    Parameters
    ----------
    out
        Path of an output of `segment_volume`.
    overrides
        ``section.key=value`` of the settings that differ from those of the run.
    name
        Name of the segmentation among the labels. The run's own is replaced; another is put beside it.
    compare
        Solve the whole graph, too, and tell the difference in energy.
    cluster, progress, command, log, performance_report
        As in `segment_volume`.
    workers
        Worker processes; none: as many as cores.

    Raises
    ------
    InputError
        If ``out`` is no complete output, or the settings would change more than the agglomeration, or nothing at all
        as none of them is used.
    StorageError, IncompleteRunError
        If writing or computing fails; finished blocks are kept.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name):
        raise InputError(f"name {name!r} cannot name a label image; use letters, digits, '_', '-' and '.'")
    if performance_report is not None:
        check_report(performance_report)
    try:
        shown = progress or silent()
        manifest, job = _on_stored(out, overrides, workers, shown.note)
        job = replace(job, name=name)
        former = _former(job, manifest)
        others = former and former.get("keys") != job.keys  # else all is there
        replaced = tuple(differences(recorded_settings(former), _as_noted(job.config))) if others else ()
        if replaced:
            shown.note(
                f"labels/{name} will be replaced ({listed(replaced)}); another --name would put this one beside it"
            )
        with JsonLog(log) as events:
            telling = Telling(shown, events, command, performance_report)
            result, before_now = (segment_instead if name == SEGMENTATION else segment_beside)(job, cluster, telling)
        best = _solved_at_once(job, result["edges"]) if compare else None
    finally:
        forget_open()
    numbers = {name: result[name] for name in ("segments", "joined", "filled", "levels", "energy")}
    again = ""
    if replaced and former.get("keys", {}).get("graph") == job.keys["graph"]:
        now = _as_noted(job.config) if name == SEGMENTATION else manifest["config"]
        again = command_for(job.out, name, recorded_settings(former), now)
    return Agglomerated(
        job.out, job.labels, **numbers, best=best, replaced=replaced, former=again, done_before=before_now
    )


def _former(job: Job, manifest: dict[str, Any]) -> dict[str, Any]:
    """Return the record of the last complete segmentation that has the name of a job; empty if there is none."""
    note = manifest if job.name == SEGMENTATION else parse_note(open_objects(job.results).get(NOTE))
    records = [note, *reversed(note.get("runs", ()))]
    return next((each for each in records if each.get("state") == "complete" and "config" in each), {})


def _as_noted(config: SegmentConfig) -> dict[str, Any]:
    return config.model_dump(mode="json", exclude={"run"})


def _changed(manifest: dict[str, Any], overrides: Sequence[str], workers: int | None) -> SegmentConfig:
    """Return the settings of the run with the changes.

    Raises
    ------
    ConfigError
        If they change more than the agglomeration.
    """
    old = settings_of(manifest)
    # defaults left out, so that what was given can be told from them
    usual = old.model_dump(mode="json", exclude_defaults=True)
    before = {f"{section}.{key}": value for section, part in usual.items() for key, value in part.items()}
    changes = load_config(SegmentConfig, None, overrides).model_dump(mode="json", exclude_unset=True)
    flat = {f"{section}.{key}": value for section, part in changes.items() for key, value in part.items()}
    new = load_config(SegmentConfig, None, before | flat)
    new = new.model_copy(update={"run": new.run.model_copy(update={} if workers is None else {"workers": workers})})
    other = [
        change
        for change in differences(
            old.model_dump(mode="json", exclude={"run"}), new.model_dump(mode="json", exclude={"run"})
        )
        if not change.startswith(AGGLOMERATING)
    ]
    if other:
        raise ConfigError(
            f"{other[0]} changes more than the agglomeration, so stored edges do not serve; set agglomerate.* or "
            "segment.min_size, or run vimvol segment"
        )
    return new


def _on_stored(out: str, overrides: Sequence[str], workers: int | None, tell: Tell) -> tuple[dict[str, Any], Job]:
    """Return the manifest of an output, and the job on what is stored there.

    Raises
    ------
    InputError
        If it does not serve.
    """
    manifest = made_manifest(out)
    if manifest is None or STORED not in manifest:
        # an earlier version did not note what has to be known of the input
        manifest = finished_run(out)
        config = _changed(manifest, overrides, workers)
        # of settings that are not used, those of the run were told then
        job = unchanged_job(out, manifest, config, writing=True, tell=partial(_but_unused, tell))
    else:
        job = _job_of_stored(out, manifest, overrides, workers)
    _tell_unused(job, {change.partition("=")[0] for change in overrides}, tell)
    return manifest, job


def _job_of_stored(out: str, manifest: dict[str, Any], overrides: Sequence[str], workers: int | None) -> Job:
    """Return the job on what is stored by its manifest alone."""
    unfinished = manifest["state"] != "complete"
    if unfinished and "block" not in manifest:  # it never was complete
        finished_run(out)
    config = _changed(manifest, overrides, workers)
    check_solver(config.agglomerate.solver)
    check_writable(absolute(out))
    job = stored_job(out, manifest, config)
    check_sizes(job.config, stitched=job.stitched)
    if stage := missing_stage(out, manifest):
        if unfinished:
            finished_run(out)
        raise lacking(out, stage)
    return job


def _but_unused(tell: Tell, text: str) -> None:
    if not text.startswith(UNUSED):
        tell(text)


def _tell_unused(job: Job, given: Collection[str], tell: Tell) -> None:
    """Tell which settings are not used; refuse if that are all that were given."""
    texts = unused_texts(job, given, sizes_known=True)
    if given and len(texts) == len(given):
        reasons = "; ".join(text.removeprefix(UNUSED) for text in texts)
        raise ConfigError(
            f"nothing that was set is used ({reasons}), so the segmentation would be that of the run's settings, and "
            "nothing is written; set something else, or nothing to have that one"
        )
    for text in texts:
        tell(text)


def _solved_at_once(job: Job, edges: int) -> float:
    needed = edges * bytes_per_edge(solver_of(job))
    if needed > job.config.agglomerate.memory and job.config.agglomerate.levels is None:
        raise ConfigError(
            f"the whole graph has {edges} edges, more than agglomerate.memory = {job.config.agglomerate.memory} holds, "
            f"so it is not solved for comparison; set {needed} with agglomerate.levels, or leave --compare out"
        )
    return solve_table(merge_costs(all_costs(job)), solver_of(job))[1]
