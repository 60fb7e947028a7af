"""Compare weights on images of many kinds that none of them was trained on: which of two trainings is to be shipped.

The ventral nerve cord sections and FIB-25 slices that were not trained on, as they are and changed, with voxels taken
as they are stored, and thin sections that are drawn from a seed which no training has, under the usual stain and under
others; each at several priors of a cut.
Writes runs/prediction/weights.json, of which nothing is computed again, and prints it.

    python pipelines/compare_weights.py ../shared/data unet-nano runs/unet-nano-synthetic/unet-nano.safetensors
"""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from study_prediction import CHOICES, HERE, Image, images, scored

from vimvol.cli import run_script
from vimvol.config import TrainDrawn
from vimvol.train.drawn import SECTIONS, draw_volumes

BETAS = (0.2, 0.25, 0.3, 0.35)
SKIPPED = ("zoom 0.6", "zoom 1.5")
"""Scales that the default resamples before the network sees them."""
SEED, DRAWN = 99, 9
"""Of nine drawn volumes six are thin sections."""


def all_images(folder: Path) -> Iterator[tuple[str, Image]]:
    """Yield everything to be scored, by name."""
    for name, image in images(folder):
        if not name.startswith("synthetic") and not any(scale in name for scale in SKIPPED):
            yield name, image
    for kind, looks in (("drawn", False), ("other looks", True)):
        for number, (spec, raw, labels) in enumerate(draw_volumes(TrainDrawn(volumes=DRAWN, seed=SEED, looks=looks))):
            if spec.shape == SECTIONS:
                yield f"{kind} {number}", Image(raw[:3], labels[:3], "VNC")


def name_of(weights: str) -> str:
    """Return a name by which results are kept: of a file it tells its contents, too."""
    path = Path(weights)
    return f"{weights} {hashlib.sha256(path.read_bytes()).hexdigest()[:8]}" if path.is_file() else weights


def show(results: dict[str, dict[str, list[float]]]) -> None:
    """Print scores at every prior, and the means of each kind of image."""
    print("\n| image | " + " | ".join(results) + " |\n|---" + "|---" * len(results) + "|")
    for name in next(iter(results.values())):
        cells = [" ".join(f"{score:.3f}" for score in rows.get(name, ())) for rows in results.values()]
        print(f"| {name} | " + " | ".join(cells) + " |")
    for kind in ("VNC", "FIB-25", "drawn", "other looks"):
        means = [np.mean([r for name, r in rows.items() if name.startswith(kind)], axis=0) for rows in results.values()]
        print(f"| mean of {kind} | " + " | ".join(" ".join(f"{score:.3f}" for score in mean) for mean in means) + " |")


def main(folder: Path, weights: list[str]) -> None:
    """Score every image that is not scored yet."""
    torch.set_num_threads(1)
    HERE.mkdir(parents=True, exist_ok=True)
    record = HERE / "weights.json"
    results = json.loads(record.read_text(encoding="utf-8")) if record.exists() else {}
    names = [name_of(one) for one in weights]
    for image_name, image in all_images(folder):
        for one, name in zip(weights, names, strict=True):
            rows = results.setdefault(name, {})
            if image_name not in rows:
                found = scored(image_name, image, CHOICES["as it is"], one, BETAS)
                rows[image_name] = [row["score"] for row in found]
                print(f"{name:40} {image_name:24} {rows[image_name]}", flush=True)
                record.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    show({name: results[name] for name in names})


if __name__ == "__main__":
    run_script(main, __doc__)
