"""Stage picture: raw, boundaries and segmentation of the middle of a volume, side by side."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from vimvol.config import SegmentConfig
from vimvol.geometry import Block, Index
from vimvol.io import Volume, open_volume
from vimvol.io.storage import absolute
from vimvol.report.picture import overview
from vimvol.stages.manifest import read_manifest
from vimvol.stages.region import region_of

LARGEST = 768
"""Voxels (y, x) of the cut-out at most: more would not be seen."""


def draw_overview(source: str, out: str, config: SegmentConfig, truth: str | None = None) -> str:
    """Draw the middle of a finished segmentation into ``OUT/vimvol/overview.png``.

    Parameters
    ----------
    source
        ``PATH[:DATASET]`` of the intensities.
    out
        Path or URL of the finished output.
    config
        The configuration that it was made with.
    truth
        ``PATH[:DATASET]`` of a ground truth to show beside it.
    """
    raw = open_volume(source, axes=config.input.axes, voxel_size=config.input.voxel_size)
    region = region_of(config, raw) or Block.whole(raw.shape)
    box = _middle(region.shape).moved(region.begin)
    boundaries = open_volume(f"{out}:0")
    labels = open_volume(f"{out}:labels/segmentation/0", prefer="labels")
    manifest = read_manifest(out) or {}
    model = manifest.get("model", {})
    path = f"{absolute(out)}/vimvol/overview.png"
    overview(
        _as_uint8(raw, box),
        boundaries.read_channels(box)[model.get("boundary", 0), 0],
        labels.read(box)[0],
        path,
        title=f"{Path(raw.url).name}, z = {box.begin[0]}, {model.get('name', '')}",
        voxel_size_x=raw.voxel_size[2],
        ground_truth=None if truth is None else open_volume(truth, prefer="labels").read(box)[0],
    )
    return path


def _middle(shape: Index) -> Block:
    """Return the middle slice, cut to what a picture can show."""
    begin = tuple(max(0, (s - LARGEST) // 2) for s in shape[1:])
    end = tuple(min(s, b + LARGEST) for s, b in zip(shape[1:], begin, strict=True))
    return Block((shape[0] // 2, *begin), (shape[0] // 2 + 1, *end))


def _as_uint8(volume: Volume, box: Block) -> npt.NDArray[np.uint8]:
    """Read a slice and stretch its intensities to 0..255, the darkest and brightest percent clipped."""
    data = volume.read(box)[0].astype(np.float32)
    low, high = np.percentile(data, (1, 99))
    stretched: npt.NDArray[np.uint8] = np.clip((data - low) / max(float(high - low), 1e-6) * 255, 0, 255).astype(
        np.uint8
    )
    return stretched
