"""What each choice of the prediction is worth: mean over orientations, tile, intensities, and the size of voxels.

Every choice predicts the ventral nerve cord sections and the FIB-25 slices that were not trained on, and these sections
as another microscope might have shown them; each is agglomerated at several priors of a cut. No choice was fitted to
any of them. Writes runs/prediction/MODEL.json, of which nothing is computed again, and prints it.

    python pipelines/study_prediction.py ../shared/data vimunet-nano [CHOICE ...] [--only END-OF-AN-IMAGE'S-NAME]
"""

import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import h5py
import numpy as np
import torch
import typer
from numpy.typing import NDArray
from score_changed_images import STACK, changed, zoomed
from skimage import exposure, transform

from vimvol import SegmentConfig, load_config, segment_volume
from vimvol.cli import run_script
from vimvol.commands.agglomerate import agglomerate
from vimvol.errors import ConfigError
from vimvol.evaluate.protocol import score_slices, score_volume
from vimvol.geometry import Block
from vimvol.io import open_volume
from vimvol.outputs.manifest import read_manifest
from vimvol.sample import SampleSpec, generate

Stack = NDArray[Any]
HERE = Path("runs/prediction")
BETAS = (0.2, 0.25, 0.3)
ZOOMS = (0.6, 0.8, 1.25, 1.5)
FIB = "fib25_sample2_z000-149.h5"
VOXELS = {"VNC": (50.0, 4.6, 4.6), "FIB-25": (10.0, 10.0, 10.0)}
"""Nanometres along z, y, x, as the network was trained on them."""
ZOOMED, WIDE = ("zoom",), ("VNC, as it is", "VNC, zoom 1.5")


@dataclass(frozen=True)
class Image:
    """What is segmented and scored.

    Attributes
    ----------
    raw, truth
        (z, y, x) intensities 1 to 255, and instances.
    data
        Key of `VOXELS`.
    zoom
        Voxels in place of one of the original, along y and x.
    """

    raw: Stack
    truth: Stack
    data: str
    zoom: float = 1.0


@dataclass(frozen=True)
class Choice:
    """How boundaries are predicted.

    Attributes
    ----------
    settings
        Of `vimvol segment`.
    prepare
        What is done to an image before.
    only
        Images that it is tried on: those whose names hold one of these.
    """

    settings: Mapping[str, Any] = field(default_factory=dict)
    prepare: Callable[[Image], Stack] = lambda image: image.raw
    only: tuple[str, ...] = ("VNC", "FIB-25", "synthetic")


def by_section(change: Callable[[Stack], Stack], image: Image) -> Stack:
    """Change every section, intensities 0 to 255 as floats, by itself."""
    return np.stack([change(section.astype(np.float64)) for section in image.raw])


def percentiles(section: Stack) -> Stack:
    """Stretch what lies between the 1st and the 99th percentile to the whole range."""
    low, high = np.percentile(section, (1, 99))
    return (section - low) / (high - low) * 255


def locally(section: Stack) -> Stack:
    """Even out the contrast within neighbourhoods of an eighth of the section, slightly (CLAHE)."""
    return exposure.equalize_adapthist(np.clip(section, 0, 255) / 255, clip_limit=0.01) * 255


def resampled(image: Image) -> Stack:
    """Sample sections at the voxel size that the network was trained at."""
    if image.zoom == 1:
        return image.raw
    shape = [round(extent / image.zoom) for extent in image.raw.shape[1:]]
    resize: Any = partial(transform.resize, output_shape=shape, order=1, anti_aliasing=image.zoom > 1)
    return by_section(resize, image)


CHOICES = {
    "as it is": Choice(),
    "flips": Choice({"predict.augment": "flips"}),
    "all": Choice({"predict.augment": "all"}),
    "tile 256": Choice({"predict.tile": [256, 256]}, only=WIDE),
    "tile 384": Choice({"predict.tile": [384, 384]}, only=WIDE),
    "whole slice": Choice({"predict.tile": [2048, 2048]}, only=WIDE),
    "by slice": Choice({"predict.normalize": "slice"}),
    "percentiles": Choice(prepare=partial(by_section, percentiles)),
    "evened out": Choice(prepare=partial(by_section, locally)),
    "rescaled": Choice(prepare=resampled, only=ZOOMED),
    "auto": Choice({"predict.rescale": "auto"}, only=ZOOMED),
}


def synthetic(width: float) -> Image:
    """Return three sections of synthetic neurites of the same size in nanometres, seen with voxels of this width."""
    spec = SampleSpec(shape=(3, *[round(512 * 4.6 / width)] * 2), voxel_size=(50.0, width, width))
    return Image(*generate(spec), "VNC", 4.6 / width)


def images(folder: Path) -> Iterator[tuple[str, Image]]:
    """Yield everything to be scored, by name."""
    for data, name, first in (("VNC", STACK, 12), ("FIB-25", FIB, 112)):
        source = f"{folder / name}:volumes"
        volumes = open_volume(f"{source}/raw"), open_volume(f"{source}/labels/neuron_ids", prefer="labels")
        raw, truth = (volume.read(Block((first, 0, 0), volume.shape)) for volume in volumes)
        if data == "FIB-25":
            yield data, Image(raw, truth, data)
            for zoom in ZOOMS:
                yield f"{data}, zoom {zoom}", Image(*zoomed(raw, truth, zoom), data, zoom)
            continue
        for change, image, instances in changed(raw, truth, ZOOMS):
            zoom = float(change.split()[1]) if change.startswith("zoom") else 1.0
            yield f"VNC, {change}", Image(image, instances, data, zoom)
    for zoom in (*ZOOMS, 1):
        yield f"synthetic, zoom {zoom}", synthetic(4.6 / zoom)


def scored(
    name: str, image: Image, choice: Choice, model: str, betas: Sequence[float] = BETAS
) -> Iterator[dict[str, Any]]:
    """Segment an image at every prior and score it."""
    source, out = HERE / "image.h5", str(HERE / "out.zarr")
    shown = np.clip(choice.prepare(image), 1, 255).astype(np.uint8)  # 0 is padding
    with h5py.File(source, "w") as file:
        file["raw"] = shown
    flat = image.data == "VNC"
    z, y, x = VOXELS[image.data]
    zoom = 1.0 if choice.prepare is resampled else image.zoom
    settings = {
        "segment.mode": "2d" if flat else "3d",
        "input.voxel_size": [z, y / zoom, x / zoom],
        "predict.model": model,
        "output.levels": 1,
        "predict.rescale": "none",
        "run.workers": 0,
        **choice.settings,
    }
    shutil.rmtree(out, ignore_errors=True)
    segment_volume(f"{source}:raw", out, load_config(SegmentConfig, None, settings))
    stages = (read_manifest(out) or {})["runs"][-1]["stages"]
    cpu = next(stage["cpu"] for stage in stages if stage["name"] == "predict")
    for beta in betas:
        labels = agglomerate(out, [f"agglomerate.beta={beta}"], name="study", workers=0).labels
        found = open_volume(labels, prefer="labels").read(Block.whole(shown.shape))
        rows, columns = (
            (np.arange(n) * there // n) for n, there in zip(image.truth.shape[1:], shown.shape[1:], strict=True)
        )
        found = found[:, rows][:, :, columns]
        if flat:
            score = score_slices(found, image.truth)["mean_segmentation_accuracy"]
        else:
            score = score_volume(found, image.truth, band=2)["cremi"]
        yield {"image": name, "beta": beta, "score": score, "cpu": cpu, "voxels": shown.size}


def show(results: dict[str, list[dict[str, Any]]]) -> None:
    """Print scores of every choice and image, at every prior."""
    print("\n| image | " + " | ".join(results) + " |\n|---" + "|---" * len(results) + "|")
    names = dict.fromkeys(row["image"] for rows in results.values() for row in rows)
    for name in names:
        cells = [" ".join(f"{row['score']:.3f}" for row in rows if row["image"] == name) for rows in results.values()]
        print(f"| {name} | " + " | ".join(cells) + " |")
    seconds = [sum(row["cpu"] for row in rows) / sum(row["voxels"] for row in rows) * 1e6 for rows in results.values()]
    print("| CPU s per MVox | " + " | ".join(f"{each:.2f}" for each in seconds) + " |", flush=True)


def main(
    folder: Path,
    model: Annotated[str, typer.Argument()] = "vimunet-nano",
    choices: Annotated[list[str] | None, typer.Argument()] = None,
    only: str = "",
) -> None:
    """Score every choice that is not scored yet."""
    if unknown := [name for name in choices or () if name not in CHOICES]:
        raise ConfigError(f"{', '.join(unknown)}: no such choice; there are {', '.join(CHOICES)}")
    torch.set_num_threads(1)
    HERE.mkdir(parents=True, exist_ok=True)
    record = HERE / f"{Path(model).stem}.json"
    results = json.loads(record.read_text(encoding="utf-8")) if record.exists() else {}
    for name in choices or CHOICES:
        rows = results.setdefault(name, [])
        for image_name, image in images(folder):
            done = any(row["image"] == image_name for row in rows)
            if done or not image_name.endswith(only) or not any(part in image_name for part in CHOICES[name].only):
                continue
            rows += scored(image_name, image, CHOICES[name], model)
            scores = " ".join(f"{row['score']:.3f}" for row in rows[-len(BETAS) :])
            print(f"{name:16} {image_name:24} {scores}", flush=True)
            record.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    show(results)


if __name__ == "__main__":
    run_script(main, __doc__)
