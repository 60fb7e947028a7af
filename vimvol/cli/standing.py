"""Commands that tell how a run stands: ``status``."""

from __future__ import annotations

from typing import Annotated

import typer

from vimvol.cli.app import Overrides, app


@app.command()
def status(
    out: Annotated[str, typer.Argument(metavar="OUT.zarr", help="What vimvol segment writes.")],
    config: Annotated[
        str | None, typer.Option("--config", metavar="FILE", help="Compare with these settings, not those of the run.")
    ] = None,
    overrides: Overrides = None,
) -> None:
    """Tell what is done, failed, stale or missing, and who is at it. Exit code 0: complete, 1: not."""
    from vimvol.commands.status import status as read_status
    from vimvol.config import SegmentConfig, load_config
    from vimvol.report.table import print_rows

    settings = load_config(SegmentConfig, config, overrides or ()) if config or overrides else None
    found = read_status(out, settings)
    rows = []
    for stage in found.stages:
        share = f"{100 * stage.share:.1f} %" if stage.blocks else "-"
        last = "-" if stage.age is None else _age(stage.age)
        rows.append([stage.name, stage.state, str(stage.blocks or "-"), share, str(len(stage.failures) or "-"), last])
    if rows:
        print_rows(["stage", "state", "blocks", "done", "failed", "last record"], rows)
    else:
        typer.echo("no stage has begun: the run starts its workers, or takes a sample")
    for stage in found.stages:
        for block, error in stage.failures[:20]:
            typer.echo(f"failed        {stage.name} {block}: {error}")
        if len(stage.failures) > 20:
            typer.echo(f"failed        {stage.name}: {len(stage.failures) - 20} more")
    for note in found.notes:
        typer.echo(f"stale         {note}")
    for text in found.unaffected:
        typer.echo(f"unaffected    {text}; nothing depends on them here")
    for text in found.beside:
        typer.echo(f"beside        {text}")
    if found.source:
        typer.echo(f"input         {found.source}")
    for run in found.runs[-5:]:
        typer.echo(f"run           {run}")
    typer.echo(f"written by    {found.holder or 'nobody now'}")
    state = "complete" if found.complete else "not complete"
    if found.compared and found.complete:
        state += " with these settings, too"
    elif found.compared and found.stale:
        state += f" with these settings: {', '.join(found.stale)} would be made again; what is not given is the default"
    typer.echo(f"{state}, a run is at it" if found.running else state)
    raise typer.Exit(0 if found.complete else 1)


def _age(seconds: float) -> str:
    """Return a time span in the largest unit that makes it at least 2."""
    for unit, size in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit} ago"
    return f"{seconds:.0f} s ago"
