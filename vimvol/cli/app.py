"""The command-line application, and the options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vimvol import __version__
from vimvol.errors import StorageError

app = typer.Typer(
    help="Segment electron-microscopy volumes that do not fit one machine, with ViM-UNet.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)

Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Set one value of the configuration; may be repeated."),
]


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"vimvol {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and leave.")
    ] = False,
) -> None:
    """Segment electron-microscopy volumes that do not fit one machine, with ViM-UNet."""


def write_text(path: str, text: str) -> None:
    """Write what a user asked to have in a file.

    Raises
    ------
    StorageError
        If it cannot be written.
    """
    try:
        Path(path).write_text(text, encoding="utf-8")
    except OSError as error:
        raise StorageError(f"{path} cannot be written ({error.strerror}); choose another path") from None
