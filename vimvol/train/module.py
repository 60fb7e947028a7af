"""The Lightning side: what happens in a training step and in a validation."""

from __future__ import annotations

import copy
from collections import defaultdict
from typing import Any

import lightning
import numpy as np
import torch
import torch.distributed
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from vimvol.config import TrainConfig
from vimvol.errors import IncompleteRunError
from vimvol.models.nnunet import PlannedUNet
from vimvol.train.loaders import Batch
from vimvol.train.loss import LOSSES, supervised_loss
from vimvol.train.optimization import Plateau, learning_rate_share, make_optimizer
from vimvol.train.score import THRESHOLDS, slice_accuracies
from vimvol.train.sources import TrainingData

RANK_SHIFT = 40
"""Bits by which the seeds of devices lie apart."""


class BoundaryModule(lightning.LightningModule):
    """A network that learns boundaries or distances, its optimiser, and the running average of its weights.

    Validation looks at the average, and it is what is exported: over a short training it is worth several times as
    many steps (Polyak & Juditsky 1992, SIAM J Control Optim 30:838).

    Parameters
    ----------
    model
        (b, 1, y, x) standardised intensities to logits (b, c, y, x).
    config
        Loss, learning rate, its schedule, and the rest.
    data
        What it learns from; here only for names and voxel sizes.
    """

    def __init__(self, model: nn.Module, config: TrainConfig, data: TrainingData) -> None:
        super().__init__()
        self.model = model
        # Without an average the network itself stands in its place, and takes no memory twice.
        self.average = copy.deepcopy(model).requires_grad_(False) if config.ema > 0 else model
        self.config = config
        found = [source.name for source in data.validate]  # those of images are of files, which may be called alike
        self.names = tuple(n if found.count(n) == 1 else f"{i}-{n}" for i, n in enumerate(found))
        self.voxel_sizes = data.voxel_sizes
        self.scores: dict[str, float] = {}
        self.samples: dict[str, Batch] = {}
        self.plateau = Plateau(config.plateau_factor, config.plateau_patience)
        self._losses: dict[str, list[float]] = defaultdict(list)
        self._accuracies: dict[str, list[NDArray[np.float64]]] = defaultdict(list)

    @property
    def _several(self) -> bool:
        return self.config.devices * self.config.nodes > 1

    @property
    def judged_by(self) -> tuple[str, bool]:
        """Name of the score that says which weights are the best, and whether more of it is better."""
        by_segments = self.config.monitor == "msa" and self.config.target == "boundary"
        return ("val/msa", True) if by_segments else ("val/loss", False)

    def forward(self, image: Tensor) -> Tensor:
        """Return logits (b, c, y, x) of the averaged network."""
        logits: Tensor = self.average(image)
        return logits

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:  # noqa: ARG002 - Lightning's signature
        """Return the loss of a batch."""
        # Chance inside the network (dropped paths) must not depend on whether the training was interrupted.
        torch.manual_seed(self.config.seed + self.global_step + (self.global_rank << RANK_SHIFT))
        loss = self._training_loss(batch)
        size = len(batch["image"])
        self.log("train/loss", loss, on_step=False, on_epoch=True, batch_size=size, sync_dist=self._several)
        return loss

    def _training_loss(self, batch: Batch) -> Tensor:
        """Return the loss of a batch, at several resolutions for a network that is meant to learn from them."""
        if not isinstance(self.model, PlannedUNet):
            return self._loss(self.model(batch["image"]), batch)
        outputs, loss = self.model.supervised(batch["image"]), LOSSES[self.config.loss]
        return supervised_loss(loss, outputs, batch["target"], batch["weight"], self.config.boundary_weight)

    def _loss(self, logits: Tensor, batch: Batch) -> Tensor:
        loss = LOSSES[self.config.loss]
        return loss(logits, batch["target"], batch["weight"], self.config.boundary_weight)

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - Lightning's signature
        """Step, and take the new weights into the average, before anything can save them."""
        super().optimizer_step(*args, **kwargs)
        self.update_average(self.global_step + 1)

    @torch.no_grad()
    def update_average(self, step: int) -> None:
        """Take the weights after a number of steps into the average."""
        if self.average is self.model:
            return
        # A young average forgets faster, or it would remember the random start.
        decay = min(self.config.ema, (1 + step) / (10 + step))
        for mean, now in zip(self.average.state_dict().values(), self.model.state_dict().values(), strict=True):
            if mean.is_floating_point():
                mean.lerp_(now, 1 - decay)
            else:
                mean.copy_(now)

    def on_train_epoch_start(self) -> None:
        """Keep the average out of training mode: it only predicts."""
        if self.average is not self.model:
            self.average.eval()

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Predict a whole slice, and score it or the instances that follow from it."""
        at_once = self.config.batch // (self.config.devices * self.config.nodes)
        logits = predict_slice(self.average, batch["image"], self.config.patch, at_once)
        name = self.names[dataloader_idx]
        probabilities: NDArray[np.float32] = logits[0].float().sigmoid().cpu().numpy()
        if batch_idx == 0:
            shown = {key: batch[key][0].cpu() for key in ("image", "target")}
            self.samples[name] = {**shown, "prediction": torch.from_numpy(probabilities)}
        if not batch["weight"].any():  # nobody annotated anything in it, and scores of 0 would only thin the others
            return
        loss = float(self._loss(logits, batch))
        self._losses[name].append(loss)
        if self.judged_by[0] == "val/msa" and np.isfinite(loss):  # else the end of the validation stops the training
            self._accuracies[name].append(slice_accuracies(probabilities[0], batch["labels"][0].cpu().numpy()))

    def on_validation_epoch_end(self) -> None:
        """Log the means of every source, and of the sources, at the one threshold that serves all best.

        Raises
        ------
        IncompleteRunError
            If the loss is no number any more.
        """
        found = _gathered({name: (self._losses[name], self._accuracies.get(name, [])) for name in self._losses})
        self._losses.clear()
        self._accuracies.clear()
        losses = {name: float(np.mean(values)) for name, (values, _) in found.items() if values}
        curves = {name: np.mean(values, axis=0) for name, (_, values) in found.items() if values}
        if not losses:
            return
        self.scores = {"val/loss": float(np.mean(list(losses.values())))}
        if not np.isfinite(self.scores["val/loss"]):
            clipped = 0 < self.config.clip <= 1
            raise IncompleteRunError(
                f"the loss is {self.scores['val/loss']} after {self.trainer.global_step} steps, so the training has "
                f"diverged and is stopped; begin again in another folder (out) with a learning_rate below "
                f"{self.config.learning_rate:g}{'' if clipped else ', or a clip of 1'}"
            )
        self.scores |= {f"val/{name}/loss": loss for name, loss in losses.items()}
        if curves:
            mean = np.mean(list(curves.values()), axis=0)
            best = int(mean.argmax())
            self.scores |= {"val/msa": float(mean[best]), "val/threshold": THRESHOLDS[best]}
            self.scores |= {f"val/{name}/msa": float(curve[best]) for name, curve in curves.items()}
        if not self.trainer.sanity_checking and self.config.schedule == "plateau":
            score, more_is_better = self.judged_by
            self.plateau.tell(1 - self.scores[score] if more_is_better else self.scores[score])
        self.log_dict(self.scores, sync_dist=self._several)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Put what the model card tells, and how the learning rate stands, beside the weights."""
        checkpoint["card"] = {"scores": dict(self.scores), "voxel_sizes": [list(size) for size in self.voxel_sizes]}
        checkpoint["plateau"] = self.plateau.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on as the checkpoint stands."""
        self.scores = dict(checkpoint["card"]["scores"])
        if "plateau" in checkpoint:
            self.plateau.load_state_dict(checkpoint["plateau"])

    def configure_optimizers(self) -> Any:  # noqa: ANN401 - one of Lightning's many forms
        """Return the optimiser, and its learning rate by steps."""
        optimizer = make_optimizer(self.model, self.config)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: learning_rate_share(self.config, step, self.plateau)
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def _gathered(mine: dict[str, tuple[list[float], list[Any]]]) -> dict[str, tuple[list[float], list[Any]]]:
    """Return the scores of all devices, the same on each."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return mine
    parts: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(parts, mine)
    together: dict[str, tuple[list[float], list[Any]]] = {}
    for name in sorted({name for part in parts for name in part}):
        some = [part[name] for part in parts if name in part]
        together[name] = ([v for losses, _ in some for v in losses], [v for _, curves in some for v in curves])
    return together


@torch.no_grad()
def predict_slice(model: nn.Module, image: Tensor, patch: tuple[int, int], batch: int) -> Tensor:
    """Predict a slice of any size in overlapping windows of the size that the network learns from.

    Parameters
    ----------
    model
        (b, 1, y, x) to logits (b, c, y, x).
    image
        (1, 1, y, x) standardised intensities.
    patch
        Extent (y, x) of a window; its outer eighth is context on every side.
    batch
        Windows a forward pass.

    Returns
    -------
    Tensor
        (1, c, y, x) logits.
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
    result: Tensor | None = None
    for first in range(0, len(corners), batch):
        some = corners[first : first + batch]
        windows = torch.cat([padded[..., y : y + patch[0], x : x + patch[1]] for y, x in some])
        logits = model(windows).float()
        if result is None:
            result = logits.new_zeros((1, logits.shape[1], rows * core[0], columns * core[1]))
        for (y, x), window in zip(some, logits, strict=True):
            inner = window[:, halo[0] : halo[0] + core[0], halo[1] : halo[1] + core[1]]
            result[0, :, y : y + core[0], x : x + core[1]] = inner
    assert result is not None
    return result[..., :height, :width]
