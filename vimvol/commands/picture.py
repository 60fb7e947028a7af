"""The picture of an output: raw, boundaries and segmentation of its middle, side by side, in one or two cuts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vimvol.address import absolute
from vimvol.config import SegmentConfig
from vimvol.geometry import Block
from vimvol.io import Volume, open_volume
from vimvol.outputs.manifest import read_manifest
from vimvol.report.picture import Cut, draw_cuts
from vimvol.report.span import span_of
from vimvol.stages.region import region_of

LARGEST = 768
"""Voxels (z, y, x) of the cut-out at most: more would not be seen."""


def draw_overview(source: str, out: str, config: SegmentConfig, truth: str | None = None) -> str:
    """Draw the middle of a finished segmentation into ``OUT/vimvol/overview.png``; return its path or URL.

    A slice is shown, and of whole neurons also a cut along z.

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
    manifest = read_manifest(out) or {}
    model = manifest.get("model", {})
    shown = _Shown(
        raw,
        open_volume(f"{out}:0"),
        int(model.get("boundary", 0)),
        open_volume(f"{out}:labels/segmentation/0", prefer="labels"),
        None if truth is None else open_volume(truth, prefer="labels"),
    )
    region = region_of(config, raw) or Block.whole(raw.shape)
    whole = config.segment.mode == "3d" and region.shape[0] > 1
    box = _middle(region)
    z, y = (b + (e - b) // 2 for b, e in zip(box.begin[:2], box.end[:2], strict=True))
    slab = Block((z, *box.begin[1:]), (z + 1, *box.end[1:]))
    span = span_of(raw.read(slab))
    cuts = [shown.cut(slab, span, "xy" if whole else "")]
    if whole:
        along = Block((box.begin[0], y, box.begin[2]), (box.end[0], y + 1, box.end[2]))
        cuts.append(shown.cut(along, span, "xz"))
    path = f"{absolute(out)}/vimvol/overview.png"
    draw_cuts(cuts, path, title=f"{Path(raw.url).name}, z = {z}, {model.get('name', '')}")
    return path


@dataclass(frozen=True)
class _Shown:
    """The volumes of a picture; ``boundary`` is the channel of the boundaries that is seen."""

    raw: Volume
    boundaries: Volume
    boundary: int
    labels: Volume
    truth: Volume | None

    def cut(self, box: Block, span: tuple[float, float], plane: str) -> Cut:
        """Read a box that is one voxel thick; intensities of ``span`` become 0 to 255, NaN 0."""
        axis = 1 if plane == "xz" else 0
        low, high = span
        grey = np.clip((self.raw.read(box).astype(np.float32) - low) / (high - low) * 255, 0, 255)
        size = [v for a, v in enumerate(self.raw.voxel_size) if a != axis]
        return Cut(
            np.nan_to_num(grey).astype(np.uint8).squeeze(axis),
            self.boundaries.read_channels(box)[self.boundary].squeeze(axis),
            self.labels.read(box).squeeze(axis),
            (size[0], size[1]) if self.raw.voxel_size_known else None,
            None if self.truth is None else self.truth.read(box).squeeze(axis),
            plane,
        )


def _middle(region: Block) -> Block:
    """Return the middle of a region, cut to what a picture can show."""
    begin = tuple(b + max(0, (s - LARGEST) // 2) for b, s in zip(region.begin, region.shape, strict=True))
    end = tuple(min(e, b + LARGEST) for e, b in zip(region.end, begin, strict=True))
    return Block(begin, end)
