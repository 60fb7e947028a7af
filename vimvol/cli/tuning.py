"""Commands that choose settings: ``tune``."""

from __future__ import annotations

import shlex
from typing import Annotated

import typer

from vimvol.address import check_there
from vimvol.cli.app import Overrides, Processes, app
from vimvol.cli.help import Resumable
from vimvol.cli.slices import slices_of
from vimvol.config import SegmentConfig, load_config
from vimvol.errors import InputError


@app.command(cls=Resumable)
def tune(
    folder: Annotated[str, typer.Argument(metavar="FOLDER", help="Where trials and the best settings are written.")],
    volumes: Annotated[
        list[str],
        typer.Argument(metavar="RAW TRUTH [RAW TRUTH ...]", help="PATH[:DATASET] of volumes and their ground truth."),
    ],
    config: Annotated[str | None, typer.Option("--config", metavar="FILE", help="YAML to start from.")] = None,
    overrides: Overrides = None,
    slices: Annotated[
        str | None, typer.Option(metavar="BEGIN:END", help="Only these slices, e.g. those not trained on.")
    ] = None,
    trials: Annotated[int, typer.Option(min=1, metavar="N", help="Settings to try beside those given.")] = 40,
    minutes: Annotated[
        float | None, typer.Option(min=0, metavar="MINUTES", help="Begin no trial after this time.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, metavar="N", help="Of the draws.")] = 0,
    workers: Processes = None,
) -> None:
    """Search for the post-processing that scores best on volumes with ground truth. Called again, it goes on."""
    if len(volumes) % 2:
        raise InputError(
            f"{volumes[-1]} has no ground truth beside it, so it cannot be scored; give RAW and TRUTH in turn"
        )
    for address in volumes:
        check_there(address)
    from vimvol.commands.tune import tune
    from vimvol.report.amounts import clock_text
    from vimvol.tuning.trials import Trial

    def tell(trial: Trial, best: Trial, left: float) -> None:
        name = f"trial {trial.number} of {max(trials, trial.number)}" if trial.number else "settings as given"
        mark = "  best so far" if trial.number and trial.number == best.number else ""
        typer.echo(f"{name}: {trial.score:.4f} in {trial.seconds:.1f} s, ETA {clock_text(left)}{mark}", err=True)

    found = tune(
        list(zip(volumes[::2], volumes[1::2], strict=True)),
        folder,
        load_config(SegmentConfig, config, overrides or ()),
        slices=None if slices is None else slices_of(slices, "--slices"),
        trials=trials,
        seconds=None if minutes is None else 60 * minutes,
        seed=seed,
        workers=workers,
        told=tell,
    )
    first, best = found.first.score, found.best.score
    better = "higher" if found.objective.more_is_better else "lower"
    typer.echo(f"{found.objective.metric}: {first:.4f} at first, {best:.4f} at best ({better} is better)")
    typer.echo(f"trials        {found.table}")
    typer.echo(f"picture       {found.picture}")
    typer.echo(f"use it        vimvol segment --config {shlex.quote(str(found.config))} PATH OUT.zarr")
