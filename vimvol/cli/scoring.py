"""Commands that score: ``evaluate``."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from vimvol.cli.app import app, write_text


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
        write_text(json_file, json.dumps(result, indent=2) + "\n")
