"""The command-line application, and the options that several commands share."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from vimvol import __version__
from vimvol.cli.help import App
from vimvol.config.cluster import AddressCluster, ClusterConfig, read_cluster
from vimvol.errors import InputError, StorageError

app = App(
    help="Segment electron-microscopy volumes that do not fit one machine, with ViM-UNet.",
    epilog="`vimvol settings` describes what `--set` and `--config` take, `vimvol COMMAND --help` a command.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)


def flag(name: str, text: str, **more: Any) -> Any:  # noqa: ANN401 - what typer takes and gives
    """Return an option that takes no value, which typer's help would show as <bool>; ``text``: its help."""
    return typer.Option(name, metavar="", help=text, **more)


Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Set one value, see `vimvol settings`; may be repeated."),
]

Cluster = Annotated[
    str,
    typer.Option(
        metavar="NAME|ADDRESS|FILE",
        help="local, cuda, tcp://host:port of a Dask scheduler, or a YAML file as in configs/cluster.",
    ),
]

SchedulerFile = Annotated[
    str | None, typer.Option("--scheduler-file", metavar="FILE", help="Use the Dask scheduler that wrote this file.")
]

Log = Annotated[
    str | None, typer.Option("--log", metavar="FILE", help="Append what happens to FILE, one JSON object a line.")
]

Processes = Annotated[
    int | None, typer.Option(metavar="N", help="Worker processes; by default one a core, 0 for none.")
]

PerformanceReport = Annotated[
    str | None,
    typer.Option("--performance-report", metavar="FILE.html", help="Write Dask's report of what every worker did."),
]


def chosen_cluster(cluster: str, scheduler_file: str | None) -> ClusterConfig:
    """Return the settings of the cluster that the options name.

    Raises
    ------
    InputError
        If there is none, or two are named.
    """
    if scheduler_file is None:
        return read_cluster(cluster)
    if cluster != "local":
        raise InputError(f"--cluster {cluster} and --scheduler-file {scheduler_file} name two clusters; give one")
    return AddressCluster(scheduler_file=scheduler_file)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"vimvol {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, flag("--version", "Show the version and leave.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Segment electron-microscopy volumes that do not fit one machine, with ViM-UNet."""


def tell_opening(source: str) -> None:
    """Tell at once that a command has begun: what it needs takes seconds to load, and longer from a slow disk."""
    typer.echo(f"opening {source}", err=True)


def check_file(path: str | None) -> None:
    """See to it that a file which is wanted in the end can be written, before anything is computed.

    Raises
    ------
    InputError
        If it cannot.
    """
    if path is None:
        return
    folder = Path(path).absolute().parent
    if Path(path).is_dir() or not folder.is_dir():
        raise InputError(f"{path} cannot be written; name a file in a folder that is there")
    if not os.access(path if Path(path).exists() else folder, os.W_OK):
        raise InputError(f"{path} cannot be written, the right is missing or the disk read-only; choose another path")


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
