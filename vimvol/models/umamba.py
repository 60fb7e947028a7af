"""U-Mamba (Ma, Li & Wang 2024, arXiv:2401.04722): nnU-Net's stages in residual blocks, with Mamba blocks between them.

After the authors' networks as they came with their paper (github.com/bowang-lab/U-Mamba, ``UMambaBot.py`` and
``UMambaEnc.py`` of commit 92a741a); what they changed since is told in docs/nnunet.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from dynamic_network_architectures.architectures.unet import ResidualUNet
from dynamic_network_architectures.initialization.weight_init import InitWeights_He, init_last_bn_before_add_to_0
from torch import Tensor, nn

from vimvol.errors import InputError
from vimvol.models.mamba import Mamba
from vimvol.models.nnunet import SLOPE, PlannedUNet, recipe, tidy
from vimvol.models.plan import plan_unet
from vimvol.models.scan.plain import as_given


class MambaLayer(nn.Module):
    """A Mamba block on the layer-normed pixels of a map in row order, in place of the map: (B, C, Y, X) to the same."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.mamba = Mamba(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, C, Y, X), of the dtype of ``x``; computed in float32 whatever autocast says, as the authors do."""
        with as_given(x):
            h = x.to(torch.promote_types(x.dtype, torch.float32)).flatten(2).transpose(1, 2)
            y: Tensor = self.mamba(self.norm(h)).to(x.dtype)
        # Seen this way, even a single map has the strides by which convolutions know that its channels are innermost.
        return y.reshape(len(x), *x.shape[2:], -1).permute(0, 3, 1, 2)


class UMamba(PlannedUNet):
    """U-Mamba: (B, in_channels, Y, X) to logits (B, out_channels, Y, X).

    Parameters
    ----------
    in_channels, out_channels
        Channels of the image, and of the prediction.
    mamba
        Where Mamba blocks are: behind the last stage of the encoder, or behind every one.
    patch, spacing, features, most
        What the stages are planned for, see `vimvol.models.plan.plan_unet`.
    """

    def __init__(
        self,
        in_channels: int = 1,
        out_channels: int = 1,
        *,
        mamba: Literal["bottleneck", "encoder"] = "bottleneck",
        patch: Sequence[int] = (512, 512),
        spacing: Sequence[float] = (1.0, 1.0),
        features: int = 32,
        most: int = 512,
    ) -> None:
        if mamba not in ("bottleneck", "encoder"):
            raise InputError(f"mamba={mamba!r} is no place for Mamba blocks; use 'bottleneck' or 'encoder'")
        plan = plan_unet(patch, spacing, features, most)
        network = ResidualUNet(n_blocks_per_stage=2, **recipe(plan, in_channels, out_channels))
        network.apply(InitWeights_He(SLOPE))
        if mamba == "encoder":
            network.apply(init_last_bn_before_add_to_0)  # as the authors do; a block begins as its shortcut
        super().__init__(in_channels, plan, network)
        self.stem = tidy(network.encoder.stem)
        first = len(plan.features) - 1 if mamba == "bottleneck" else 0
        self.mamba = nn.ModuleDict({str(s): MambaLayer(w) for s, w in enumerate(plan.features) if s >= first})

    def encode(self, x: Tensor) -> list[Tensor]:
        """Return the map of every stage, finest first."""
        x = self.stem(x)
        maps = []
        for number, stage in enumerate(self.encoder):
            x = stage(x)
            if str(number) in self.mamba:
                x = self.mamba[str(number)](x)
            maps.append(x)
        return maps
