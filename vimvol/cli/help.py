"""What a command is: what it says when it is stopped, and how ``--help`` shows it.

Arguments and options are shown by what a user writes, not by the types of Python. Typer has no option for this, so what
it calls to make help is overridden. Versions of it differ in what there is to override, and commands have to run with
all of them: what is missing here leaves help as typer shows it.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from vimvol.cli.stop import Stopped, is_stop


class _Plain:
    """What typer shows besides, left out: the type of an argument, that of ``--help``, and braces in the usage."""

    def get_params(self, ctx: Any) -> list[Any]:  # noqa: ANN401 - typer's own classes have moved
        """Return arguments and options, as they are to be shown."""
        found: list[Any] = super().get_params(ctx)  # type: ignore[misc]  # of the command
        with contextlib.suppress(AttributeError):
            for param in found:
                if param.param_type_name == "argument":
                    param.display_type_rich = _nothing
                elif "--help" in param.opts:
                    param.metavar = ""
        return found

    def collect_usage_pieces(self, ctx: Any) -> list[str]:  # noqa: ANN401
        """Return the parts of the usage; metavars say by themselves what may be repeated."""
        pieces: list[str] = super().collect_usage_pieces(ctx)  # type: ignore[misc]
        return [re.sub(r"^\{(.*)\}(\.\.\.)?$", r"\1", piece) for piece in pieces]


def _nothing(ctx: Any) -> None:  # noqa: ANN401, ARG001 - what typer calls
    return None


class Command(_Plain, TyperCommand):
    """A command of `App`; what it has done when it is stopped is lost."""

    after_stop = "nothing is kept, the same command begins anew"

    def invoke(self, ctx: Any) -> Any:  # noqa: ANN401 - typer's
        """Call the function; if it is stopped, say what that means."""
        try:
            return super().invoke(ctx)
        except BaseException as error:
            if not is_stop(error):
                raise
            raise Stopped(self.after_stop) from None


class Resumable(Command):
    """A command that goes on where it was stopped."""

    after_stop = "what is finished is kept, the same command goes on from there"


class Group(_Plain, TyperGroup):
    """All of them."""


class App(typer.Typer):
    """An application whose help is shown so."""

    def __init__(self, **options: Any) -> None:  # noqa: ANN401 - of typer
        super().__init__(cls=Group, **options)

    def command(self, name: str | None = None, **options: Any) -> Callable[[Any], Any]:  # noqa: ANN401
        """Return what registers a function as a command."""
        return super().command(name, **{"cls": Command, **options})
