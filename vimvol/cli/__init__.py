"""The command line: parses, loads a configuration, calls the function of a command. One module a group of commands.

Loads next to nothing by itself, so that Ctrl-C is heard while the rest is loaded.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from vimvol.cli.stop import Stopped, stoppable
from vimvol.errors import VimvolError

__all__ = ["main", "run_script"]

INTERRUPTED = 130


def main(program: Callable[[], Any] | None = None) -> None:
    """Run the command line, or another program; what a user can mend ends in one line and exit code 2."""
    try:
        with stoppable():
            if program is None:
                from vimvol.cli.commands import app

                program = app
            program()
    except VimvolError as error:
        import typer

        typer.secho(f"error: {error}", fg=typer.colors.RED, err=True)
        raise SystemExit(error.exit_code) from None
    except Stopped as stopped:
        sys.stderr.write(f"stopped; {stopped}\n")
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
    from vimvol.cli.help import App, Command, Resumable

    script = App(add_completion=False, rich_markup_mode=None)
    about = text.replace("\n    python", "\n\n\b\n    python", 1)
    script.command(cls=Resumable if resumable else Command, help=about)(function)
    main(script)
