"""Score a network on the unseen ventral nerve cord sections as another microscope might have shown them.

There is no third annotated specimen to develop on. Other scales, contrasts and noise are not another animal, but a
network that fails on them fails there, too.

    python pipelines/score_changed_images.py ../shared/data [vimunet-nano or FILE] [section.key=value ...]
"""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import h5py
import numpy as np
import typer
from numpy.typing import NDArray
from scipy import ndimage
from skimage import exposure, transform

from vimvol import SegmentConfig, load_config, score, segment_volume
from vimvol.cli import run_script
from vimvol.geometry import Block
from vimvol.io import open_volume

STACK = "vnc_stack1_z00-14.h5"
FIRST_UNSEEN = 12
Stack = NDArray[Any]


def zoomed(raw: Stack, labels: Stack, zoom: float) -> tuple[Stack, Stack]:
    """Return intensities and instances (z, y, x) with this many voxels in place of one along y and x."""
    size = round(raw.shape[-1] * zoom)
    resize: Any = partial(transform.resize, output_shape=(size, size), order=1, anti_aliasing=zoom < 1)
    nearest = (np.arange(size) / zoom).astype(int)
    return np.stack([resize(section.astype(float)) for section in raw]), labels[:, nearest][:, :, nearest]


def changed(raw: Stack, labels: Stack, zooms: Sequence[float] = (0.6, 1.5)) -> Iterator[tuple[str, Stack, Stack]]:
    """Yield name, intensities 0 to 255 and instances, (z, y, x), of every variant of a stack."""
    extent = raw.shape[-1]
    y, x = np.mgrid[:extent, :extent] / extent
    grains = np.random.default_rng(7).normal(0, 12, raw.shape)
    yield "as it is", raw, labels
    for zoom in zooms:
        yield f"zoom {zoom}", *zoomed(raw, labels, zoom)
    even = [exposure.equalize_adapthist(s, kernel_size=64, clip_limit=0.03) * 255 for s in raw]
    yield "CLAHE", np.stack(even), labels
    yield "blurred and noisy", np.stack([ndimage.gaussian_filter(s.astype(float), 1.8) for s in raw]) + grains, labels
    yield "washed out", 128 + (raw - 128.0) * (0.15 + 0.3 * x) + 60 * y, labels
    yield "dark", 255 * (raw / 255.0) ** 2.5, labels


def main(
    folder: Path,
    model: Annotated[str, typer.Argument()] = "vimunet-nano",
    settings: Annotated[list[str] | None, typer.Argument()] = None,
) -> None:
    """Segment and score every variant."""
    stack = f"{folder / STACK}:volumes"
    volume, instances = open_volume(f"{stack}/raw"), open_volume(f"{stack}/labels/neuron_ids", prefer="labels")
    unseen = Block((FIRST_UNSEEN, 0, 0), volume.shape)
    raw, labels = volume.read(unseen), instances.read(unseen)
    config = load_config(
        SegmentConfig,
        None,
        {"segment.mode": "2d", "input.voxel_size": [50, 4.6, 4.6], "predict.model": model}
        | dict(setting.split("=", 1) for setting in settings or ()),
    )
    with TemporaryDirectory() as scratch:
        for name, image, truth in changed(raw, labels):
            source = Path(scratch) / f"{name.replace(' ', '-')}.h5"
            with h5py.File(source, "w") as file:
                file["raw"] = np.clip(image, 1, 255).astype(np.uint8)  # 0 is padding
                file["labels"] = truth.astype(np.uint64)
            out = str(source.with_suffix(".zarr"))
            segment_volume(f"{source}:raw", out, config)
            scores = score(out, f"{source}:labels")["scores"]["slices"]
            print(f"{name:20} mSA {scores['mean_segmentation_accuracy']:.3f}", flush=True)


if __name__ == "__main__":
    run_script(main, __doc__, resumable=False)
