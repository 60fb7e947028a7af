"""Commands that train: ``train``, ``train-edges``, and ``download`` for what there is to train on."""

from __future__ import annotations

import shlex
from functools import partial
from typing import Annotated

import typer

from vimvol.address import absolute, check_output_there, check_there, is_url
from vimvol.cli.app import Overrides, app, flag, tell_opening
from vimvol.cli.help import Resumable
from vimvol.cli.slices import slices_of
from vimvol.config import TrainConfig, load_config
from vimvol.errors import InputError
from vimvol.train.given import check_given


@app.command(cls=Resumable)
def train(
    config: Annotated[str, typer.Argument(metavar="CONFIG", help="YAML configuration; see configs/train.")],
    overrides: Overrides = None,
) -> None:
    """Train a network. The same command again goes on from the last checkpoint."""
    settings = load_config(TrainConfig, config, overrides or ())
    if is_url(absolute(settings.out)):
        from vimvol.io.storage import local_path

        local_path(settings.out)  # refuses it
    check_given(settings)
    tell_opening(config)
    from vimvol.infer.device import resolve_device, slow_text
    from vimvol.train.fit import fit, is_first

    if text := slow_text(settings.precision, resolve_device("auto")):
        typer.echo(text, err=True)
    weights = fit(settings, partial(typer.echo, err=True))
    if not is_first():
        return
    typer.echo(f"weights       {weights}")
    cells = "" if settings.target == "boundary" else "--set segment.mode=2d --set predict.normalize=slice "
    typer.echo(f"use them      vimvol segment --model {shlex.quote(str(weights))} {cells}PATH OUT.zarr")


@app.command("train-edges")
def train_edges(
    pairs: Annotated[
        list[str], typer.Argument(metavar="OUT.zarr TRUTH[:DATASET] ...", help="Finished outputs and ground truths.")
    ],
    out: Annotated[str, typer.Option("--out", metavar="FILE", help="File to write; a PNG is put beside it.")],
    slab: Annotated[
        str | None, typer.Option(metavar="Z0:Z1", help="Learn from these slices only, the last not included.")
    ] = None,
    note: Annotated[str, typer.Option(metavar="TEXT", help="Data and their licence, for the card in the file.")] = "",
) -> None:
    """Learn from ground truth what edges cost, for `--set agglomerate.costs=FILE`."""
    if len(pairs) % 2:
        raise InputError(f"{pairs[-1]} has no ground truth; give OUT TRUTH in turn")
    for output, truth in zip(pairs[::2], pairs[1::2], strict=True):
        check_output_there(output)
        check_there(truth)
    slices = None if slab is None else slices_of(slab, "--slab")
    tell_opening(", ".join(pairs[::2]))
    from vimvol.commands.edges import train_edges as learn
    from vimvol.report.table import print_rows

    done = learn(list(zip(pairs[::2], pairs[1::2], strict=True)), out, slices, note)
    print_rows(["feature", "importance"], [[k, f"{v:.3f}"] for k, v in list(done.importances.items())[:10]])
    typer.echo(f"{done.edges:,} edges, {done.cut:,} of them between objects")
    typer.echo(f"costs         {done.path}")
    typer.echo(f"picture       {done.picture}")
    costs = shlex.quote(f"agglomerate.costs={done.path}")
    typer.echo(f"use them      vimvol agglomerate {shlex.quote(pairs[0])} --set {costs} --name learned")


@app.command(cls=Resumable)
def download(
    dataset: Annotated[str, typer.Argument(metavar="cremi|livecell", help="Data of the ViM-UNet paper.")],
    folder: Annotated[str, typer.Argument(metavar="FOLDER", help="Where files go; those there are only checked.")],
    only: Annotated[list[str] | None, typer.Option("--only", metavar="FILE", help="Just this; repeatable.")] = None,
    insecure: Annotated[
        bool, flag("--insecure", "Accept an invalid certificate, for files with a published checksum.")
    ] = False,
) -> None:
    """Fetch a data set from its authors, with checksums. The same command again goes on where it stopped."""
    from vimvol.io.storage import local_path
    from vimvol.preflight.disk import check_writable
    from vimvol.report.transfer import Transfers
    from vimvol.train.download import download as fetch

    check_writable(str(local_path(folder).absolute()))
    with Transfers() as told:
        files = fetch(dataset, folder, told, insecure=insecure, only=only or ())
    for file in files:
        typer.echo(f"there         {file}")
