"""The plan of a run, without the run."""

from __future__ import annotations

import contextlib
import time
from dataclasses import replace

from vimvol.commands.workers import told_first, workers_of
from vimvol.config import SegmentConfig
from vimvol.config.cluster import ClusterConfig, read_cluster
from vimvol.io.volume import forget_open
from vimvol.outputs.ahead import refuse_ahead
from vimvol.outputs.output import check_output, new_manifest
from vimvol.preflight.announce import Tell, nobody
from vimvol.preflight.check import Preflight, nothing_to_sample, preflight
from vimvol.preflight.device import settle_device
from vimvol.preflight.forecast import calls_left
from vimvol.preflight.prepare import prepare
from vimvol.preflight.scratch import Scratch
from vimvol.stages.order import stages_of


def plan_volume(
    source: str,
    out: str,
    config: SegmentConfig | None = None,
    *,
    cluster: str | ClusterConfig = "local",
    overwrite: bool = False,
    moved: bool = False,
    tell: Tell = nobody,
) -> Preflight:
    """Return what `segment_volume` would take, given the same, and tell what is being done; nothing of it stays.

    A sample is taken on the workers of the cluster, one block each; they are started only if there is one to take.

    Raises
    ------
    InputError
        As `segment_volume` does, and if not even the sample fits memory or disk.
    """
    start = time.perf_counter()
    try:
        config, cluster = config or SegmentConfig(), read_cluster(cluster) if isinstance(cluster, str) else cluster
        config = settle_device(config, cluster, tell)
        with told_first(cluster):
            refuse_ahead(source, out, config, overwrite=overwrite, moved=moved, writing=False)
        job = prepare(source, out, config, writing=True, moved=moved, tell=tell)
        with told_first(cluster):
            manifest = check_output(job, new_manifest(job, ""), overwrite)
        fresh = not manifest["created"]
        if (counted := nothing_to_sample(job, fresh=fresh)) is not None:
            done = manifest["state"] == "complete"
            return replace(counted, finished=manifest["finished"]) if done else counted
        with (
            Scratch(job.out) as scratch,
            workers_of(cluster, config.run.workers, tell, calls=calls_left(stages_of(job), fresh=fresh)) as pool,
            contextlib.nullcontext(time.perf_counter() - start) as starting,
            preflight(job, pool, scratch, fresh=fresh, worth=0, tell=tell) as found,
        ):
            return replace(found, starting=starting)
    finally:
        forget_open()
