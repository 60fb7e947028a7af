"""Commands that only look: ``models`` and ``info``."""

from __future__ import annotations

from typing import Annotated

import typer

from vimvol.cli.app import app


@app.command()
def models(
    name: Annotated[str | None, typer.Argument(metavar="[MODEL]", help="Show the card of these weights.")] = None,
) -> None:
    """List the networks: names, parameters, what each is for, and the terms of shipped weights."""
    from vimvol.report.table import print_rows
    from vimvol.stages.listing import card_rows, model_rows

    print_rows(*(model_rows() if name is None else card_rows(name)))


@app.command()
def info(path: Annotated[str, typer.Argument(metavar="PATH[:DATASET]")]) -> None:
    """Show what is in a volume: axes, voxel size, chunks, shards, dtype."""
    from vimvol.report.table import print_rows
    from vimvol.stages.listing import volume_rows

    print_rows(*volume_rows(path))
