"""The parts of a Mamba block (Gu & Dao, 2023), and one that reads a sequence in one direction.

Shapes: B batch, L positions, E embedding, D = 2 E inner channels, N states a channel.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from vimvol.models.mixing import Way, mix


@torch.no_grad()
def initial_decay(inner: int, state: int) -> nn.Parameter:
    """Return log(1 ... N) for every inner channel, (D, N) (Gu et al., NeurIPS 2022: S4D-Real)."""
    # Copied from the CPU, since any arithmetic on the meta device loads PyTorch's compiler, for more than a second.
    decay = torch.arange(1, state + 1, dtype=torch.float32, device="cpu").log()
    return nn.Parameter(torch.empty(inner, state).copy_(decay))


@torch.no_grad()
def init_step(projection: nn.Linear) -> None:
    """Let softplus of the bias be log-uniform in [.001, .1] (Gu & Dao, 2023, section 3.6)."""
    nn.init.uniform_(projection.weight, -(projection.in_features**-0.5), projection.in_features**-0.5)
    low, high = math.log(1e-3), math.log(0.1)
    step = torch.exp(torch.rand(projection.out_features, device="cpu") * (high - low) + low).clamp_min(1e-4)
    projection.bias.copy_(step + torch.log(-torch.expm1(-step)))


class Mamba(nn.Module):
    """A Mamba block: (B, L, E) to (B, L, E), where a position sees itself and those before it.

    Parameters are named as in ``mamba_ssm.Mamba``, with its defaults.
    """

    def __init__(self, embedding: int, state: int = 16) -> None:
        super().__init__()
        inner, rank = 2 * embedding, math.ceil(embedding / 16)
        self.in_proj = nn.Linear(embedding, 2 * inner, bias=False)
        self.conv1d = nn.Conv1d(inner, inner, 4, groups=inner, padding=3)
        self.x_proj = nn.Linear(inner, rank + 2 * state, bias=False)
        self.dt_proj = nn.Linear(rank, inner)
        self.A_log = initial_decay(inner, state)
        self.D = nn.Parameter(torch.ones(inner))
        self.out_proj = nn.Linear(inner, embedding, bias=False)
        init_step(self.dt_proj)

    def forward(self, h: Tensor) -> Tensor:
        """Return (B, L, E)."""
        way = Way(self.conv1d, self.x_proj, self.dt_proj, self.A_log, self.D)
        out: Tensor = self.out_proj(mix(self.in_proj(h), [way]))
        return out
