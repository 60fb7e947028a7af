"""Crops to train on and whole slices to validate on, from volumes held in memory.

The crop of an index depends on the seed and the index alone, so training goes on after an interruption with
the crops that it would have seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from vimvol.config import TrainConfig, TrainVolume
from vimvol.errors import InputError
from vimvol.geometry import Block
from vimvol.io import Volume, open_volume
from vimvol.train.augment import crop_positions, intensity_changes, resample
from vimvol.train.targets import boundary_target, grow_instances

AXES = {"z": 0, "y": 1, "x": 2}

Crop = dict[str, Tensor]


@dataclass(frozen=True)
class Sections:
    """Parallel slices of one volume in memory.

    Attributes
    ----------
    name
        Of the volume, for logs.
    raw
        (n, y, x) intensities as stored.
    labels
        (n, y, x) int32 instances; grown into the gaps (`grow_instances`) for training, as annotated for validation.
    mean, std
        Of the whole volume; the predictor standardises by the same.
    """

    name: str
    raw: NDArray[Any]
    labels: NDArray[np.int32]
    mean: float
    std: float

    def standardised(self, index: int) -> NDArray[np.float32]:
        """Return one slice with the volume's mean taken off, in units of its standard deviation."""
        section: NDArray[np.float32] = self.raw[index].astype(np.float32)
        return (section - np.float32(self.mean)) / np.float32(self.std)


@dataclass(frozen=True)
class TrainingData:
    """Everything that a training reads.

    Attributes
    ----------
    train, shares
        Sections to crop, and the probability that a crop is of each.
    validate
        Sections to validate on.
    voxel_sizes
        Of every volume that has one, nm, (z, y, x).
    """

    train: tuple[Sections, ...]
    shares: tuple[float, ...]
    validate: tuple[Sections, ...]
    voxel_sizes: tuple[tuple[float, float, float], ...] = ()


def load_data(config: TrainConfig) -> TrainingData:
    """Read the volumes of a configuration into memory.

    The slices of the range to train on are cut out before the volume is sliced along other axes, so no crop along
    y or x holds a voxel of the range to validate on.

    Raises
    ------
    InputError
        If a volume is missing, raw and labels differ in shape, or a range of slices does not fit.
    """
    handles = [_open(config, volume) for volume in config.volumes]  # every input is checked before any is read
    train: list[Sections] = []
    shares: list[float] = []
    validate: list[Sections] = []
    for number, (volume, (raw_handle, label_handle)) in enumerate(zip(config.volumes, handles, strict=True)):
        name = f"{number}-{Path(raw_handle.url).stem}"
        raw = raw_handle.read(Block.whole(raw_handle.shape))
        labels = _small_ids(label_handle.read(Block.whole(label_handle.shape)))
        mean, std = float(raw.mean(dtype=np.float64)), float(raw.std(dtype=np.float64))
        if std == 0:
            raise InputError(f"{volume.raw} is {mean:g} everywhere, so there is nothing to learn; check it")
        inside = slice(*volume.train)
        for plane in volume.planes:
            cut = np.ascontiguousarray(np.moveaxis(raw[inside], AXES[plane], 0))
            ids = np.ascontiguousarray(np.moveaxis(labels[inside], AXES[plane], 0))
            train.append(Sections(f"{name}-{plane}", cut, grow_instances(ids, config.fill), mean, std))
            shares.append(volume.weight / len(volume.planes))
        if volume.validate_ is not None:
            chosen = _spread(*volume.validate_, config.validate_slices)
            validate.append(Sections(name, raw[chosen], labels[chosen], mean, std))
    total = sum(shares)
    sizes = tuple(raw.voxel_size for raw, _ in handles if raw.voxel_size_known)
    return TrainingData(tuple(train), tuple(share / total for share in shares), tuple(validate), sizes)


def _open(config: TrainConfig, volume: TrainVolume) -> tuple[Volume, Volume]:
    raw = open_volume(_resolve(config.root, volume.raw))
    labels = open_volume(_resolve(config.root, volume.labels), prefer="labels")
    if raw.shape != labels.shape:
        raise InputError(
            f"{volume.raw} has shape {raw.shape} and {volume.labels} {labels.shape}, so they cannot be matched "
            "voxel by voxel; give intensities and labels of one shape (z, y, x)"
        )
    for what, span in (("train", volume.train), ("validate", volume.validate_)):
        if span is not None and not span[0] < span[1] <= raw.shape[0]:
            raise InputError(
                f"{what} = {list(span)} leaves no slices of {volume.raw}, which has {raw.shape[0]}; "
                f"give [first, last + 1] within 0 and {raw.shape[0]}"
            )
    if volume.validate_ is not None and volume.train[0] < volume.validate_[1] and volume.validate_[0] < volume.train[1]:
        raise InputError(
            f"train = {list(volume.train)} and validate = {list(volume.validate_)} of {volume.raw} share slices, so "
            "the scores would be of data learned by heart; separate them"
        )
    return raw, labels


def _resolve(root: str, url: str) -> str:
    """Put a relative path under the root; addresses and absolute paths stay."""
    return url if "://" in url or Path(url).is_absolute() else str(Path(root) / url)


def _small_ids(labels: NDArray[Any]) -> NDArray[np.int32]:
    """Renumber instances densely, 0 stays 0: ids of 64 bit do not survive float resampling."""
    ids, inverse = np.unique(labels, return_inverse=True)
    first = 0 if ids[0] == 0 else 1
    return (inverse.reshape(labels.shape) + first).astype(np.int32)


def _spread(begin: int, end: int, count: int) -> list[int]:
    """Return at most ``count`` slices, evenly spread over a range."""
    count = min(count, end - begin)
    return [begin + ((2 * i + 1) * (end - begin)) // (2 * count) for i in range(count)]


class CropDataset(Dataset[Crop]):
    """A row of random crops: ``image``, ``target`` and ``weight``, each (1, y, x) float32.

    Parameters
    ----------
    data
        Sections and their shares.
    config
        Crop size, augmentation, seed.
    begin, end
        Numbers of the first crop, and of the crop after the last.
    """

    def __init__(self, data: TrainingData, config: TrainConfig, begin: int, end: int) -> None:
        self.data = data
        self.config = config
        self.begin, self.end = begin, end
        self._change = intensity_changes(config.augment)

    def __len__(self) -> int:
        return self.end - self.begin

    def __getitem__(self, index: int) -> Crop:
        if not 0 <= index < len(self):
            raise IndexError(f"no crop {index} of {len(self)}")
        return self.crop(self.begin + index)

    def crop(self, number: int) -> Crop:
        """Return the crop of a number; the same for the same seed."""
        config = self.config
        rng = np.random.default_rng((config.seed, number))
        sections = self.data.train[rng.choice(len(self.data.train), p=self.data.shares)]
        index = int(rng.integers(len(sections.raw)))
        shape = (int(sections.raw.shape[1]), int(sections.raw.shape[2]))
        positions = crop_positions(shape, config.patch, config.augment, rng)
        image = (resample(sections.raw[index], positions, order=1) - np.float32(sections.mean)) / np.float32(
            sections.std
        )
        image = self._change(image, int(rng.integers(2**31)))
        labels = resample(sections.labels[index], positions, order=0).astype(np.int32)
        target, weight = boundary_target(labels, config.boundary_width)
        return {
            "image": torch.from_numpy(image)[None],
            "target": torch.from_numpy(target),
            "weight": torch.from_numpy(weight),
        }


class SliceDataset(Dataset[Crop]):
    """Whole validation slices: ``image`` (1, y, x) float32, ``target``, ``weight``, and ``labels`` (y, x) int32."""

    def __init__(self, sections: Sections, fill: float, width: int) -> None:
        self.sections = sections
        self.fill, self.width = fill, width

    def __len__(self) -> int:
        return len(self.sections.raw)

    def __getitem__(self, index: int) -> Crop:
        labels = self.sections.labels[index]
        target, weight = boundary_target(grow_instances(labels, self.fill), self.width)
        return {
            "image": torch.from_numpy(self.sections.standardised(index))[None],
            "target": torch.from_numpy(target),
            "weight": torch.from_numpy(weight),
            "labels": torch.from_numpy(labels),
        }


def check_patch(patch: Sequence[int], divisor: int) -> None:
    """Refuse a crop that the network cannot halve often enough.

    Raises
    ------
    InputError
        If an extent is no multiple of the divisor.
    """
    if any(p % divisor for p in patch):
        good = [max(divisor, round(p / divisor) * divisor) for p in patch]
        raise InputError(
            f"patch = {list(patch)} is no multiple of {divisor}, which this network needs; take for example {good}"
        )
