"""The command line: parses, loads a configuration, calls the function of a command. One module a group of commands."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import typer

from vimvol.cli import segmenting, planning, standing, agglomerating, scoring, tuning, training, exchanging, looking  # isort: skip - the order in which help lists them
from vimvol.cli.app import app
from vimvol.cli.help import App, Command, Resumable
from vimvol.cli.stop import Stopped, stoppable
from vimvol.errors import VimvolError

__all__ = [
    "agglomerating",
    "app",
    "exchanging",
    "looking",
    "main",
    "planning",
    "run_script",
    "scoring",
    "segmenting",
    "standing",
    "training",
    "tuning",
]

INTERRUPTED = 130


def main(program: Callable[[], Any] = app) -> None:
    """Run the command line; what a user can mend ends in one line and exit code 2."""
    try:
        with stoppable():
            program()
    except VimvolError as error:
        typer.secho(f"error: {error}", fg=typer.colors.RED, err=True)
        raise SystemExit(error.exit_code) from None
    except Stopped as stopped:
        typer.echo(f"stopped; {stopped}", err=True)
        raise SystemExit(INTERRUPTED) from None


def run_script(function: Callable[..., None], text: str, *, resumable: bool = True) -> None:
    """Run a function as a command that ends as `vimvol` does.

    Parameters
    ----------
    function
        Annotated; its parameters are the arguments and options, read from the command line.
    text
        What ``--help`` says.
    resumable
        Whether what is finished is kept when it is stopped.
    """
    script = App(add_completion=False, rich_markup_mode=None)
    about = text.replace("\n    python", "\n\n\b\n    python", 1)
    script.command(cls=Resumable if resumable else Command, help=about)(function)
    main(script)
