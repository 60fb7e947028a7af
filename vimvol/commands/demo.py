"""The demonstration: a synthetic volume through the whole pipeline."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vimvol.commands.picture import draw_overview
from vimvol.commands.score import score
from vimvol.commands.segment import segment_volume
from vimvol.config import SegmentConfig, load_config
from vimvol.engine.run import Progress
from vimvol.io.annotated import write_annotated
from vimvol.io.errors import storage_errors
from vimvol.io.storage import local_path
from vimvol.preflight.disk import check_writable
from vimvol.sample import SampleSpec, generate


@dataclass(frozen=True)
class Demonstration:
    """Where the results of a demonstration lie, and how good they are.

    Attributes
    ----------
    raw
        OME-Zarr of the synthetic volume with its ground truth, ``labels/neurites``.
    segmentation
        OME-Zarr of the boundaries and the segmentation.
    picture
        PNG of raw, boundaries, segmentation and ground truth.
    scores
        As `vimvol.commands.score.score` returns them.
    done_before
        When the segmentation was made, ISO 8601, where it was there already; else empty.
    """

    raw: Path
    segmentation: Path
    picture: Path
    scores: dict[str, Any]
    done_before: str = ""


def run_demo(folder: str, workers: int | None, progress: Progress, *, overwrite: bool = False) -> Demonstration:
    """Generate a synthetic EM volume, segment it, score it, draw it.

    Parameters
    ----------
    folder
        Where everything is written.
    workers
        Worker processes; none: one a core.
    progress
        Who is told how far it is.
    overwrite
        Allow the segmentation of another run in the folder to be replaced.

    Raises
    ------
    InputError
        If the folder cannot be written.
    OutputExistsError
        If the folder holds other results.
    """
    target = local_path(folder)
    check_writable(str(target.absolute()))
    with storage_errors(f"creating {target}"):
        target.mkdir(parents=True, exist_ok=True)
    raw, out = target / "raw.zarr", target / "segmentation.zarr"
    write_sample(raw, SampleSpec())
    # Thin chunks, so that a small volume has blocks for several workers.
    options: dict[str, Any] = {"output.chunk": [4, 128, 128]}
    config = load_config(SegmentConfig, None, options if workers is None else {**options, "run.workers": workers})
    made = segment_volume(str(raw), str(out), config, progress=progress, overwrite=overwrite, command="vimvol demo")
    truth = f"{raw}:labels/neurites/0"
    scores = score(str(out), truth)
    (target / "scores.json").write_text(json.dumps(scores, indent=2) + "\n", encoding="utf-8")
    picture = target / "overview.png"
    shutil.copyfile(draw_overview(str(raw), str(out), config, truth), picture)
    return Demonstration(raw, out, picture, scores, made.finished if made.done_before else "")


def write_sample(path: Path, spec: SampleSpec) -> None:
    """Write a synthetic volume and its ground truth as an OME-Zarr; one that is there already is kept."""
    done = path / "labels" / "neurites" / "complete"
    if done.is_file():
        return
    intensities, labels = generate(spec)
    write_annotated(path, intensities, labels, spec.voxel_size, "neurites", name="synthetic EM")
    done.touch()
