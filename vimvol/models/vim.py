"""Vision Mamba: a bidirectional state space encoder of images (Zhu et al., ICML 2024).

Shapes: B batch, L tokens, E embedding, D = 2 E inner channels, N states a channel, (gy, gx) the grid of patches.

The encoder exists in two generations with the same parameters and different functions. The one of the ViM-UNet paper
turns tokens by their position (RoPE), puts the class token first and adds the two directions; today's has no RoPE,
puts it in the middle and averages them. Here they are options.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vimvol.errors import InputError
from vimvol.models.blocks import check_choice
from vimvol.models.mamba import init_step, initial_decay
from vimvol.models.mixing import Way, mix
from vimvol.models.patches import PatchEmbedding, PatchOptions
from vimvol.models.rms import RMSNorm

ClassToken = Literal["first", "middle", "none"]
Drop = Literal["class", "first"]
Position = Literal["learned", "none"]
BackwardStep = Literal["spread", "zero"]

ROPE_GRID = 14
"""Patches along an axis that rotary frequencies were laid out for; other grids are scaled to it."""


@dataclass(frozen=True)
class VimOptions(PatchOptions):
    """What a `Vim` encoder is made of, beside what every encoder of patches is.

    Attributes
    ----------
    state
        States a channel.
    class_token
        Where a learned token that is no patch joins the sequence.
    drop
        What leaves the sequence before the decoder: the class token, or the first token whatever it is. The latter is
        what the reference does although its class token is in the middle; weights trained with it need it.
    divide
        Whether the two directions are averaged rather than added.
    rope
        Whether tokens are rotated by their position before every layer.
    backward_step
        What the step sizes of the backward direction begin as: spread over [.001, .1] like the forward ones, or all
        about .7, from a bias of 0, as the reference leaves them. Only a training from random weights sees it.
    position
        Whether there is a learned position embedding.
    drop_path
        Rate at which the last layer is skipped in training, [0, 1); it grows linearly from the first.
    head
        Whether there is the unused classifier that the reference's checkpoints hold.
    """

    state: int = 16
    class_token: ClassToken = "middle"
    drop: Drop = "class"
    divide: bool = True
    rope: bool = False
    backward_step: BackwardStep = "spread"
    position: Position = "learned"
    drop_path: float = 0.1
    head: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("class_token", self.class_token, ClassToken)
        check_choice("drop", self.drop, Drop)
        check_choice("backward_step", self.backward_step, BackwardStep)
        check_choice("position", self.position, Position)
        if not 0 <= self.drop_path < 1:
            raise InputError(f"drop_path={self.drop_path} is no rate to skip layers at; use 0 or more, and less than 1")
        if self.drop == "first" and self.class_token == "none":
            raise InputError("drop='first' without a class token would lose a patch; use drop='class'")
        if self.rope and self.embedding % 4:
            raise InputError(
                f"embedding={self.embedding} cannot be rotated in pairs along y and x; use a multiple of 4"
            )


class Mixer(nn.Module):
    """A Mamba block that reads the sequence in both directions (Zhu et al., ICML 2024, algorithm 1).

    (B, L, E) to (B, L, E). Both directions share the projections in and out.
    """

    def __init__(
        self, embedding: int, state: int, depth: int, divide: bool, backward_step: BackwardStep = "spread"
    ) -> None:
        super().__init__()
        inner, rank = 2 * embedding, math.ceil(embedding / 16)
        self.divide = divide
        self.in_proj = nn.Linear(embedding, 2 * inner, bias=False)
        self.A_log, self.A_b_log = initial_decay(inner, state), initial_decay(inner, state)
        self.D, self.D_b = nn.Parameter(torch.ones(inner)), nn.Parameter(torch.ones(inner))
        self.conv1d, self.conv1d_b = (nn.Conv1d(inner, inner, 4, groups=inner, padding=3) for _ in range(2))
        self.x_proj, self.x_proj_b = (nn.Linear(inner, rank + 2 * state, bias=False) for _ in range(2))
        self.dt_proj, self.dt_proj_b = (nn.Linear(rank, inner) for _ in range(2))
        self.out_proj = nn.Linear(inner, embedding, bias=False)
        with torch.no_grad():
            self.out_proj.weight /= math.sqrt(depth)
        init_step(self.dt_proj)
        if backward_step == "zero":
            nn.init.zeros_(self.dt_proj_b.bias)
        else:
            init_step(self.dt_proj_b)

    def forward(self, h: Tensor) -> Tensor:
        """Return (B, L, E)."""
        ways = (
            Way(self.conv1d, self.x_proj, self.dt_proj, self.A_log, self.D),
            Way(self.conv1d_b, self.x_proj_b, self.dt_proj_b, self.A_b_log, self.D_b, reverse=True),
        )
        out: Tensor = self.out_proj(mix(self.in_proj(h), ways, 0.5 if self.divide else 1.0))
        return out


class Layer(nn.Module):
    """Pre-norm residual layer whose residual stream is passed beside the hidden state."""

    def __init__(self, options: VimOptions, drop_path: float) -> None:
        super().__init__()
        self.norm = RMSNorm(options.embedding)
        self.mixer = Mixer(options.embedding, options.state, options.depth, options.divide, options.backward_step)
        self.drop_path = drop_path

    def forward(self, h: Tensor, residual: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the hidden state and the residual stream, each (B, L, E)."""
        if residual is not None:
            h = drop_path(h, self.drop_path, self.training)
        normed, residual = self.norm(h, residual)
        return self.mixer(normed), residual


class Vim(nn.Module):
    """Vision Mamba encoder: (B, channels, Y, X) to (B, E, Y / patch, X / patch)."""

    def __init__(self, options: VimOptions) -> None:
        super().__init__()
        self.options = options
        width, depth = options.embedding, options.depth
        self.patch_embed = PatchEmbedding(options)
        if options.class_token != "none":
            self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
            nn.init.trunc_normal_(self.cls_token, std=0.02)
        if options.position == "learned":
            rows = (options.canvas // options.patch) ** 2 + (options.class_token != "none")
            self.pos_embed = nn.Parameter(torch.zeros(1, rows, width))
            nn.init.trunc_normal_(self.pos_embed, std=0.02)
        if options.head:
            self.head = nn.Linear(width, 1000)
            nn.init.trunc_normal_(self.head.weight, std=0.02)
            nn.init.zeros_(self.head.bias)
        # A layer applies the rate to what comes in, which is the output of the layer before it.
        rates = [0.0, *torch.linspace(0, options.drop_path, depth, device="cpu").tolist()]
        self.layers = nn.ModuleList(Layer(options, rate) for rate in rates[:depth])
        self.norm_f = RMSNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        """Return the grid of encoded patches (B, E, gy, gx)."""
        grid = (x.shape[-2] // self.options.patch, x.shape[-1] // self.options.patch)
        tokens = self.tokens(x)
        if self.options.class_token != "none":
            at = 0 if self.options.drop == "first" else self._class_index(grid)
            tokens = torch.cat([tokens[:, :at], tokens[:, at + 1 :]], dim=1)
        # Seen this way, even a single map has the strides by which convolutions know that its channels are innermost.
        return tokens.reshape(len(x), *grid, -1).permute(0, 3, 1, 2)

    def tokens(self, x: Tensor) -> Tensor:
        """Return every token after the last norm (B, L, E), the class token at its place, patches in row order."""
        h = self.patch_embed(x)
        grid = (h.shape[-2], h.shape[-1])
        h = h.flatten(2).transpose(1, 2).contiguous()
        at = self._class_index(grid)
        if self.options.class_token != "none":
            h = torch.cat([h[:, :at], self.cls_token.to(h.dtype).expand(len(h), -1, -1), h[:, at:]], dim=1)
        if self.options.position == "learned":
            h = h + self._positions(grid)
        rotation = self._rotation(grid, h) if self.options.rope else None
        residual: Tensor | None = None
        for layer in self.layers:
            if rotation is not None:
                h = rotate(h, *rotation)
                residual = rotate(residual, *rotation) if residual is not None else None
            h, residual = layer(h, residual)
        normed: Tensor = self.norm_f(drop_path(h, self.options.drop_path, self.training), residual)[0]
        return normed

    def _class_index(self, grid: tuple[int, int]) -> int:
        """Return the position of the class token in the sequence of a grid."""
        return grid[0] * grid[1] // 2 if self.options.class_token == "middle" else 0

    def _positions(self, grid: tuple[int, int]) -> Tensor:
        """Return the position embedding of a grid (1, L, E): as it is learned, or interpolated to another grid."""
        side = self.options.canvas // self.options.patch
        if grid == (side, side):
            return self.pos_embed
        at, to = self._class_index((side, side)), self._class_index(grid)
        count = int(self.options.class_token != "none")
        own = self.pos_embed[:, at : at + count]
        patches = torch.cat([self.pos_embed[:, :at], self.pos_embed[:, at + count :]], dim=1)
        square = patches.reshape(1, side, side, -1).permute(0, 3, 1, 2)
        resized = F.interpolate(square, grid, mode="bicubic", align_corners=False).permute(0, 2, 3, 1).flatten(1, 2)
        return torch.cat([resized[:, :to], own, resized[:, to:]], dim=1)

    def _rotation(self, grid: tuple[int, int], like: Tensor) -> tuple[Tensor, Tensor]:
        """Return cosine and sine of the angle of every token and channel (L, E); the class token is not rotated."""
        half = self.options.embedding // 2
        steps = torch.arange(0, half, 2, device=like.device, dtype=torch.float32)
        frequency = (1.0 / 10000 ** (steps / half)).repeat_interleave(2)
        y, x = (torch.arange(n, device=like.device, dtype=torch.float32) / n * ROPE_GRID for n in grid)
        angle = torch.cat(
            [
                (y[:, None] * frequency)[:, None].expand(-1, grid[1], -1),
                (x[:, None] * frequency)[None].expand(grid[0], -1, -1),
            ],
            dim=-1,
        ).flatten(0, 1)
        if self.options.class_token != "none":
            at = self._class_index(grid)
            angle = torch.cat([angle[:at], torch.zeros_like(angle[:1]), angle[at:]])
        return angle.cos(), angle.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate pairs of neighbouring channels of x (B, L, E) by angles (L, E) (Su et al., 2021, RoPE)."""
    even, odd = x[..., 0::2], x[..., 1::2]
    turned = torch.stack([-odd, even], dim=-1).flatten(-2)
    return (x * cos + turned * sin).to(x.dtype)


def drop_path(x: Tensor, rate: float, training: bool) -> Tensor:
    """Zero a sample with this probability in training and scale up the others (Huang et al., ECCV 2016)."""
    if not training or rate == 0:
        return x
    keep = torch.empty(len(x), *[1] * (x.ndim - 1), device=x.device, dtype=x.dtype).bernoulli_(1 - rate)
    return x * keep / (1 - rate)
