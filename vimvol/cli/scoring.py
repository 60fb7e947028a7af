"""Commands that score: ``evaluate``."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from vimvol.address import check_there
from vimvol.cli.app import app, check_file, write_text


@app.command()
def evaluate(
    segmentation: Annotated[
        str,
        typer.Argument(
            metavar="SEGMENTATION[:DATASET]", help="What is scored; of an output of `vimvol segment`, its labels."
        ),
    ],
    ground_truth: Annotated[str, typer.Argument(metavar="GROUND_TRUTH[:DATASET]", help="What is true.")],
    mode: Annotated[
        str,
        typer.Option(
            metavar="3d|2d|auto", help="3d, 2d (the mean over slices), or auto: as the segmentation was made."
        ),
    ] = "auto",
    band: Annotated[
        list[int] | None,
        typer.Option(
            metavar="VOXELS",
            help="Leave out voxels nearer than this to a true boundary, in 3d alone; may be repeated. Else 0 and 2.",
        ),
    ] = None,
    ignore: Annotated[
        list[int] | None,
        typer.Option(metavar="LABEL", help="Leave out this label of the ground truth; may be repeated."),
    ] = None,
    background: Annotated[
        str,
        typer.Option(
            metavar="ignore|keep",
            help="What label 0 of the ground truth is. ignore: not annotated, so it does not count. keep: background, "
            "as between the cells of images, which are then scored slice by slice.",
        ),
    ] = "ignore",
    objects: Annotated[
        str | None, typer.Option(metavar="FILE.csv", help="List the largest splits and merges, and where they are.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(metavar="N", help="Processes that count; by default one a core for a large volume.")
    ] = None,
    json_file: Annotated[str | None, typer.Option("--json", metavar="FILE", help="Write the scores, too.")] = None,
) -> None:
    """Score a segmentation against a ground truth: VOI, adapted Rand, CREMI score, mean segmentation accuracy."""
    for path in (json_file, objects):
        check_file(path)
    for address in (segmentation, ground_truth):
        check_there(address)
    from vimvol.commands.score import objects_csv, score
    from vimvol.geometry import Block
    from vimvol.report.amounts import count_text
    from vimvol.report.progress import make_progress
    from vimvol.report.table import print_scores

    with make_progress() as progress:
        result = score(
            segmentation,
            ground_truth,
            mode,
            bands=band,
            ignore=ignore or (),
            background=background,
            objects=objects is not None,
            workers=workers,
            progress=progress,
        )
    rows = result.pop("objects", [])
    # which of several labels it was decides the scores
    for name, given in (("segmentation", segmentation), ("ground_truth", ground_truth)):
        if not result[name].endswith(given.rstrip("/")):
            typer.echo(f"{name.replace('_', ' ')}: {result[name]}", err=True)
    if "warning" in result:
        typer.echo(f"warning: {result['warning']}", err=True)
    print_scores(result)
    if "region" in result:
        region = Block(*map(tuple, result["region"]))
        typer.echo(f"scored only {region} in z, y, x, the region that was to be segmented (input.roi)")
    if objects is not None:
        write_text(objects, objects_csv(rows))
        typer.echo(f"{count_text(len(rows), 'split or merge', 'splits and merges')}, the largest first, in {objects}")
    if json_file is not None:
        write_text(json_file, json.dumps(result, indent=2) + "\n")
