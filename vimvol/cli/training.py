"""Commands that train: ``train``, and ``download`` for what there is to train on."""

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
    from vimvol.train.fit import fit, is_first

    weights = fit(load_config(TrainConfig, config, overrides or ()))
    if not is_first():
        return
    typer.echo(f"weights       {weights}")
    typer.echo(f"use them      vimvol segment --model {weights} PATH OUT.zarr")


@app.command()
def download(
    dataset: Annotated[str, typer.Argument(metavar="cremi|livecell", help="Data of the ViM-UNet paper.")],
    folder: Annotated[str, typer.Argument(metavar="FOLDER", help="Where files go; those there are only checked.")],
    only: Annotated[list[str] | None, typer.Option("--only", metavar="FILE", help="Just this; repeatable.")] = None,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Accept an invalid certificate, for files with a published checksum.")
    ] = False,
) -> None:
    """Fetch a data set from its authors, with checksums. The same command again goes on where it stopped."""
    from vimvol.report.transfer import Transfers
    from vimvol.train.download import download as fetch

    with Transfers() as told:
        files = fetch(dataset, folder, told, insecure=insecure, only=only or ())
    for file in files:
        typer.echo(f"there         {file}")
