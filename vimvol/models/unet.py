"""The U-Net that the ViM-UNet paper compares with (Ronneberger et al., MICCAI 2015; here as in torch-em)."""

from __future__ import annotations

import itertools

from torch import Tensor, nn

from vimvol.errors import InputError
from vimvol.models.blocks import ConvBlock, Decoder, Upsampling
from vimvol.models.norm import arranged
from vimvol.models.resize import max_pooled


class UNet(nn.Module):
    """U-Net with instance norm: (B, in_channels, Y, X) to logits (B, out_channels, Y, X).

    Parameters
    ----------
    in_channels, out_channels
        Channels of the image, and of the prediction.
    features
        Channels at full resolution; every level has twice those of the one above.
    depth
        Number of times that the image is max_pooled.
    upsampling
        How maps are doubled.

    Attributes
    ----------
    divisor
        Multiple that Y and X must have.
    """

    def __init__(
        self,
        in_channels: int = 1,
        out_channels: int = 1,
        *,
        features: int = 64,
        depth: int = 4,
        upsampling: Upsampling = "bilinear",
    ) -> None:
        super().__init__()
        self.divisor = 2**depth
        self.in_channels = in_channels
        widths = tuple(features * 2**level for level in range(depth + 1))
        self.encoder = Encoder((in_channels, *widths[:-1]))
        self.base = ConvBlock(widths[-2], widths[-1])
        self.decoder = Decoder(widths[::-1], widths[-2::-1], upsampling)
        self.out_conv = nn.Conv2d(features, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, out_channels, Y, X).

        Raises
        ------
        InputError
            If the image has another number of channels or Y or X is no multiple of `divisor`.
        """
        check_image(x, (self.in_channels,), self.divisor)
        x, skips = self.encoder(arranged(x))
        out: Tensor = self.out_conv(self.decoder(self.base(x), skips[::-1]))
        return out


class Encoder(nn.Module):
    """Blocks with max pooling behind each; ``features`` are the channels of the image and of every block."""

    def __init__(self, features: tuple[int, ...]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(ConvBlock(i, o) for i, o in itertools.pairwise(features))

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return the pooled last map, and the map of every block, finest first."""
        maps = []
        for block in self.blocks:
            x = block(x)
            maps.append(x)
            x = max_pooled(x)
        return x, maps


def check_image(x: Tensor, channels: tuple[int, ...], divisor: int) -> None:
    """Refuse a batch that a network cannot take.

    Raises
    ------
    InputError
        If ``x`` is not (B, C, Y, X) with C one of ``channels`` and Y and X multiples of ``divisor``, or is no larger
        than one such square.
    """
    if x.ndim != 4 or x.shape[1] not in channels:
        allowed = " or ".join(map(str, channels))
        raise InputError(
            f"batch of shape {tuple(x.shape)} does not fit a network that takes (B, C, Y, X) with C = {allowed}; "
            "stack images along the first axis and channels along the second"
        )
    size = tuple(x.shape[-2:])
    if any(s % divisor or not s for s in size):
        raise InputError(
            f"image of {size[0]} x {size[1]} pixels cannot be max_pooled as often as the network needs; "
            f"pad or cut it to multiples of {divisor}"
        )
    if size == (divisor, divisor) and divisor > 1:
        raise InputError(
            f"image of {size[0]} x {size[1]} pixels is a single point at the coarsest level and cannot be "
            f"normalised there; give at least {2 * divisor} pixels along an axis"
        )
