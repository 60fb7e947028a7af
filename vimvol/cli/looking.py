"""Commands that only look: ``models``, ``settings``, ``info`` and ``view``."""

from __future__ import annotations

import contextlib
import threading
from dataclasses import replace
from typing import Annotated

import typer

from vimvol.address import check_there
from vimvol.cli.app import app, flag

SETTINGS_OF = {"segment": "segmentation", "train": "training", "cluster": "cluster"}
"""What the settings of each command line are of."""


@app.command()
def models(
    name: Annotated[str | None, typer.Argument(metavar="MODEL", help="Show the card of these weights.")] = None,
) -> None:
    """List the networks: names, parameters, what each is for, and the terms of shipped weights."""
    from vimvol.commands.listing import card_rows, model_rows
    from vimvol.report.table import print_rows

    print_rows(*(model_rows() if name is None else card_rows(name)))


@app.command()
def settings(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="NAME",
            help="segment, train or cluster; of these a section or a setting, as `segment predict` or `predict.tile`.",
        ),
    ] = None,
    everything: Annotated[bool, flag("--all", "Describe all, not only list the sections.")] = False,
) -> None:
    """Describe the settings of `--set` and `--config`: names, what they take, defaults, meaning."""
    from vimvol.config.reference import COMMANDS, find_groups
    from vimvol.report.table import print_rows

    first, *others = names or [""]
    command = first if others and first in COMMANDS else ""
    found = find_groups(".".join(others if command else (first, *others)), command)
    listing = not (everything or others) and first in ("", *COMMANDS)
    listed = [group for group in found if listing and group.name != "train"]  # which lie in no section
    for number, group in enumerate(group for group in found if group not in listed):
        typer.echo(f"{chr(10) if number else ''}# {f'{group.name}: ' if group.name else ''}{group.about}")
        rows = [[each.name, each.takes, each.default, each.description] for each in group.settings]
        print_rows(["setting", "takes", "default", "meaning"], rows)
    if not listed:
        return
    if len(listed) < len(found):
        typer.echo()
    plain = [replace(each, name=each.name.replace("[]", "")) for each in listed]
    rows = [[each.name, each.about, ", ".join(one.name.rpartition(".")[2] for one in each.settings)] for each in plain]
    print_rows(["section", "what for", "settings"], rows)
    of = first or "segment"
    rest = [f"of a {what}: vimvol settings {name}" for name, what in SETTINGS_OF.items() if name != of]
    typer.echo(
        f"\nwhat they take and mean: of a section vimvol settings {plain[0].name}, of all vimvol settings {of} --all; "
        f"those {'; '.join(rest)}",
        err=True,
    )


@app.command()
def info(
    path: Annotated[str, typer.Argument(metavar="PATH[:DATASET]", help="Volume, or container of several.")],
) -> None:
    """Show what is in a volume: axes, voxel size, chunks, shards, dtype."""
    check_there(path)
    from vimvol.commands.listing import volume_rows
    from vimvol.errors import VimvolError
    from vimvol.outputs.standing import unfinished_text
    from vimvol.report.table import print_rows

    print_rows(*volume_rows(path))
    with contextlib.suppress(VimvolError):  # of what is there all is told
        if text := unfinished_text(path, "arrays may be missing, or empty in parts"):
            typer.echo(text, err=True)


@app.command()
def view(
    out: Annotated[str, typer.Argument(metavar="OUT.zarr", help="Output of `vimvol segment`.")],
    names: Annotated[
        list[str] | None,
        typer.Option("--name", metavar="NAME", help="Segmentation to show; may be repeated; by default all."),
    ] = None,
    port: Annotated[
        int, typer.Option(min=0, max=65535, metavar="N", help="Port on this machine; by default any that is free.")
    ] = 0,
) -> None:
    """Show an output in neuroglancer, over its intensities, until Ctrl-C. Other machines reach it through ssh."""
    from vimvol.cli.stop import Stopped
    from vimvol.commands.view import view as show

    try:
        with show(out, names or (), port=port, tell=lambda text: typer.echo(text, err=True)) as viewing:
            typer.echo(f"viewer        {viewing.url}")
            tunnel = f"ssh -L {viewing.port}:127.0.0.1:{viewing.port} HOST"
            typer.echo(f"from afar     {tunnel}, HOST being this one, then the same address; Ctrl-C ends it")
            threading.Event().wait()
    except Stopped:  # as it is meant to end
        typer.echo("closed")
