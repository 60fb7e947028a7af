"""Commands that segment: ``segment`` and ``demo``."""

from __future__ import annotations

import json
import shlex
import sys
import time
from typing import Annotated

import typer

from vimvol.address import check_there
from vimvol.cli.app import (
    Cluster,
    Log,
    Overrides,
    PerformanceReport,
    SchedulerFile,
    app,
    chosen_cluster,
    flag,
    tell_opening,
)
from vimvol.cli.help import Resumable
from vimvol.cli.slices import slices_of
from vimvol.config import SegmentConfig, load_config
from vimvol.config.cluster import ClusterConfig
from vimvol.errors import StorageError, VimvolError

Source = Annotated[
    str, typer.Argument(metavar="PATH[:DATASET]", help="Volume: zarr, OME-Zarr, N5, precomputed, HDF5, TIFF.")
]
Out = Annotated[str, typer.Argument(metavar="OUT.zarr", help="OME-Zarr to write.")]
Config = Annotated[str | None, typer.Option("--config", metavar="FILE", help="YAML configuration.")]
Model = Annotated[
    str | None,
    typer.Option(
        "--model", metavar="NAME|FILE", help="Network: a name of `vimvol models` or a file. Sets predict.model."
    ),
]
Workers = Annotated[
    int | None, typer.Option(metavar="N", help="Worker processes; by default one a core, 0 for none. Sets run.workers.")
]
Moved = Annotated[
    bool,
    flag("--moved", "The input is that of OUT's earlier runs, at another path; what is done is kept."),
]
Overwrite = Annotated[bool, flag("--overwrite", "Replace results of other settings in OUT.")]


def settings_of(
    config: str | None, overrides: list[str] | None, model: str | None, workers: int | None
) -> SegmentConfig:
    """Return the settings that the options give."""
    extra = [*(overrides or [])]
    extra += [f"predict.model={json.dumps(model)}"] if model is not None else []
    extra += [f"run.workers={workers}"] if workers is not None else []
    return load_config(SegmentConfig, config, extra)


def check_output(source: str, out: str, settings: SegmentConfig, cluster: ClusterConfig, **options: bool) -> None:
    """Refuse at once what the output refuses by itself, before anything is loaded that opens an input or computes.

    Of a cluster that may be missing this is told first, by what knows clusters. ``options``: see `refuse_ahead`.
    """
    from vimvol.outputs.ahead import refuse_ahead

    if cluster.kind == "local":
        refuse_ahead(source, out, settings, **options)


@app.command(cls=Resumable)
def segment(
    source: Source,
    out: Out,
    config: Config = None,
    overrides: Overrides = None,
    model: Model = None,
    cluster: Cluster = "local",
    scheduler_file: SchedulerFile = None,
    workers: Workers = None,
    overwrite: Overwrite = False,
    replaced: Annotated[
        list[str] | None,
        typer.Option(
            "--replaced",
            metavar="Z0:Z1",
            help="Sections of the volume that are new since OUT was made, the last not included; what does not depend "
            "on them is kept.",
        ),
    ] = None,
    moved: Moved = False,
    log: Log = None,
    performance_report: PerformanceReport = None,
) -> None:
    """Segment a volume into an OME-Zarr. The same command again goes on where a run stopped."""
    start = time.perf_counter()
    settings = settings_of(config, overrides, model, workers)
    chosen = chosen_cluster(cluster, scheduler_file)
    sections = [slices_of(text, "--replaced") for text in replaced or ()]
    check_there(source)
    check_output(source, out, settings, chosen, overwrite=overwrite, replaced=bool(sections), moved=moved)
    tell_opening(source)
    from vimvol.commands.picture import draw_overview
    from vimvol.commands.segment import segment_volume
    from vimvol.report.amounts import count_text, parts_text
    from vimvol.report.progress import make_progress

    with make_progress() as progress:
        result = segment_volume(
            source,
            out,
            settings,
            cluster=chosen,
            overwrite=overwrite,
            replaced=sections,
            moved=moved,
            progress=progress,
            command=shlex.join(sys.argv),
            log=log,
            performance_report=performance_report,
        )
    drawing = time.perf_counter()
    try:
        picture = draw_overview(source, result.out, settings)
    except VimvolError as error:
        raise StorageError(f"{result.labels} is complete, but there is no picture of it: {error}") from None
    end = time.perf_counter()
    named = {"sample": "for the sample", "stages": "in the stages"}
    parts = {named[what]: seconds for what, seconds in result.spent.items()}
    took = parts_text(end - start, {**parts, "for the picture": end - drawing}, "to start and finish")
    made = f"{count_text(result.segments, 'segment')} of {count_text(result.fragments, 'fragment')}"
    if result.done_before:
        typer.echo(f"all done before, on {result.finished}, from this input with these settings; nothing was computed")
    typer.echo(made if result.done_before else f"{made} in {took}")
    typer.echo(f"segmentation  {result.labels}")
    typer.echo(f"picture       {picture}")
    typer.echo(f"look at it    vimvol view {shlex.quote(result.out)}")
    for text in result.warnings:
        typer.echo(text, err=True)


@app.command(cls=Resumable)
def demo(
    folder: Annotated[str, typer.Argument(metavar="FOLDER", help="Where everything is written.")] = "vimvol-demo",
    workers: Annotated[int | None, typer.Option(metavar="N", help="Worker processes; by default one a core.")] = None,
    overwrite: Annotated[bool, flag("--overwrite", "Replace other results in FOLDER.")] = False,
) -> None:
    """Segment and score a small synthetic EM volume, and draw it: the whole pipeline in one command."""
    from vimvol.commands.demo import run_demo
    from vimvol.report.progress import make_progress
    from vimvol.report.table import print_scores

    with make_progress() as progress:
        result = run_demo(folder, workers, progress, overwrite=overwrite)
    print_scores(result.scores)
    if result.done_before:
        typer.echo(f"all done before, on {result.done_before}; it was only scored and drawn again")
    typer.echo(f"raw           {result.raw}")
    typer.echo(f"segmentation  {result.segmentation}")
    typer.echo(f"picture       {result.picture}")
    typer.echo(f"look at it    vimvol view {shlex.quote(str(result.segmentation))}")
