"""The annotated slices that a configuration names, to learn from, to validate on and to report on."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vimvol.config import TrainConfig, TrainImages, TrainVolume
from vimvol.errors import InputError
from vimvol.geometry import Block
from vimvol.io import Volume, open_volume
from vimvol.train.coco import read_coco
from vimvol.train.drawn import draw_volumes
from vimvol.train.given import under_root
from vimvol.train.published import explain_missing
from vimvol.train.slices import ImageFolder, Sections, Source, moments
from vimvol.train.targets import TARGETS, grow_instances

AXES = {"z": 0, "y": 1, "x": 2}
SUFFIXES = (".tif", ".tiff", ".png", ".jpg", ".jpeg")


@dataclass(frozen=True)
class TrainingData:
    """Everything that a training reads.

    Attributes
    ----------
    train, shares
        Slices to crop, and the probability that a crop is of each source.
    validate
        Slices to validate on.
    voxel_sizes
        Of every volume that has one, nm, (z, y, x); synthetic ones are left out, since the scale at which a network
        is used goes by those of recordings.
    """

    train: tuple[Source, ...]
    shares: tuple[float, ...]
    validate: tuple[Source, ...]
    voxel_sizes: tuple[tuple[float, float, float], ...] = ()


def load_data(config: TrainConfig) -> TrainingData:
    """Read the volumes of a configuration into memory, and the annotations of its images.

    The slices of the range to train on are cut out before the volume is sliced along other axes, so no crop along
    y or x holds a voxel of the range to validate on.

    Raises
    ------
    InputError
        If something is missing, raw and labels differ in shape, or a range of slices does not fit or is not annotated.
    """
    handles = [_open(config, volume) for volume in config.volumes]  # every input is checked before any is read
    folders = [_find(config, images, images.train, images.validate_) for images in config.images]
    fill = TARGETS[config.target].growth(config.fill)
    train: list[Source] = []
    shares: list[float] = []
    validate: list[Source] = []
    for number, (volume, pair) in enumerate(zip(config.volumes, handles, strict=True)):
        whole = _read(volume, pair, number)
        inside = slice(*(volume.train or (0, 0)))
        if volume.train:
            seen = replace(whole, raw=whole.raw[inside], labels=whole.labels[inside])
            _check_annotated(volume, seen, "train", volume.train)
            train += _sliced(seen, volume.planes, fill)
            shares += [volume.weight / len(volume.planes)] * len(volume.planes)
        if volume.validate_ is not None:
            looked_at = _chosen(whole, _spread(*volume.validate_, config.validate_slices))
            _check_annotated(volume, looked_at, "validate", volume.validate_)
            validate.append(looked_at)
    for images, folder in zip(config.images, folders, strict=True):
        train.append(replace(_image_folder(config, images, images.train, folder), fill=fill))
        shares.append(images.weight)
        if images.validate_ is not None:
            validate.append(_image_folder(config, images, images.validate_, folder, config.validate_slices))
    if config.drawn:
        for spec, raw, labels in draw_volumes(config.drawn):
            planes = ("z",) if spec.serial_sections else tuple(AXES)
            mean, std = moments(raw, f"drawn-{spec.seed}")
            drawn = Sections(f"drawn-{spec.seed}", raw, labels.astype(np.int32), mean, std, spec.voxel_size)
            train += _sliced(drawn, planes, fill)
            shares += [config.drawn.weight / config.drawn.volumes / len(planes)] * len(planes)
    total = sum(shares)
    sizes = tuple(raw.voxel_size for raw, _ in handles if raw.voxel_size_known)
    return TrainingData(tuple(train), tuple(share / total for share in shares), tuple(validate), sizes)


def load_test_data(config: TrainConfig) -> tuple[Source, ...]:
    """Read what a configuration reports on: its test slices and images; where it names none, those of validation.

    Raises
    ------
    InputError
        As `load_data`.
    """
    found: list[Source] = []
    for number, volume in enumerate(config.volumes):
        span = volume.test or volume.validate_
        if span is not None:
            found.append(_chosen(_read(volume, _open(config, volume), number), list(range(*span))))
    for images in config.images:
        part = images.test or images.validate_
        if part is not None:
            found.append(_image_folder(config, images, part, _find(config, images, part)))
    return tuple(found)


def _read(volume: TrainVolume, handles: tuple[Volume, Volume], number: int) -> Sections:
    whole = Block.whole(handles[0].shape)
    raw, labels = handles[0].read(whole), handles[1].read_labels(whole)
    mean, std = moments(raw, volume.raw)
    if std == 0:
        raise InputError(f"{volume.raw} is {mean:g} everywhere, so there is nothing to learn; check it")
    name = f"{number}-{Path(handles[0].url).stem}"
    return Sections(name, raw, _small_ids(labels), mean, std, handles[0].voxel_size)


def _sliced(whole: Sections, planes: tuple[str, ...], fill: float) -> list[Source]:
    """Slice a volume along axes, its instances grown into the gaps."""
    sources: list[Source] = []
    for plane in planes:
        raw = np.ascontiguousarray(np.moveaxis(whole.raw, AXES[plane], 0))
        ids = np.ascontiguousarray(np.moveaxis(whole.labels, AXES[plane], 0))
        sources.append(replace(whole, name=f"{whole.name}-{plane}", raw=raw, labels=grow_instances(ids, fill)))
    return sources


def _chosen(whole: Sections, indices: list[int]) -> Sections:
    return replace(whole, raw=whole.raw[indices], labels=whole.labels[indices])


def _check_annotated(volume: TrainVolume, sections: Sections, what: str, span: tuple[int, int]) -> None:
    """Refuse slices without a single instance: the loss, of nothing, would be 0 and look like a success."""
    if not sections.labels.any():
        raise InputError(
            f"{volume.labels} is 0 in all {len(sections)} slices looked at of {what} = {list(span)}, so nothing is "
            "annotated there; give slices that are, or other labels"
        )


def _open(config: TrainConfig, volume: TrainVolume) -> tuple[Volume, Volume]:
    for url in (volume.raw, volume.labels):
        explain_missing(under_root(config.root, url))
    raw = open_volume(under_root(config.root, volume.raw))
    labels = open_volume(under_root(config.root, volume.labels), prefer="labels")
    if raw.shape != labels.shape:
        raise InputError(
            f"{volume.raw} has shape {raw.shape} and {volume.labels} {labels.shape}, so they cannot be matched "
            "voxel by voxel; give intensities and labels of one shape (z, y, x)"
        )
    spans = {"train": volume.train, "validate": volume.validate_, "test": volume.test}
    for what, span in spans.items():
        if span is not None and not span[0] < span[1] <= raw.shape[0]:
            raise InputError(
                f"{what} = {list(span)} leaves no slices of {volume.raw}, which has {raw.shape[0]}; "
                f"give [first, last + 1] within 0 and {raw.shape[0]}"
            )
    given = [(what, span) for what, span in spans.items() if span is not None]
    for number, (what, span) in enumerate(given):
        for other, second in given[number + 1 :]:
            if span[0] < second[1] and second[0] < span[1]:
                raise InputError(
                    f"{what} = {list(span)} and {other} = {list(second)} of {volume.raw} share slices, so "
                    "the scores would be of data learned by heart; separate them"
                )
    return raw, labels


def _find(config: TrainConfig, images: TrainImages, *parts: str | None) -> dict[str, str]:
    """Return the image files of a folder and its subfolders by name; annotations must be there, too."""
    for part in parts:
        if part is not None:
            explain_missing(under_root(config.root, part))
    folder = under_root(config.root, images.folder)
    explain_missing(folder)
    if not Path(folder).is_dir():
        raise InputError(f"images = {folder} is no folder; give the one that holds the images of {parts[0]}")
    return {
        name: os.path.join(where, name)  # noqa: PTH118 - half a minute faster for 10^5 files
        for where, _, names in os.walk(folder)
        for name in names
        if name.lower().endswith(SUFFIXES)
    }


def _image_folder(
    config: TrainConfig, images: TrainImages, part: str, files: dict[str, str], most: int | None = None
) -> ImageFolder:
    path = under_root(config.root, part)
    explain_missing(path)
    found = read_coco(path)
    if most is not None:
        found = [found[i] for i in _spread(0, len(found), most)]
    missing = [image.name for image in found if Path(image.name).name not in files]
    if missing:
        raise InputError(
            f"{len(missing)} of {len(found)} images of {path} are not below {under_root(config.root, images.folder)}, "
            f"such as {missing[0]}; give the folder that they are in"
        )
    paths = tuple(files[Path(image.name).name] for image in found)
    return ImageFolder(Path(part).stem, tuple(found), paths, images.min_size)


def _small_ids(labels: NDArray[Any]) -> NDArray[np.int32]:
    """Renumber instances densely, 0 stays 0: ids of 64 bit do not survive float resampling."""
    ids = np.unique(np.concatenate([np.unique(section) for section in labels]))  # by slice: a volume's sort takes GBs
    first = 0 if ids[0] == 0 else 1
    small = np.empty(labels.shape, np.int32)
    for section, out in zip(labels, small, strict=True):
        out[...] = np.searchsorted(ids, section) + first
    return small


def _spread(begin: int, end: int, count: int) -> list[int]:
    """Return at most ``count`` slices, evenly spread over a range."""
    count = min(count, end - begin)
    return [begin + ((2 * i + 1) * (end - begin)) // (2 * count) for i in range(count)]
