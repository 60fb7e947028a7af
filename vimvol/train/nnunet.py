"""The data of a training in the format of nnU-Net v2, so that the original can learn from the same slices.

A case is a slice, or a whole volume; its image is ``imagesTr/CASE_0000.tif`` as stored, its label ``labelsTr/CASE.tif``
what this package would learn from it. Slices to train and to validate on are the one fold of ``splits_final.json``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from vimvol.config import TrainConfig
from vimvol.errors import InputError, OutputExistsError
from vimvol.io.storage import drafted, local_path
from vimvol.train.slices import Sections, Source
from vimvol.train.sources import load_data, load_test_data
from vimvol.train.targets import TARGETS, grow_instances

ALL = 1 << 40
"""More slices than any volume has."""


@dataclass(frozen=True)
class Classes:
    """How a target is told in integers.

    Attributes
    ----------
    labels
        By name the value, or the values of a class that overlaps others (a region); background is 0.
    values
        Value of a voxel by the number whose bit ``c`` is set where channel ``c`` of the target is 1.
    order
        Values that nnU-Net gives regions in a predicted label, later ones over earlier; none: there are no regions.
    """

    labels: dict[str, int | list[int]]
    values: tuple[int, ...]
    order: tuple[int, ...] | None = None

    @property
    def ignore(self) -> int:
        """The value of voxels that the loss must not look at."""
        return max(self.values) + 1

    def draw(self, target: NDArray[np.float32], weight: NDArray[np.float32]) -> NDArray[np.uint8]:
        """Return the values (y, x) of a target and its weight, each (c, y, x)."""
        bits = sum(target[c].astype(np.uint8) << c for c in range(len(target)))
        label = np.asarray(self.values, np.uint8)[bits]
        return np.where((weight > 0).all(0), label, np.uint8(self.ignore))


CLASSES = {
    "boundary": Classes({"background": 0, "boundary": 1}, (0, 1)),
    "foreground-boundary": Classes(
        {"background": 0, "foreground": [1, 2], "boundary": [2, 3]}, (0, 1, 3, 2), order=(1, 2)
    ),
}
"""By the name that `vimvol.config.TrainConfig.target` has; as regions, nnU-Net learns a sigmoid of each, too."""


@dataclass(frozen=True)
class Exported:
    """What an export wrote.

    Attributes
    ----------
    folder
        The data set.
    train, validate, test
        Cases of each part.
    """

    folder: Path
    train: int
    validate: int
    test: int


def export_dataset(config: TrainConfig, root: str, number: int, name: str, *, volumes: bool = False) -> Exported:
    """Write the slices and targets of a training as a raw data set of nnU-Net; it is there whole or not at all.

    Parameters
    ----------
    config
        A training whose data and target it is.
    root
        nnU-Net's folder of raw data, ``nnUNet_raw``.
    number, name
        Of the data set: 1 to 999, and letters, digits and dashes.
    volumes
        Make a case of every volume rather than of every slice.

    Raises
    ------
    InputError
        If nnU-Net cannot learn the target, or there are no such data.
    OutputExistsError
        If there is a data set of this number.
    """
    if config.target not in CLASSES:
        raise InputError(
            f"target = {config.target} is no set of classes, which is what nnU-Net learns; "
            f"take one of {', '.join(CLASSES)}"
        )
    if not 1 <= number <= 999 or not re.fullmatch(r"[A-Za-z0-9-]+", name):
        raise InputError(
            f"data set {number} {name!r} cannot be named; give a number of 1 to 999 and letters, digits and dashes"
        )
    if volumes and config.images:
        raise InputError("images in files are no volumes; leave out --volumes")
    parent = local_path(root)
    folder = parent / f"Dataset{number:03d}_{name}"
    taken = next(parent.glob(f"Dataset{number:03d}_*"), None)
    if taken is not None:
        raise OutputExistsError(f"{taken} has the number {number} already; choose another, or remove it")
    if volumes:
        planes = tuple(v.model_copy(update={"planes": ("z",)}) for v in config.volumes)
        config = config.model_copy(update={"volumes": planes, "validate_slices": ALL})
    with drafted(folder) as draft:
        done = _write(config, draft, volumes)
    return Exported(folder, *done)


def _write(config: TrainConfig, folder: Path, volumes: bool) -> tuple[int, int, int]:
    """Write a data set; return the cases of its parts."""
    for part in ("imagesTr", "labelsTr", "imagesTs"):
        (folder / part).mkdir(parents=True)
    # what is drawn can be drawn by whoever trains on it, and nnU-Net knows no shares
    classes, data = CLASSES[config.target], load_data(config.model_copy(update={"drawn": None}))
    split: dict[str, list[str]] = {"train": [], "val": []}
    ignored = False
    for part, sources in (("train", data.train), ("val", data.validate)):
        for case, source, raw, labels in _cases(part, sources, volumes):
            # The instances of slices to train on have grown already.
            grown = labels if part == "train" else grow_instances(labels, TARGETS[config.target].growth(config.fill))
            drawn = _draw(config, classes, grown)
            ignored |= bool((drawn == classes.ignore).any())
            _put(folder, "imagesTr", f"{case}_0000", raw, source, volumes)
            _put(folder, "labelsTr", case, drawn, source, volumes)
            split[part].append(case)
    del data
    tests = 0
    for case, source, raw, _ in _cases("test", load_test_data(config), volumes):
        _put(folder, "imagesTs", f"{case}_0000", raw, source, volumes)
        tests += 1
    if split["val"]:
        (folder / "splits_final.json").write_text(json.dumps([split], indent=1))
    about = {
        "channel_names": {"0": "EM"},
        "labels": {**classes.labels, **({"ignore": classes.ignore} if ignored else {})},
        **({"regions_class_order": list(classes.order)} if classes.order else {}),
        "numTraining": len(split["train"]) + len(split["val"]),
        "file_ending": ".tif",
        "overwrite_image_reader_writer": "Tiff3DIO" if volumes else "NaturalImage2DIO",
        **({"description": config.card["data"]} if "data" in config.card else {}),
        **({"licence": config.card["licence"]} if "licence" in config.card else {}),
    }
    (folder / "dataset.json").write_text(json.dumps(about, indent=1))
    return len(split["train"]), len(split["val"]), tests


def _cases(
    part: str, sources: tuple[Source, ...], volumes: bool
) -> Iterator[tuple[str, Source, NDArray[Any], NDArray[np.int32]]]:
    """Yield name, source, intensities and instances of every case, (y, x) or (z, y, x)."""
    for number, source in enumerate(sources):
        stem = f"{part}{number}-{re.sub(r'[^A-Za-z0-9-]+', '-', source.name)}"
        if volumes and isinstance(source, Sections):
            yield stem, source, source.raw, source.labels
            continue
        for index in range(len(source)):
            section = source.read(index)
            yield f"{stem}-{index:05d}", source, section.raw, section.labels


def _draw(config: TrainConfig, classes: Classes, labels: NDArray[Any]) -> NDArray[np.uint8]:
    """Return the values of a slice or of every slice of a volume."""
    if labels.ndim == 3:
        return np.stack([_draw(config, classes, section) for section in labels])
    return classes.draw(*TARGETS[config.target].draw(labels, config.boundary_width))


def _put(folder: Path, part: str, name: str, data: NDArray[Any], source: Source, volumes: bool) -> None:
    """Write a file, and for a volume the size of its voxels where nnU-Net looks for it."""
    write_tiff(folder / part / f"{name}.tif", data)
    if volumes and isinstance(source, Sections):
        write_spacing(folder / part / f"{name.removesuffix('_0000')}.json", source.voxel_size)


def write_tiff(path: Path, data: NDArray[Any]) -> None:
    """Write a slice (y, x) or a volume (z, y, x) as nnU-Net reads it."""
    tifffile.imwrite(path, data, compression="zlib", photometric="minisblack")


def write_spacing(path: Path, voxel_size: tuple[float, float, float]) -> None:
    """Write the size of voxels (z, y, x); only their ratios matter to nnU-Net."""
    path.write_text(json.dumps({"spacing": list(voxel_size)}))
