"""The command line: parses, loads a configuration, calls the stages."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

from vimvol import __version__
from vimvol.config import SegmentConfig, TrainConfig, load_config
from vimvol.errors import VimvolError

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
INTERRUPTED = 130


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


@app.command()
def segment(
    source: Annotated[str, typer.Argument(metavar="PATH[:DATASET]", help="Volume: zarr, OME-Zarr, HDF5, TIFF.")],
    out: Annotated[str, typer.Argument(metavar="OUT.zarr", help="OME-Zarr to write.")],
    config: Annotated[str | None, typer.Option("--config", metavar="FILE", help="YAML configuration.")] = None,
    overrides: Overrides = None,
    model: Annotated[
        str | None, typer.Option("--model", help="Network: a name of `vimvol models` or a file. Sets predict.model.")
    ] = None,
    cluster: Annotated[str, typer.Option(help="local, or tcp://host:port of a Dask scheduler.")] = "local",
    workers: Annotated[
        int | None, typer.Option(help="Worker processes; by default one a core, 0 for none. Sets run.workers.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace results of other settings in OUT.")] = False,
) -> None:
    """Segment a volume into an OME-Zarr. The same command again goes on where a run stopped."""
    from vimvol.report.progress import make_progress
    from vimvol.stages.picture import draw_overview
    from vimvol.stages.segment import segment_volume

    extra = [*(overrides or [])]
    extra += [f"predict.model={json.dumps(model)}"] if model is not None else []
    extra += [f"run.workers={workers}"] if workers is not None else []
    settings = load_config(SegmentConfig, config, extra)
    with make_progress() as progress:
        result = segment_volume(
            source, out, settings, cluster=cluster, overwrite=overwrite, progress=progress, command=" ".join(sys.argv)
        )
    picture = draw_overview(source, result.out, settings)
    typer.echo(f"{result.segments} segments of {result.fragments} fragments in {result.seconds:.0f} s")
    typer.echo(f"segmentation  {result.labels}")
    typer.echo(f"picture       {picture}")


@app.command()
def evaluate(
    segmentation: Annotated[str, typer.Argument(metavar="SEGMENTATION[:DATASET]")],
    ground_truth: Annotated[str, typer.Argument(metavar="GROUND_TRUTH[:DATASET]", help="0 is not annotated.")],
    mode: Annotated[
        str, typer.Option(help="3d, 2d (the mean over slices), or auto: as the segmentation was made.")
    ] = "auto",
    json_file: Annotated[str | None, typer.Option("--json", metavar="FILE", help="Write the scores, too.")] = None,
) -> None:
    """Score a segmentation against a ground truth: VOI, adapted Rand, CREMI score, mean segmentation accuracy."""
    from vimvol.report.table import print_scores
    from vimvol.stages.score import score

    result = score(segmentation, ground_truth, mode)
    print_scores(result)
    if json_file is not None:
        _write(json_file, json.dumps(result, indent=2) + "\n")


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


@app.command()
def demo(
    folder: Annotated[str, typer.Argument(metavar="FOLDER", help="Where everything is written.")] = "vimvol-demo",
    workers: Annotated[int | None, typer.Option(help="Worker processes; by default one a core.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace other results in FOLDER.")] = False,
) -> None:
    """Segment and score a small synthetic EM volume, and draw it: the whole pipeline in one command."""
    from vimvol.report.progress import make_progress
    from vimvol.report.table import print_scores
    from vimvol.stages.demo import run_demo

    with make_progress() as progress:
        result = run_demo(folder, workers, progress, overwrite=overwrite)
    print_scores(result.scores)
    typer.echo(f"raw           {result.raw}")
    typer.echo(f"segmentation  {result.segmentation}")
    typer.echo(f"picture       {result.picture}")


def _write(path: str, text: str) -> None:
    try:
        Path(path).write_text(text, encoding="utf-8")
    except OSError as error:
        from vimvol.errors import StorageError

        raise StorageError(f"{path} cannot be written ({error.strerror}); choose another path") from None


class Stopped(BaseException):
    """Somebody asked this process to end; no `KeyboardInterrupt`, which the command-line library keeps to itself."""


def _stop(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - the signature of a signal handler
    """Leave what runs now; the wall time of a batch system announces itself by SIGTERM."""
    raise Stopped


def main() -> None:
    """Run the command line; what a user can mend ends in one line and exit code 2."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)
    try:
        app()
    except VimvolError as error:
        typer.secho(f"error: {error}", fg=typer.colors.RED, err=True)
        raise SystemExit(error.exit_code) from None
    except Stopped:
        typer.secho("stopped; what is finished is kept, the same command goes on from there", err=True)
        raise SystemExit(INTERRUPTED) from None
