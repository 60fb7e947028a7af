"""The Lightning side: what happens in a training step and in a validation."""

from __future__ import annotations

import copy
import math
from collections import defaultdict
from typing import Any

import lightning
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader

from vimvol.config import TrainConfig
from vimvol.train.dataset import CropDataset, SliceDataset, TrainingData
from vimvol.train.loss import dice_bce_loss
from vimvol.train.score import THRESHOLDS, slice_accuracies

Batch = dict[str, Tensor]


class BoundaryModule(lightning.LightningModule):
    """A network that learns boundaries, its optimiser, and the running average of its weights.

    Validation looks at the average, and it is what is exported: over a short training it is worth several times as
    many steps (Polyak & Juditsky 1992, SIAM J Control Optim 30:838).

    Parameters
    ----------
    model
        (b, 1, y, x) standardised intensities to logits of the same shape.
    config
        Learning rate, its schedule, and the rest.
    data
        What it learns from; here only for names and voxel sizes.
    """

    def __init__(self, model: nn.Module, config: TrainConfig, data: TrainingData) -> None:
        super().__init__()
        self.model = model
        self.average = copy.deepcopy(model).requires_grad_(False)
        self.config = config
        self.names = tuple(sections.name for sections in data.validate)
        self.voxel_sizes = data.voxel_sizes
        self.scores: dict[str, float] = {}
        self._losses: dict[str, list[float]] = defaultdict(list)
        self._accuracies: dict[str, list[NDArray[np.float64]]] = defaultdict(list)

    def forward(self, image: Tensor) -> Tensor:
        """Return logits (b, 1, y, x) of the averaged network."""
        logits: Tensor = self.average(image)
        return logits

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:  # noqa: ARG002 - Lightning's signature
        """Return the loss of a batch."""
        # Chance inside the network (dropped paths) must not depend on whether the training was interrupted.
        torch.manual_seed(self.config.seed + self.global_step)
        loss = self._loss(self.model(batch["image"]), batch)
        self.log("train/loss", loss, on_step=False, on_epoch=True, batch_size=len(batch["image"]))
        return loss

    def _loss(self, logits: Tensor, batch: Batch) -> Tensor:
        return dice_bce_loss(logits, batch["target"], batch["weight"], self.config.boundary_weight)

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:  # noqa: ANN401, ARG002
        """Take the new weights into the average."""
        # A young average forgets faster, or it would remember the random start.
        decay = min(self.config.ema, (1 + self.global_step) / (10 + self.global_step))
        with torch.no_grad():
            for mean, now in zip(self.average.state_dict().values(), self.model.state_dict().values(), strict=True):
                if mean.is_floating_point():
                    mean.lerp_(now, 1 - decay)
                else:
                    mean.copy_(now)

    def on_train_epoch_start(self) -> None:
        """Keep the average out of training mode: it only predicts."""
        self.average.eval()

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:  # noqa: ARG002
        """Predict a whole slice, and score the instances that follow from it."""
        logits = predict_slice(self.average, batch["image"], self.config.patch, self.config.batch)
        loss = self._loss(logits, batch)
        boundary: NDArray[np.float32] = logits[0, 0].float().sigmoid().cpu().numpy()
        truth = batch["labels"][0].cpu().numpy()
        name = self.names[dataloader_idx]
        self._losses[name].append(float(loss))
        self._accuracies[name].append(slice_accuracies(boundary, truth))

    def on_validation_epoch_end(self) -> None:
        """Log the means of every volume, and of the volumes, at the one threshold that serves all best."""
        losses = {name: float(np.mean(values)) for name, values in self._losses.items()}
        curves = {name: np.mean(values, axis=0) for name, values in self._accuracies.items()}
        self._losses.clear()
        self._accuracies.clear()
        if not curves:
            return
        mean = np.mean(list(curves.values()), axis=0)
        best = int(mean.argmax())
        self.scores = {
            "val/msa": float(mean[best]),
            "val/threshold": THRESHOLDS[best],
            "val/loss": float(np.mean(list(losses.values()))),
            **{f"val/{name}/msa": float(curve[best]) for name, curve in curves.items()},
            **{f"val/{name}/loss": loss for name, loss in losses.items()},
        }
        self.log_dict(self.scores)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Put what the model card tells beside the weights."""
        checkpoint["card"] = {"scores": dict(self.scores), "voxel_sizes": [list(size) for size in self.voxel_sizes]}

    def configure_optimizers(self) -> Any:  # noqa: ANN401 - one of Lightning's many forms
        """Return AdamW with a linear warm-up and a cosine to 0, both by steps."""
        decayed = [p for p in self.model.parameters() if p.ndim >= 2]
        plain = [p for p in self.model.parameters() if p.ndim < 2]
        optimizer = torch.optim.AdamW(
            [{"params": decayed, "weight_decay": self.config.weight_decay}, {"params": plain, "weight_decay": 0.0}],
            lr=self.config.learning_rate,
        )
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, self._rate)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _rate(self, step: int) -> float:
        """Return the share of the peak learning rate at a step."""
        warmup = min(self.config.warmup, self.config.steps // 5)
        if step < warmup:
            return (step + 1) / (warmup + 1)
        done = (step - warmup) / max(1, self.config.steps - warmup)
        return 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


class TrainingSource(lightning.LightningDataModule):
    """Dataloaders: an epoch is the stretch of steps from one validation to the next.

    Checkpoints lie between epochs, so a resumed training starts its epoch at the crop that comes next.
    """

    def __init__(self, data: TrainingData, config: TrainConfig) -> None:
        super().__init__()
        self.data = data
        self.config = config

    def train_dataloader(self) -> DataLoader[Batch]:
        """Return the crops from the step that the training has reached to the next validation."""
        step = self.trainer.global_step if self.trainer is not None else 0
        stop = min(self.config.steps, step + self.config.validate_every)
        crops = CropDataset(self.data, self.config, step * self.config.batch, stop * self.config.batch)
        return DataLoader(crops, batch_size=self.config.batch)

    def val_dataloader(self) -> list[DataLoader[Batch]]:
        """Return one loader of whole slices for every volume with slices to validate on."""
        return [
            DataLoader(SliceDataset(sections, self.config.fill, self.config.boundary_width), batch_size=1)
            for sections in self.data.validate
        ]


@torch.no_grad()
def predict_slice(model: nn.Module, image: Tensor, patch: tuple[int, int], batch: int) -> Tensor:
    """Predict a slice of any size in overlapping windows of the size that the network learns from.

    Parameters
    ----------
    model
        (b, 1, y, x) to logits of the same shape.
    image
        (1, 1, y, x) standardised intensities.
    patch
        Extent (y, x) of a window; its outer eighth is context on every side.
    batch
        Windows a forward pass.

    Returns
    -------
    Tensor
        (1, 1, y, x) logits.
    """
    halo = tuple(p // 8 for p in patch)
    core = tuple(p - 2 * h for p, h in zip(patch, halo, strict=True))
    height, width = image.shape[-2:]
    rows, columns = -(-height // core[0]), -(-width // core[1])
    # Mirroring needs more voxels than it adds; on a slice smaller than that, the border is repeated.
    below, right = rows * core[0] - height + halo[0], columns * core[1] - width + halo[1]
    mode = "reflect" if max(below, halo[0]) < height and max(right, halo[1]) < width else "replicate"
    padded = functional.pad(image, (halo[1], right, halo[0], below), mode=mode)
    corners = [(r * core[0], c * core[1]) for r in range(rows) for c in range(columns)]
    result = image.new_zeros((1, 1, rows * core[0], columns * core[1]))
    for first in range(0, len(corners), batch):
        some = corners[first : first + batch]
        windows = torch.cat([padded[..., y : y + patch[0], x : x + patch[1]] for y, x in some])
        logits = model(windows).float()
        for (y, x), window in zip(some, logits, strict=True):
            inner = window[:, halo[0] : halo[0] + core[0], halo[1] : halo[1] + core[1]]
            result[0, :, y : y + core[0], x : x + core[1]] = inner
    return result[..., :height, :width]
