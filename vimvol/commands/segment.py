"""From raw intensities to a segmentation: all stages, one after the other."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from vimvol.commands.workers import execution_of, told_first, workers_of
from vimvol.config import SegmentConfig
from vimvol.config.cluster import ClusterConfig, read_cluster
from vimvol.engine.performance import check_report
from vimvol.engine.run import Execution, Progress
from vimvol.errors import InputError
from vimvol.io.volume import forget_open
from vimvol.outputs.ahead import refuse_ahead
from vimvol.outputs.beside import stale_texts
from vimvol.outputs.leftovers import remove_leftovers
from vimvol.outputs.manifest import now, write_manifest
from vimvol.outputs.moved import note_place
from vimvol.outputs.output import check_output, claim_output, is_intact, new_manifest, tidy_output
from vimvol.outputs.ownership import lock_of, owned
from vimvol.outputs.record import Telling, compared, new_run, recorded
from vimvol.outputs.replaced import carry_over, with_replaced
from vimvol.preflight.announce import Warnings
from vimvol.preflight.check import check_fits, preflight, short_text
from vimvol.preflight.device import settle_device
from vimvol.preflight.forecast import calls_left
from vimvol.preflight.planes import rescaled_text
from vimvol.preflight.prepare import prepare
from vimvol.preflight.scale import odd_text
from vimvol.preflight.scratch import Scratch
from vimvol.report.jsonlog import JsonLog
from vimvol.report.progress import silent
from vimvol.stages.job import Job, Sections
from vimvol.stages.levels import levels_reduced
from vimvol.stages.order import run_stages, stages_of
from vimvol.stages.predict import not_finite_text


@dataclass(frozen=True)
class Segmented:
    """What a run made.

    Attributes
    ----------
    out
        Path of the OME-Zarr.
    labels
        Path of the segmentation in it, (z, y, x) uint64 at full resolution in its array ``0``.
    segments
        Number of segments; their ids are 1 to this.
    fragments
        Number of fragments that they were made of.
    seconds
        Wall time of this run.
    spent
        What of that the stages took, and the sample before them: ``stages`` and ``sample``; empty where all was there.
    warnings
        What may be wrong with the input or the settings, and which segmentations beside are stale, a line each.
    finished
        When the run ended that made the last of it, ISO 8601.
    """

    out: str
    labels: str
    segments: int
    fragments: int
    seconds: float
    spent: Mapping[str, float] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    finished: str = ""

    @property
    def done_before(self) -> bool:
        """Whether all was there, so that nothing was computed."""
        return not self.spent


def segment_volume(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    config: SegmentConfig | None = None,
    *,
    cluster: str | ClusterConfig = "local",
    overwrite: bool = False,
    replaced: Sequence[Sections] = (),
    moved: bool = False,
    progress: Progress | None = None,
    command: str = "",
    log: str | None = None,
    performance_report: str | None = None,
) -> Segmented:
    """Segment a volume into an OME-Zarr 0.5.

    The boundaries are its image, the segmentation its ``labels/segmentation``; both have a pyramid. A run that was
    interrupted goes on where it stopped when it is started again.

    Parameters
    ----------
    source
        ``PATH[:DATASET]`` of the intensities, (z, y, x) uint8, uint16 or float32.
    out
        Path of the OME-Zarr.
    config
        What to do and how; none: the defaults.
    cluster
        Its settings, or ``local``, ``cuda``, the address of a scheduler, or a YAML file as in ``configs/cluster``.
    overwrite
        Allow results of other settings in ``out`` to be replaced; stages that do not depend on what changed are kept.
    replaced
        Sections of the input, first and one after the last, that are new since ``out`` was made, the others being the
        same: blocks that do not depend on these are kept, see `vimvol.outputs.replaced`.
    moved
        The input is that of earlier runs of ``out``, at another path, see `vimvol.outputs.moved`.
    progress
        Who is told how far it is; none: nobody.
    command
        What to record as the command.
    log
        Path of a log in JSON lines that is appended to; none: there is none.
    performance_report
        Path of Dask's performance report, HTML; none: there is none.

    Returns
    -------
    Segmented
        Where the segmentation is, its number of segments, and what of the time it took; also where all was there.

    Raises
    ------
    InputError
        If something given cannot be used; nothing is written then.
    StorageError, IncompleteRunError
        If writing or computing fails; finished blocks are kept.
    """
    start = time.perf_counter()
    source, out = os.fspath(source), os.fspath(out)
    if performance_report is not None:
        check_report(performance_report)
    if moved and replaced:
        raise InputError(
            "--moved says that the input is unchanged, --replaced that sections are new; give --replaced alone, for "
            "which the input may lie elsewhere, too"
        )
    spent: dict[str, float] = {}
    try:
        with JsonLog(log) as events:
            config, cluster = config or SegmentConfig(), read_cluster(cluster) if isinstance(cluster, str) else cluster
            telling = Telling(progress or silent(), events, command, performance_report)
            heard = Warnings(telling.progress.note)
            config = settle_device(config, cluster, heard)
            with told_first(cluster):
                refuse_ahead(source, out, config, overwrite=overwrite, replaced=bool(replaced), moved=moved)
            job = prepare(source, out, config, writing=True, moved=moved, tell=heard)
            heard.repeat(odd_text(job.source, config, brief=True))
            if replaced:
                job = with_replaced(job, replaced, overwrite=overwrite)
            manifest = _finished(job, cluster, overwrite or bool(replaced), telling, spent)
            if moved:
                note_place(job)
            heard.repeat(not_finite_text(job))
            for text in stale_texts(job.out, manifest, "it does not fit the boundaries that are there now").values():
                heard.repeat(text)
    finally:
        # An HDF5 file that stays open could not be written by its owner.
        forget_open()
    seconds = time.perf_counter() - start
    return Segmented(
        job.out,
        job.labels,
        manifest["segments"],
        manifest["fragments"],
        seconds,
        spent,
        heard.lines,
        manifest["finished"],
    )


def _finished(
    job: Job, cluster: ClusterConfig, overwrite: bool, telling: Telling, spent: dict[str, float]
) -> dict[str, Any]:
    """Run what is not done yet; return the manifest of the complete output; put into ``spent`` what took how long."""
    with told_first(cluster):
        manifest = check_output(job, new_manifest(job, telling.command), overwrite)
    if manifest["state"] == "complete":
        return manifest
    lock_of(job.out).refuse_if_held()
    if text := rescaled_text(job):
        telling.progress.note(text)
    # held before the workers are started, as these may wait in a queue for hours, and a sample takes minutes
    with Scratch(job.out) as scratch, owned(job.out) as lock:
        # Another run may have written the output since.
        manifest = check_output(job, new_manifest(job, telling.command), overwrite)
        if manifest["state"] == "complete":
            return manifest
        fresh = not manifest["created"]
        # records tell that what is lost was done
        calls = calls_left(stages_of(job), fresh=fresh or not is_intact(job))
        with (
            workers_of(cluster, job.config.run.workers, telling.progress.note, calls=calls) as pool,
            telling.reported(pool),
            ExitStack() as until_adopted,
        ):
            ahead = until_adopted.enter_context(preflight(job, pool, scratch, fresh=fresh, tell=telling.progress.note))
            check_fits(job, ahead.forecast, cluster)
            if text := short_text(ahead):
                telling.progress.note(text)
            carry_over(job)
            entry = {**new_run(job, telling.command, cluster.kind), "workers": pool.slots}
            manifest["runs"] = [*manifest.get("runs", ()), entry]
            claim_output(job, manifest)
            with recorded(entry, telling.log, partial(write_manifest, job.out, manifest)) as journal:
                journal.expect(entry, ahead.adopt(pool), ahead.seconds)
                until_adopted.close()
                execution = execution_of(job.config.run, pool, lock, telling.progress, journal)
                manifest |= _run(job, execution, ahead.slowest)
                tidy_output(job)
                remove_leftovers(job, levels_reduced([level["level"] for level in manifest["levels"]]))
                manifest |= {"state": "complete", "finished": now(), "block": job.config.run.block}
            spent |= {"sample": ahead.seconds, "stages": sum(stage["seconds"] for stage in entry["stages"])}
            if text := compared(entry, ahead.forecast):
                telling.progress.note(text)
    return manifest


def _run(job: Job, execution: Execution, sampled: float) -> dict[str, Any]:
    """Run every stage that is not done; return what is known of the segmentation; ``sampled``: of `Execution`."""
    predict, *others = stages_of(job)
    predict.run(replace(execution, sampled=sampled))
    return run_stages(others, execution)
