"""nnU-Net's U-Net (Isensee et al. 2021, Nature Methods 18:203), from its authors' package of networks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet
from dynamic_network_architectures.building_blocks.simple_conv_blocks import ConvDropoutNormReLU
from torch import Tensor, nn

from vimvol.models.norm import InstanceNorm, arranged
from vimvol.models.plan import UNetPlan, plan_unet
from vimvol.models.unet import check_image

SLOPE = 1e-2
"""Of every leaky ReLU."""


def recipe(plan: UNetPlan, in_channels: int, out_channels: int) -> dict[str, Any]:
    """Return what the package builds a network of these stages from, but for the blocks of the encoder."""
    return {
        "input_channels": in_channels,
        "num_classes": out_channels,
        "n_stages": len(plan.features),
        "features_per_stage": plan.features,
        "kernel_sizes": plan.kernels,
        "strides": plan.strides,
        "n_conv_per_stage_decoder": 2,
        "conv_op": nn.Conv2d,
        "conv_bias": True,
        "norm_op": InstanceNorm,
        "nonlin": nn.LeakyReLU,
        "nonlin_kwargs": {"negative_slope": SLOPE, "inplace": True},
    }


def tidy(module: nn.Module) -> Any:  # noqa: ANN401 - of the kind that was given
    """Let blocks of the package hold their modules by one name, not two, and the norm do the leaky ReLU behind it."""
    for block in list(module.modules()):
        if isinstance(block, ConvDropoutNormReLU):
            conv, norm, *activation = block.all_modules
            norm.slope = activation[0].negative_slope if activation else 1.0
            block.all_modules = nn.Sequential(conv, norm)
            for name in ("conv", "norm", "nonlin"):
                block._modules.pop(name, None)
    return module


class PlannedUNet(nn.Module):
    """A U-Net with planned stages: (B, in_channels, Y, X) to logits (B, out_channels, Y, X).

    Parameters
    ----------
    in_channels
        Channels of the image.
    plan
        Its stages.
    network
        A U-Net of the package with these stages, whose parts it takes.

    Attributes
    ----------
    divisor
        Multiple that Y and X must have.
    """

    def __init__(self, in_channels: int, plan: UNetPlan, network: nn.Module) -> None:
        super().__init__()
        self.in_channels, self.divisor = in_channels, plan.divisor
        whole: Any = network
        self.encoder = tidy(whole.encoder.stages)
        # Of the decoder, coarsest first: what doubles a map, what joins it with the encoder's, what makes logits.
        self.doublings = whole.decoder.transpconvs
        self.decoder = tidy(whole.decoder.stages)
        self.heads = whole.decoder.seg_layers

    @property
    def out_conv(self) -> Any:  # noqa: ANN401 - a module
        """The convolution that makes the logits of full resolution."""
        return self.heads[-1]

    def encode(self, x: Tensor) -> list[Tensor]:
        """Return the map of every stage of the encoder, finest first."""
        maps = []
        for stage in self.encoder:
            x = stage(x)
            maps.append(x)
        return maps

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, out_channels, Y, X).

        Raises
        ------
        InputError
            If the image has another number of channels or Y or X is no multiple of `divisor`.
        """
        logits: Tensor = self.out_conv(self.decode(x)[-1])
        return logits

    def supervised(self, x: Tensor) -> list[Tensor]:
        """Return logits at every resolution that training looks at, finest first: of all stages but the coarsest.

        Each is (B, out_channels, y, x); see `vimvol.train.loss.supervised_loss`. Raises as `forward`.
        """
        pairs = list(zip(self.heads, self.decode(x), strict=True))
        return [head(m) for head, m in pairs[:0:-1] or pairs]

    def decode(self, x: Tensor) -> list[Tensor]:
        """Return the maps of the decoder, coarsest first; raises as `forward`."""
        check_image(x, (self.in_channels,), self.divisor)
        x, *skips = reversed(self.encode(arranged(x)))
        maps = []
        for double, stage, skip in zip(self.doublings, self.decoder, skips, strict=True):
            x = stage(torch.cat([double(x), skip], 1))
            maps.append(x)
        return maps


class NNUNet(PlannedUNet):
    """The plain 2D U-Net of nnU-Net: (B, in_channels, Y, X) to logits (B, out_channels, Y, X).

    Two convolutions a stage, each with instance norm and leaky ReLU; strided ones halve, transposed ones double.

    Parameters
    ----------
    in_channels, out_channels
        Channels of the image, and of the prediction.
    patch, spacing, features, most
        What the stages are planned for, see `vimvol.models.plan.plan_unet`.
    """

    def __init__(
        self,
        in_channels: int = 1,
        out_channels: int = 1,
        *,
        patch: Sequence[int] = (512, 512),
        spacing: Sequence[float] = (1.0, 1.0),
        features: int = 32,
        most: int = 512,
    ) -> None:
        plan = plan_unet(patch, spacing, features, most)
        network = PlainConvUNet(n_conv_per_stage=2, **recipe(plan, in_channels, out_channels))
        network.apply(network.initialize)
        super().__init__(in_channels, plan, network)
