"""What the optimiser decays, and how its learning rate goes."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd

from vimvol.config import TrainConfig

OPTIMIZERS: dict[str, type[torch.optim.Optimizer]] = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam}


def make_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """Return the optimiser of a configuration; weight decay falls on the weights of `decaying` alone."""
    decayed = decaying(model)
    names = {name for name, p in model.named_parameters() if p.requires_grad}
    parameters = dict(model.named_parameters())
    groups = [
        {"params": [parameters[n] for n in parameters if n in names & decayed], "weight_decay": config.weight_decay},
        {"params": [parameters[n] for n in parameters if n in names - decayed], "weight_decay": 0.0},
    ]
    kind: Any = OPTIMIZERS[config.optimizer]
    optimizer: torch.optim.Optimizer = kind([g for g in groups if g["params"]], lr=config.learning_rate)
    return optimizer


def decaying(model: nn.Module) -> set[str]:
    """Return the names of the parameters that weight decay may pull towards 0: weights of linear maps.

    Everything else has a meaning where it is: the decay rates and skips of a state space (``A_log``, ``D``), norms,
    biases, position embeddings, class tokens (Gu & Dao 2023, Mamba, keeps decay off the first two).
    """
    return {
        f"{name}.weight" if name else "weight"
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | _ConvNd)
    }


class Plateau:
    """Reduces the learning rate when a score stops improving: PyTorch's ``ReduceLROnPlateau``, as a factor.

    As a factor it goes with a warm-up, and it is told in the validation, before the checkpoint is written.

    Parameters
    ----------
    factor
        What every plateau multiplies by.
    patience
        Scores without an improvement of one part in 10^4 that are no plateau yet.
    """

    def __init__(self, factor: float, patience: int) -> None:
        self.factor, self.patience = factor, patience
        self.scale = 1.0
        self.best = math.inf
        self.bad = 0

    def tell(self, score: float) -> None:
        """Take in a score; lower is better."""
        if score < self.best * (1 - 1e-4):
            self.best, self.bad = score, 0
            return
        self.bad += 1
        if self.bad > self.patience:
            self.scale *= self.factor
            self.bad = 0

    def state_dict(self) -> dict[str, float]:
        """Return what `load_state_dict` takes."""
        return {"scale": self.scale, "best": self.best, "bad": self.bad}

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Go on from a state."""
        self.scale, self.best, self.bad = state["scale"], state["best"], int(state["bad"])


def learning_rate_share(config: TrainConfig, step: int, plateau: Plateau) -> float:
    """Return the share of the peak learning rate at a step."""
    warmup = min(config.warmup, config.steps // 5)
    if step < warmup:
        return (step + 1) / (warmup + 1) * plateau.scale
    if config.schedule == "cosine":
        done = (step - warmup) / max(1, config.steps - warmup)
        return 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
    return plateau.scale
