"""Commands on a finished run: ``agglomerate`` and ``qa``."""

from __future__ import annotations

import json
import shlex
import sys
import time
from typing import Annotated

import typer

from vimvol.address import check_output_there
from vimvol.cli.app import (
    Cluster,
    Log,
    Overrides,
    PerformanceReport,
    Processes,
    SchedulerFile,
    app,
    chosen_cluster,
    flag,
    tell_opening,
    write_text,
)
from vimvol.cli.help import Resumable
from vimvol.config import SegmentConfig, load_config


@app.command(cls=Resumable)
def agglomerate(
    out: Annotated[str, typer.Argument(metavar="OUT.zarr", help="Finished output of `vimvol segment`.")],
    overrides: Overrides = None,
    name: Annotated[
        str, typer.Option(metavar="NAME", help="Label image to write; another than the run's own is put beside it.")
    ] = "segmentation",
    compare: Annotated[bool, flag("--compare", "Solve the graph as a whole, too, and tell the gap in energy.")] = False,
    cluster: Cluster = "local",
    scheduler_file: SchedulerFile = None,
    workers: Processes = None,
    log: Log = None,
    performance_report: PerformanceReport = None,
) -> None:
    """Partition the fragments of a finished run again: another threshold or solver, in seconds to minutes."""
    start = time.perf_counter()
    load_config(SegmentConfig, None, overrides or ())  # refuses what is no setting
    check_output_there(out)
    tell_opening(out)
    from vimvol.outputs.ahead import refuse_unmade

    refuse_unmade(out)  # before what computes is loaded
    from vimvol.commands.agglomerate import agglomerate as partition
    from vimvol.report.amounts import count_text
    from vimvol.report.progress import make_progress
    from vimvol.report.table import print_rows
    from vimvol.stages.levels import left_out_text
    from vimvol.stages.solve import LEAST_EDGES

    with make_progress() as progress:
        result = partition(
            out,
            overrides or [],
            name=name,
            compare=compare,
            cluster=chosen_cluster(cluster, scheduler_file),
            workers=workers,
            progress=progress,
            command=shlex.join(sys.argv),
            log=log,
            performance_report=performance_report,
        )
    whole = max(1, result.levels[0]["edges"])
    rows = [
        [
            str(level["level"]) if level["level"] else "0, the whole graph",
            f"{level['edges']:,}",
            f"{level['edges'] / whole:.1%}",
            f"{level['energy']:,.1f}",
        ]
        for level in result.levels
    ]
    print_rows(["level", "edges left", "share", "energy"], [*rows, ["solved", "-", "-", f"{result.energy:,.1f}"]])
    typer.echo(
        "energy        summed costs of the edges that are cut, of a level if all that are left were; lower is better, "
        "0 would be one segment; compares only where beta, costs and size_weighting are the same"
    )
    if text := left_out_text([level["level"] for level in result.levels], LEAST_EDGES):
        typer.echo(f"levels        {text}")
    if result.gap is not None:
        typer.echo(f"gap           {result.gap:.3%} of the energy of the whole graph, {result.best:,.1f}")
    if result.joined or result.filled:
        joined = f"{count_text(result.joined, 'small segment')} joined a neighbour"
        filled = f"{count_text(result.filled, 'hole was', 'holes were')} filled"
        typer.echo(f"sizes         {joined}, {filled}")
    made = count_text(result.segments, "segment")
    if result.done_before:
        typer.echo(f"all done before, on {result.done_before}, with these settings; nothing was computed")
    typer.echo(made if result.done_before else f"{made} in {time.perf_counter() - start:.0f} s")
    if result.replaced:
        typer.echo(f"replaced      the one before ({'; '.join(result.replaced)})")
    if result.former:
        typer.echo(f"give it back  {result.former}; with another --name, beside this one")
    typer.echo(f"segmentation  {result.labels}")
    typer.echo(f"look at it    vimvol view {shlex.quote(result.out)}")


@app.command()
def qa(
    out: Annotated[str, typer.Argument(metavar="OUT.zarr", help="Finished output of `vimvol segment`.")],
    name: Annotated[str, typer.Option(metavar="NAME", help="Label image to check.")] = "segmentation",
    json_file: Annotated[str | None, typer.Option("--json", metavar="FILE", help="Write the result, too.")] = None,
) -> None:
    """Look for seams: segments that end where blocks meet, and what shifted blocks change. Exit code 1 if there are."""
    check_output_there(out)
    tell_opening(out)
    from vimvol.commands.qa import check_seams
    from vimvol.evaluate.seams import RELEVANCE, SIGNIFICANCE
    from vimvol.quality.shifted import EXCESS
    from vimvol.report.progress import make_progress
    from vimvol.report.table import print_rows

    with make_progress() as progress:
        result = check_seams(out, name=name, progress=progress)
    rows = [
        [
            f"{plane['axis']} every {plane['step']}",
            plane["what"],
            f"{plane['segments']:,}",
            f"{plane['rate']:.2%}",
            f"{plane['interior']:.2%}",
            f"{plane['p']:.1g}",
            "pass" if plane["passed"] else "FAIL",
        ]
        for plane in result["planes"]
    ]
    if rows:
        print_rows(["planes", "what meets", "segments", "end there", "end near it", "p", "verdict"], rows)
        typer.echo(
            f"a seam is where {RELEVANCE:.0%} of the segments more end than near it, with p below "
            f"{SIGNIFICANCE:g} divided by the kinds of planes"
        )
    else:
        typer.echo("planes        none: shard, tiles and subproblem hold the whole volume, so nothing meets inside")
    if result["shifted"] is not None:
        shifted = result["shifted"]
        verdict = "pass" if shifted["passed"] else "FAIL"
        typer.echo(
            f"shifted tiles VOI {shifted['shifted']:.3f} bits, same tiles {shifted['same']:.3f}, at most "
            f"{EXCESS:g} more: {verdict}"
        )
    if result["worst"] is not None:
        worst = result["worst"]
        place = f"no picture, since it cannot be written there; {worst['box']}, at {worst['axis']} = {worst['plane']}"
        typer.echo(f"worst place   {worst['picture'] or place}")
    if not all(plane["passed"] for plane in result["planes"]):
        typer.echo(
            f"where small pieces end, vimvol agglomerate {shlex.quote(out)} --set agglomerate.join_below=1000 "
            "--name joined joins them to others"
        )
    if result["shifted"] is not None and not result["shifted"]["passed"]:
        typer.echo(
            f"of the region {result['shifted']['region']}, whose fragments were made on other tiles, a part came out "
            "otherwise; in a small volume one neuron that falls in two is enough"
        )
    if json_file is not None:
        write_text(json_file, json.dumps(result, indent=2) + "\n")
    if not result["passed"]:
        raise typer.Exit(1)
