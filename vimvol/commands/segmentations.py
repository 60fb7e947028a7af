"""Making one segmentation of stored fragments and edges: in place of that of the run, or beside it."""

from __future__ import annotations

import json
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

from vimvol.commands.workers import execution_of, workers_of
from vimvol.config.cluster import ClusterConfig
from vimvol.engine.objects import Objects
from vimvol.engine.pool import Pool
from vimvol.engine.run import Execution
from vimvol.errors import InputError, OutputExistsError
from vimvol.io.arrays import has_layout
from vimvol.io.fence import may_write
from vimvol.io.objects import open_objects
from vimvol.io.omezarr import create_labels
from vimvol.outputs.leftovers import remove_leftovers
from vimvol.outputs.manifest import STORED, now, parse_note, provenance, read_manifest, write_manifest
from vimvol.outputs.output import check_shared, claim_output, is_intact, tidy_output
from vimvol.outputs.ownership import lock_of, owned
from vimvol.outputs.record import Telling, new_run, recorded
from vimvol.outputs.stored import SHARED, stored_of
from vimvol.preflight.forecast import calls_left
from vimvol.stages.graph import graph_stage
from vimvol.stages.job import Job
from vimvol.stages.levels import levels_reduced
from vimvol.stages.names import NOTE
from vimvol.stages.order import run_stages, stages_of

Made = tuple[dict[str, Any], str]
"""What is known of a segmentation, and when it was made where nothing was left to do, ISO 8601; else empty."""


def segment_instead(job: Job, cluster: str | ClusterConfig, telling: Telling) -> Made:
    """Replace the segmentation of a run; return the manifest, and when all was done before.

    Raises
    ------
    InputError
        If what is stored is not what the job is on any more.
    StorageError, IncompleteRunError
        If writing or computing fails; finished blocks are kept.
    """
    manifest = read_manifest(job.out) or {}
    if manifest["state"] == "complete" and manifest["keys"] == job.keys and is_intact(job):
        return manifest, str(manifest.get("finished", "earlier"))
    lock_of(job.out).refuse_if_held()
    with owned(job.out) as lock, _workers(job, cluster, telling) as pool, telling.reported(pool):
        manifest = read_manifest(job.out) or {}  # another run may have written it since
        if any(manifest["keys"][stage] != job.keys[stage] for stage in SHARED):
            raise InputError(f"another run has written {job.out} meanwhile, so stored edges do not serve; start again")
        entry = _new_entry(job, cluster, telling, pool)
        manifest |= {"state": "running", "command": telling.command, "keys": job.keys, **provenance()}
        manifest |= {"config": job.config.model_dump(mode="json", exclude={"run"})}
        manifest.setdefault(STORED, stored_of(job))
        manifest["runs"] = [*manifest.get("runs", ()), entry]
        check_shared(job)
        claim_output(job, manifest)
        with recorded(entry, telling.log, partial(write_manifest, job.out, manifest)) as journal:
            manifest |= _partitioned(job, execution_of(job.config.run, pool, lock, telling.progress, journal))
            manifest |= {"state": "complete", "finished": now(), "block": job.config.run.block}
    return manifest, ""


def segment_beside(job: Job, cluster: str | ClusterConfig, telling: Telling) -> Made:
    """Make another segmentation beside that of a run; return what is known of it, and when all was done before.

    Raises
    ------
    OutputExistsError
        If vimvol did not make what has its name.
    StorageError, IncompleteRunError
        If writing or computing fails; finished blocks are kept.
    """
    results = open_objects(job.results)
    if results.get(NOTE) is None and job.name in open_objects(f"{job.out}/labels").names(""):
        raise OutputExistsError(f"{job.labels} is there, and vimvol did not make it; choose another --name")
    before = parse_note(results.get(NOTE))
    if before.get("state") == "complete" and before.get("keys") == job.keys and is_intact(job):
        return before, str(before["runs"][-1].get("finished", "earlier"))
    lock_of(job.out).refuse_if_held()
    with owned(job.out) as lock, _workers(job, cluster, telling) as pool, telling.reported(pool):
        entry = _new_entry(job, cluster, telling, pool)
        result: dict[str, Any] = {"state": "running", "name": job.name, "runs": [*_runs_of(results), entry]}
        _note(results, result)
        for stage in stages_of(job):
            if stage.own and stage.array is not None and not has_layout(*stage.array):
                stage.ledger.objects.remove(stage.name)  # else an empty array would count as full
        create_labels(job.out, job.name, chunk=job.chunk, shard=job.shard, mend=True)
        with recorded(entry, telling.log, partial(_note, results, result)) as journal:
            result |= _partitioned(job, execution_of(job.config.run, pool, lock, telling.progress, journal))
            result |= {"state": "complete", "command": telling.command, "keys": job.keys, **provenance()}
            result |= {"config": job.config.model_dump(mode="json", exclude={"run"})}
    return result, ""


def _workers(job: Job, cluster: str | ClusterConfig, telling: Telling) -> AbstractContextManager[Pool]:
    """Return the workers for what belongs to one segmentation; nothing of it counts as done."""
    own = [stage for stage in stages_of(job) if stage.own]
    return workers_of(cluster, job.config.run.workers, telling.progress.note, calls=calls_left(own, fresh=True))


def _new_entry(job: Job, cluster: str | ClusterConfig, telling: Telling, pool: Pool) -> dict[str, Any]:
    kind = cluster if isinstance(cluster, str) else cluster.kind
    return {**new_run(job, telling.command, kind), "workers": pool.slots}


def _partitioned(job: Job, execution: Execution) -> dict[str, Any]:
    """Run what belongs to one segmentation; return what is known of it."""
    # there is nothing to do for the graph unless the blocks of the run were others
    result = run_stages([graph_stage(job), *(stage for stage in stages_of(job) if stage.own)], execution)
    tidy_output(job)
    remove_leftovers(job, levels_reduced([level["level"] for level in result["levels"]]))
    return result


def _runs_of(results: Objects) -> list[dict[str, Any]]:
    """Return the runs that a note tells of."""
    runs: list[dict[str, Any]] = parse_note(results.get(NOTE)).get("runs", [])
    return runs


def _note(results: Objects, content: dict[str, Any]) -> None:
    may_write()
    results.put(NOTE, json.dumps(content, indent=2, default=str).encode())
