"""Stage score: a segmentation against a ground truth."""

from __future__ import annotations

from typing import Any

from vimvol.errors import InputError
from vimvol.evaluate.protocol import score_slices, score_volume
from vimvol.geometry import Block
from vimvol.io import Volume, open_volume
from vimvol.stages.manifest import manifest_path, read_manifest

MODES = ("auto", "2d", "3d")
BANDS = (0, 2)
"""Voxels next to a boundary of the ground truth that are left out; without any, where exactly annotators drew a
boundary costs about .3 bits of each VOI."""


def score(segmentation: str, ground_truth: str, mode: str = "auto") -> dict[str, Any]:
    """Score a segmentation against a ground truth.

    Parameters
    ----------
    segmentation, ground_truth
        ``PATH[:DATASET]`` of (z, y, x) integers of one shape. Voxels that the ground truth labels 0 do not count.
    mode
        ``3d``: bodies in the volume, with and without a band along the boundaries of the ground truth; ``2d``:
        instances, the mean over slices; ``auto``: the mode in which vimvol made the segmentation, else by its depth.

    Returns
    -------
    dict
        ``segmentation``, ``ground_truth``, ``mode`` and ``scores``: from a protocol's name to its metrics.

    Raises
    ------
    InputError
        If one cannot be opened, the shapes differ or nothing is annotated.
    """
    if mode not in MODES:
        raise InputError(f"mode {mode!r} is not known, so nothing is scored; choose {', '.join(MODES)}")
    found, truth = (open_volume(address, prefer="labels") for address in (segmentation, ground_truth))
    _check_complete(found)
    if found.shape != truth.shape:
        raise InputError(
            f"segmentation {found.address} has shape {found.shape} and ground truth {truth.address} {truth.shape} "
            "(z, y, x), so voxels do not correspond; crop one to the other"
        )
    if mode == "auto":
        mode = _mode_of(found)
    seg, gt = (volume.read(Block.whole(volume.shape)) for volume in (found, truth))
    if mode == "2d":
        scores = {"slices": score_slices(seg, gt)}
    else:
        scores = {"volume" if not band else f"volume, band {band}": score_volume(seg, gt, band) for band in BANDS}
    return {"segmentation": found.address, "ground_truth": truth.address, "mode": mode, "scores": scores}


def _check_complete(volume: Volume) -> None:
    """Refuse an output of vimvol whose run has not ended: missing blocks read as background."""
    if manifest_path(volume.url).is_file() and (read_manifest(volume.url) or {}).get("state") != "complete":
        raise InputError(
            f"{volume.url} is not finished, so missing parts would count as errors; run vimvol segment again to go on"
        )


def _mode_of(volume: Volume) -> str:
    """Return the mode that a segmentation was made in, as far as that can be known."""
    if manifest_path(volume.url).is_file():
        mode: str = (read_manifest(volume.url) or {}).get("mode", "3d")
        return mode
    return "3d" if volume.shape[0] > 1 else "2d"
