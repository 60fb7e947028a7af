"""Commands that exchange with others: ``export`` for older viewers; ``export-nnunet`` and ``import-nnunet``."""

from __future__ import annotations

import json
import shlex
import time
from typing import Annotated

import typer

from vimvol.address import absolute, check_output_there, check_there
from vimvol.cli.app import Cluster, Overrides, Processes, SchedulerFile, app, chosen_cluster, flag, tell_opening
from vimvol.cli.help import Resumable
from vimvol.cli.slices import shape_of
from vimvol.config import TrainConfig, load_config
from vimvol.errors import InputError


@app.command(cls=Resumable)
def export(
    out: Annotated[str, typer.Argument(metavar="OUT.zarr", help="Finished output of `vimvol segment`.")],
    target: Annotated[str, typer.Argument(metavar="COPY.zarr", help="OME-Zarr 0.4 to write, or to bring up to date.")],
    names: Annotated[
        list[str] | None,
        typer.Option("--name", metavar="NAME", help="Segmentation to copy; may be repeated; by default all."),
    ] = None,
    chunk: Annotated[
        str | None, typer.Option(metavar="Z,Y,X", help="Voxels of a chunk, each one file; by default as in OUT.zarr.")
    ] = None,
    dtype: Annotated[
        str, typer.Option(metavar="uint64|uint32", help="Of segmentations: uint64, or uint32 for viewers that want it.")
    ] = "uint64",
    cluster: Cluster = "local",
    scheduler_file: SchedulerFile = None,
    workers: Processes = None,
) -> None:
    """Copy a finished run as OME-Zarr 0.4 (zarr v2, no shards), for viewers that do not know 0.5."""
    start = time.perf_counter()
    check_output_there(out)
    tell_opening(out)
    from vimvol.outputs.copies import check_copy

    wanted = None if chunk is None else shape_of(chunk, "chunk")
    check_copy(absolute(out), absolute(target), names or (), wanted, dtype)  # before what copies is loaded
    from vimvol.commands.export import export as copy
    from vimvol.report.progress import make_progress

    with make_progress() as progress:
        done = copy(
            out,
            target,
            names=names or (),
            chunk=wanted,
            dtype=dtype,
            cluster=chosen_cluster(cluster, scheduler_file),
            workers=workers,
            progress=progress,
        )
    seconds = time.perf_counter() - start
    if done.done_before:
        typer.echo("all copied before; nothing was copied")
    typer.echo(f"OME-Zarr 0.4  {done.target}, boundaries and {', '.join(done.labels)}, in {seconds:.0f} s")
    if done.kept:
        typer.echo(f"also there    {', '.join(done.kept)}, as copied before")
    for text in done.left_out:
        typer.echo(text, err=True)


@app.command("export-nnunet")
def export_nnunet(
    source: Annotated[
        str,
        typer.Argument(metavar="CONFIG.yaml|PATH[:DATASET]", help="Training whose data it is; or a volume to predict."),
    ],
    folder: Annotated[str, typer.Argument(metavar="FOLDER", help="nnUNet_raw; of a volume, a new folder.")],
    number: Annotated[int | None, typer.Option("--id", metavar="N", help="Number of the data set, 1 to 999.")] = None,
    name: Annotated[str, typer.Option(metavar="NAME", help="Its name.")] = "vimvol",
    volumes: Annotated[bool, flag("--volumes", "A case a volume (3D), not a slice (2D).")] = False,
    overrides: Overrides = None,
) -> None:
    """Write the data of a training, or a volume to predict, in the format of nnU-Net v2."""
    if not source.endswith((".yaml", ".yml")):
        if number is not None or overrides:
            raise InputError(f"{source} is no configuration of a training, and --id and --set are for those")
        check_there(source)
        from vimvol.commands.nnunet import export_volume
        from vimvol.report.amounts import count_text

        typer.echo(f"{count_text(export_volume(source, folder, volumes=volumes), 'case')} in {folder}")
        typer.echo(f"predict them  nnUNetv2_predict -i {shlex.quote(folder)} -o PREDICTED ... --save_probabilities")
        return
    if number is None:
        raise InputError("a data set of nnU-Net has a number; give one of 1 to 999 that is free, e.g. --id 501")
    config = load_config(TrainConfig, source, overrides or ())
    from vimvol.io.storage import local_path
    from vimvol.preflight.disk import check_writable
    from vimvol.report.amounts import count_text
    from vimvol.train.nnunet import export_dataset

    check_writable(str(local_path(folder).absolute()))
    done = export_dataset(config, folder, number, name, volumes=volumes)
    typer.echo(f"{count_text(done.train, 'case')} to train, {done.validate} to validate, {done.test} to test")
    typer.echo(f"data set      {done.folder}")


@app.command("import-nnunet")
def import_nnunet(
    predicted: Annotated[str, typer.Argument(metavar="PREDICTED", help="Folder that nnUNetv2_predict wrote.")],
    source: Annotated[str, typer.Argument(metavar="PATH[:DATASET]", help="The volume that was predicted.")],
    out: Annotated[str, typer.Argument(metavar="BOUNDARIES.zarr", help="OME-Zarr to write.")],
) -> None:
    """Make boundaries to segment by of what nnU-Net predicted of a volume."""
    check_there(source)
    from vimvol.commands.nnunet import import_predictions

    done = import_predictions(predicted, source, out)
    named = shlex.quote(f"predict.classes={json.dumps(list(done.classes))}")
    typer.echo(f"boundaries    {done.out}")
    typer.echo(
        f"use them      vimvol segment {shlex.quote(source)} OUT.zarr --set predict.boundaries={shlex.quote(done.out)} "
        f"--set {named}"
    )
