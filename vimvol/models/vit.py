"""The vision transformer of Segment Anything (Kirillov et al., ICCV 2023), which is ViTDet's (Li et al., ECCV 2022).

Most blocks attend within windows of patches, every fourth part of the depth ends in one that attends globally.

Shapes: B batch, E embedding, H heads, D = E / H, (gy, gx) the grid of patches or of a window, L = gy * gx. Parameters
are named as in segment-anything, so that its checkpoints load.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vimvol.errors import InputError
from vimvol.models.patches import PatchEmbedding, PatchOptions

MLP_RATIO = 4
NECK = 256
EPSILON = 1e-6
QUERIES = 512
"""Queries that attend at a time: their bias, not that of all pairs of patches, is held in memory when predicting."""


@dataclass(frozen=True)
class VitOptions(PatchOptions):
    """What a `Vit` encoder is made of, beside what every encoder of patches is.

    Attributes
    ----------
    heads
        Heads of attention.
    window
        Patches along an axis of a window.
    neck
        Whether there are the unused convolutions to 256 channels that the reference's checkpoints hold.
    """

    embedding: int = 768
    depth: int = 12
    heads: int = 12
    window: int = 14
    neck: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.depth < 4 or self.depth % 4:
            raise InputError(
                f"depth={self.depth} has no four equal parts that the skips start from; use a multiple of 4"
            )
        if self.heads < 1 or self.embedding % self.heads:
            raise InputError(
                f"embedding={self.embedding} cannot be shared by heads={self.heads}; make it a multiple of heads"
            )
        if self.window < 1:
            raise InputError(f"window={self.window} holds no patch; use 1 or more")

    @property
    def global_blocks(self) -> tuple[int, ...]:
        """Indices of the blocks that attend globally."""
        part = self.depth // 4
        return tuple(range(part - 1, self.depth, part))


class Attention(nn.Module):
    """Self-attention of a grid with decomposed relative positions (Li et al., CVPR 2022, MViTv2, section 4.1).

    Parameters
    ----------
    embedding, heads
        Channels, and heads that share them.
    size
        Patches along an axis that the position tables are laid out for; for another grid they are interpolated.
    """

    def __init__(self, embedding: int, heads: int, size: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(embedding, 3 * embedding)
        self.proj = nn.Linear(embedding, embedding)
        self.rel_pos_h = nn.Parameter(torch.zeros(2 * size - 1, embedding // heads))
        self.rel_pos_w = nn.Parameter(torch.zeros(2 * size - 1, embedding // heads))

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, gy, gx, E) from (B, gy, gx, E)."""
        batch, gy, gx, _ = x.shape
        q, k, v = self.qkv(x).reshape(batch, gy * gx, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        # The query enters the bias as it is, and the product with the keys divided by the root of D.
        grid = q.unflatten(2, (gy, gx))
        along_y = torch.einsum("bhyxd,ykd->bhyxk", grid, relative(self.rel_pos_h, gy)).flatten(2, 3)
        along_x = torch.einsum("bhyxd,xkd->bhyxk", grid, relative(self.rel_pos_w, gx)).flatten(2, 3)
        parts = []
        for some, rows, columns in zip(*(t.split(QUERIES, dim=2) for t in (q, along_y, along_x)), strict=True):
            bias = (rows[..., :, None] + columns[..., None, :]).flatten(-2)
            parts.append(F.scaled_dot_product_attention(some, k, v, attn_mask=bias))
        out: Tensor = self.proj(torch.cat(parts, dim=2).transpose(1, 2).reshape(x.shape))
        return out


def relative(table: Tensor, size: int) -> Tensor:
    """Return the entries for all pairs of positions along an axis: (2 S - 1, D) to (size, size, D), [query, key]."""
    length = 2 * size - 1
    if len(table) != length:
        table = F.interpolate(table.T[None], size=length, mode="linear")[0].T
    at = torch.arange(size, device=table.device)
    return table[at[:, None] - at + size - 1]


class Block(nn.Module):
    """Pre-norm attention and a perceptron, each with a residual.

    Parameters
    ----------
    options
        Of the encoder.
    window
        Patches along an axis of a window; none: the block attends globally.
    """

    def __init__(self, options: VitOptions, window: int | None) -> None:
        super().__init__()
        width = options.embedding
        self.window = window
        self.norm1 = nn.LayerNorm(width, eps=EPSILON)
        self.attn = Attention(width, options.heads, window or options.canvas // options.patch)
        self.norm2 = nn.LayerNorm(width, eps=EPSILON)
        self.mlp = nn.ModuleDict(
            {"lin1": nn.Linear(width, MLP_RATIO * width), "lin2": nn.Linear(MLP_RATIO * width, width)}
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, gy, gx, E) from (B, gy, gx, E)."""
        h = self.norm1(x)
        x = x + (self.attn(h) if self.window is None else self._windowed(h, self.window))
        out: Tensor = x + self.mlp["lin2"](F.gelu(self.mlp["lin1"](self.norm2(x))))
        return out

    def _windowed(self, h: Tensor, size: int) -> Tensor:
        """Attend within windows; the zeros that fill the last ones take part as patches, as in the reference."""
        batch, gy, gx, width = h.shape
        h = F.pad(h, (0, 0, 0, -gx % size, 0, -gy % size))
        rows, columns = h.shape[1] // size, h.shape[2] // size
        windows = h.reshape(batch, rows, size, columns, size, width).transpose(2, 3).flatten(0, 2)
        found: Tensor = self.attn(windows).reshape(batch, rows, columns, size, size, width)
        return found.transpose(2, 3).reshape(h.shape)[:, :gy, :gx]


class Vit(nn.Module):
    """Vision transformer: (B, channels, Y, X) to (B, E, Y / patch, X / patch), and the same of three blocks before."""

    def __init__(self, options: VitOptions) -> None:
        super().__init__()
        self.options = options
        width, side = options.embedding, options.canvas // options.patch
        self.pos_embed = nn.Parameter(torch.zeros(1, side, side, width))
        self.patch_embed = PatchEmbedding(options)
        self.blocks = nn.ModuleList(
            Block(options, None if number in options.global_blocks else options.window)
            for number in range(options.depth)
        )
        if options.neck:
            self.neck = nn.Sequential(
                nn.Conv2d(width, NECK, 1, bias=False),
                nn.LayerNorm(NECK),
                nn.Conv2d(NECK, NECK, 3, padding=1, bias=False),
                nn.LayerNorm(NECK),
            )

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return what the last block gives, and what the first three global blocks give; (B, E, gy, gx) each."""
        patches = self.patch_embed(x)
        h = patches.permute(0, 2, 3, 1) + self._positions((patches.shape[2], patches.shape[3]))
        maps = []
        for number, block in enumerate(self.blocks):
            h = block(h)
            if number in self.options.global_blocks:
                maps.append(h.permute(0, 3, 1, 2))
        return maps[-1], maps[:3]

    def _positions(self, grid: tuple[int, int]) -> Tensor:
        """Return the position embedding of a grid (1, gy, gx, E): as it is learned, or interpolated to another grid."""
        if grid == self.pos_embed.shape[1:3]:
            return self.pos_embed
        square = self.pos_embed.permute(0, 3, 1, 2)
        resized = F.interpolate(square, grid, mode="bicubic", align_corners=False)
        return resized.permute(0, 2, 3, 1)
