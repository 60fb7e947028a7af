"""The Lightning side of the data: which crops a step learns from, and which slices a validation sees."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import lightning
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from vimvol.config import TrainConfig
from vimvol.train.dataset import CropDataset, SliceDataset
from vimvol.train.sources import TrainingData

Batch = dict[str, Tensor]


class TrainingSource(lightning.LightningDataModule):
    """Dataloaders: an epoch is the stretch of steps from one validation to the next.

    Crops have numbers that follow from the step, so a resumed training goes on with the crop that comes next, and
    devices divide the crops of a step among them.

    Parameters
    ----------
    data
        What there is to learn from.
    config
        Batch, steps, seed.
    workers
        Processes that cut crops; 0: none.
    """

    def __init__(self, data: TrainingData, config: TrainConfig, workers: int = 0) -> None:
        super().__init__()
        self.allow_zero_length_dataloader_with_multiple_devices = True  # a source may have fewer slices than devices
        self.data = data
        self.config = config
        self.workers = workers

    def train_dataloader(self) -> DataLoader[Batch]:
        """Return the crops of the epoch that the training is in, from the step that it has reached."""
        step, done = 0, 0
        if self.trainer is not None:
            step = self.trainer.global_step
            progress = self.trainer.fit_loop.epoch_loop.batch_progress
            done = 0 if progress.is_last_batch else progress.current.ready
        begin = step - done
        every, batch = self.config.validate_every, self.config.batch
        end = min(self.config.steps, (begin // every + 1) * every)
        rank, world = self._place()
        share = batch // world
        steps = [range(s * batch + rank * share, s * batch + (rank + 1) * share) for s in range(begin, end)]
        return DataLoader(
            CropDataset(self.data, self.config, 0, self.config.steps * batch),
            batch_sampler=_Steps(steps, done),
            **self._how(),
        )

    def val_dataloader(self) -> list[DataLoader[Batch]]:
        """Return one loader of whole slices for every source with slices to validate on."""
        rank, world = self._place()
        return [
            DataLoader(SliceDataset(source, self.config, rank, world), batch_size=1, **self._how())
            for source in self.data.validate
        ]

    def _place(self) -> tuple[int, int]:
        """Return the number of this device, and how many there are."""
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer is not None else (0, 1)

    def _how(self) -> dict[str, Any]:
        how: dict[str, Any] = {"num_workers": self.workers, "pin_memory": torch.cuda.is_available()}
        if self.workers:
            # Forked, workers share the volumes in memory; elsewhere each gets a copy.
            how["multiprocessing_context"] = "fork" if "fork" in torch.multiprocessing.get_all_start_methods() else None
            how["prefetch_factor"] = 4
        return how


class _Steps(Sampler[list[int]]):
    """The crops of every step of an epoch, from some step on; its length is that of the whole epoch.

    Lightning counts the steps that a checkpoint in the middle of an epoch has done, and expects the rest.
    """

    def __init__(self, steps: list[range], done: int) -> None:
        self.steps, self.done = steps, done

    def __len__(self) -> int:
        return len(self.steps)

    def __iter__(self) -> Iterator[list[int]]:
        return (list(step) for step in self.steps[self.done :])
