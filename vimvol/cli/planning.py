"""The command ``plan``."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from vimvol.address import check_there
from vimvol.cli.app import Cluster, Overrides, SchedulerFile, app, check_file, chosen_cluster, tell_opening, write_text
from vimvol.cli.segmenting import Config, Model, Moved, Out, Overwrite, Source, Workers, check_output, settings_of


@app.command()
def plan(
    source: Source,
    out: Out,
    config: Config = None,
    overrides: Overrides = None,
    model: Model = None,
    cluster: Cluster = "local",
    scheduler_file: SchedulerFile = None,
    workers: Workers = None,
    overwrite: Overwrite = False,
    moved: Moved = False,
    json_file: Annotated[str | None, typer.Option("--json", metavar="FILE", help="Write the plan, too.")] = None,
) -> None:
    """Tell what `segment` with the same options would take: blocks, time, memory, disk. Exit code 2: it cannot fit.

    A sample of blocks runs on the cluster; of a batch system or Kubernetes, its jobs or pods are started for that.
    """
    check_file(json_file)
    chosen, settings = chosen_cluster(cluster, scheduler_file), settings_of(config, overrides, model, workers)
    check_there(source)
    check_output(source, out, settings, chosen, overwrite=overwrite, moved=moved, writing=False)
    tell_opening(source)
    from vimvol.commands.plan import plan_volume
    from vimvol.outputs.expected import as_json
    from vimvol.preflight.check import check_fits, free_text, worker_text
    from vimvol.preflight.device import quicker_text
    from vimvol.preflight.planes import rescaled_text
    from vimvol.report.amounts import clock_text, count_text, disk_text, memory_text
    from vimvol.report.progress import make_progress
    from vimvol.report.table import print_rows

    with make_progress() as progress:
        found = plan_volume(source, out, settings, cluster=chosen, overwrite=overwrite, moved=moved, tell=progress.note)
    ahead = found.forecast
    rows = [
        [
            stage.name,
            f"{stage.left:,}",
            f"{stage.blocks:,}",
            f"{stage.voxels / 1e6:,.1f}",
            "-" if stage.seconds is None else clock_text(stage.seconds),
            "-" if stage.peak is None else memory_text(stage.peak),
            "-" if stage.read is None else disk_text(stage.read),
            "-" if stage.written is None else disk_text(stage.written),
        ]
        for stage in ahead.stages
    ]
    if found.finished:
        typer.echo(f"all done before, on {found.finished}, from this input with these settings; nothing is left to do")
    print_rows(["stage", "blocks left", "of", "MVox left", "time", "memory", "reads", "writes"], rows)
    if text := rescaled_text(found.job):
        typer.echo(text)
    if ahead.sampled:
        typer.echo(f"time          about {clock_text(ahead.seconds)} with {count_text(ahead.workers, 'block')} at once")
        typer.echo(f"before that   {clock_text(found.starting)} to start, {clock_text(found.seconds)} for the sample")
        typer.echo(f"disk          {disk_text(ahead.disk or 0)} to store, {free_text(ahead)}")
        typer.echo(f"worker        {worker_text(ahead)} in stage {ahead.largest.name}")
        typer.echo(f"solver        {memory_text(ahead.solver or 0)}, graph of about {ahead.edges:,} edges")
        typer.echo(f"sample        {count_text(ahead.sampled, 'block')}")
        if ahead.stages[0].left and (text := quicker_text(found.job.config, chosen)):
            typer.echo(f"faster        {text}")
    else:
        reason = found.failure or "there is nothing left to predict or to cut into fragments"
        typer.echo(f"disk          {free_text(ahead)}")
        typer.echo(f"sample        none: {reason}")
    if json_file is not None:
        times = {"starting": round(found.starting, 3), "sampling": round(found.seconds, 3)}
        write_text(json_file, json.dumps({**as_json(ahead), **times}, indent=2) + "\n")
    check_fits(found.job, ahead, chosen)
