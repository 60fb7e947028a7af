"""The parts of a Mamba block (Gu & Dao, 2023), and one that reads a sequence in one direction.

Shapes: B batch, L positions, E embedding, D = 2 E inner channels, N states a channel.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vimvol.models.scan import Direction, scan_directions


def causal(x: Tensor, conv: nn.Conv1d, reverse: bool = False) -> Tensor:
    """Convolve x (B, L, D) along L so that a position sees itself and those before it, or behind; return (B, L, D)."""
    # As an image of one row whose channels are innermost in memory: several times as fast on a CPU as a 1D convolution.
    row = x.transpose(1, 2).unsqueeze(2)
    padding = conv.kernel_size[0] - 1
    weight = conv.weight.flip(-1) if reverse else conv.weight
    y = F.conv2d(row, weight.unsqueeze(2), conv.bias, padding=(0, padding), groups=conv.groups)
    y = y[..., padding:] if reverse else y[..., : x.shape[1]]
    return y.squeeze(2).transpose(1, 2)


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
        self.rank, self.state = rank, state
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
        x, gate = self.in_proj(h).chunk(2, dim=-1)
        x = F.silu(causal(x, self.conv1d))
        step, b, c = self.x_proj(x).split([self.rank, self.state, self.state], dim=-1)
        a = -torch.exp(self.A_log.to(torch.promote_types(self.A_log.dtype, torch.float32)))
        way = Direction(x, F.linear(step, self.dt_proj.weight), a, b, c, self.D, self.dt_proj.bias)
        (y,) = scan_directions([way], delta_softplus=True)
        out: Tensor = self.out_proj(y * F.silu(gate))
        return out
