"""Commands that train: ``train``."""

from __future__ import annotations

from typing import Annotated

import typer

from vimvol.cli.app import Overrides, app
from vimvol.config import TrainConfig, load_config


@app.command()
def train(
    config: Annotated[str, typer.Argument(metavar="CONFIG", help="YAML configuration; see configs/train.")],
    overrides: Overrides = None,
) -> None:
    """Train a network. The same command again goes on from the last checkpoint."""
    from vimvol.train.fit import fit

    weights = fit(load_config(TrainConfig, config, overrides or ()))
    typer.echo(f"weights       {weights}")
    typer.echo(f"use them      vimvol segment --model {weights} PATH OUT.zarr")
