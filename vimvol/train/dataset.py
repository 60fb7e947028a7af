"""Crops to train on and whole slices to validate on.

The crop of an index depends on the seed and the index alone, so training goes on after an interruption with
the crops that it would have seen.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from vimvol.config import TrainConfig
from vimvol.errors import InputError
from vimvol.train.augment import crop_positions, resample
from vimvol.train.intensity import intensity_changes
from vimvol.train.slices import Source
from vimvol.train.sources import TrainingData
from vimvol.train.targets import TARGETS, grow_instances

Crop = dict[str, Tensor]


class CropDataset(Dataset[Crop]):
    """A row of random crops: ``image`` (1, y, x), ``target`` and ``weight`` (c, y, x), each float32.

    Parameters
    ----------
    data
        Slices and their shares.
    config
        Crop size, target, augmentation, seed.
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
        source = self.data.train[rng.choice(len(self.data.train), p=self.data.shares)]
        section = source.read(int(rng.integers(len(source))))
        shape = (int(section.raw.shape[0]), int(section.raw.shape[1]))
        positions = crop_positions(shape, config.patch, config.augment, rng)
        image = resample(section.raw, positions, order=1)
        image = self._change((image - np.float32(section.mean)) / np.float32(section.std), int(rng.integers(2**31)))
        labels = resample(section.labels, positions, order=0).astype(np.int32)
        target, weight = TARGETS[config.target].draw(labels, config.boundary_width)
        return {
            "image": torch.from_numpy(image)[None],
            "target": torch.from_numpy(target),
            "weight": torch.from_numpy(weight),
        }


class SliceDataset(Dataset[Crop]):
    """Whole validation slices: ``image`` (1, y, x), ``target``, ``weight`` (c, y, x) float32, ``labels`` (y, x) int32.

    Parameters
    ----------
    source
        Where they come from.
    config
        Target.
    rank, world
        Every ``world``-th slice from number ``rank`` on.
    """

    def __init__(self, source: Source, config: TrainConfig, rank: int = 0, world: int = 1) -> None:
        self.source = source
        self.config = config
        self.numbers = range(rank, len(source), world)

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, index: int) -> Crop:
        section = self.source.read(self.numbers[index])
        learned = TARGETS[self.config.target]
        grown = grow_instances(section.labels, learned.growth(self.config.fill))
        target, weight = learned.draw(grown, self.config.boundary_width)
        return {
            "image": torch.from_numpy(section.standardised())[None],
            "target": torch.from_numpy(target),
            "weight": torch.from_numpy(weight),
            "labels": torch.from_numpy(section.labels),
        }


def check_patch(patch: Sequence[int], divisor: int) -> None:
    """Refuse a crop that the network cannot halve often enough.

    Raises
    ------
    InputError
        If an extent is no multiple of the divisor, or nothing but a point is left at the coarsest level.
    """
    good = [max(divisor, round(p / divisor) * divisor) for p in patch]
    if divisor > 1 and set(good) == {divisor}:  # a single point has no statistics to normalise by
        good = [2 * divisor] * len(good)
    elif not any(p % divisor for p in patch):
        return
    raise InputError(
        f"patch = {list(patch)} cannot be halved as often as this network needs: a multiple of {divisor}, and more "
        f"than one such square; take for example {good}"
    )
