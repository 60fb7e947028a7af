"""ViM-UNet: a U-Net decoder on a Vision Mamba encoder (Archit & Pape, MIDL 2024)."""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from vimvol.errors import InputError
from vimvol.models.blocks import ConvBlock, Decoder, Upsampling, upsampler
from vimvol.models.norm import arranged
from vimvol.models.unet import check_image
from vimvol.models.vim import Vim, VimOptions

WIDTHS = (512, 256, 128, 64, 64)
"""Channels of the paper's decoder at strides 16, 8, 4, 2, 1."""


class ViMUNet(nn.Module):
    """ViM-UNet: (B, in_channels, Y, X) to logits (B, out_channels, Y, X).

    Parameters
    ----------
    in_channels, out_channels
        Channels of the image, and of the prediction.
    skips
        What the decoder sees beside the tokens: ``deconv``, the encoder's output doubled again and again, as in the
        paper; or ``stem``, maps of a small convolutional network at strides 1, 2, 4 and 8, which keep the detail that
        a patch of 16 pixels loses.
    widths
        Channels of the decoder at strides 16, 8, 4, 2, 1.
    stem_widths
        Channels of the stem at strides 1, 2, 4, 8.
    upsampling
        How the decoder doubles maps.
    deconv_upsampling
        How the skips double them; none: as the decoder.
    **encoder
        Fields of `vimvol.models.vim.VimOptions`; ``channels`` is ``in_channels`` where not given.

    Attributes
    ----------
    divisor
        Multiple that Y and X must have; 1 where images are padded to the canvas.
    canvas
        Pixels along Y and X that every image is padded to, and must not exceed; none: it is not padded. A smaller
        image costs as much as one of this size.
    """

    def __init__(
        self,
        in_channels: int = 1,
        out_channels: int = 1,
        *,
        skips: Literal["deconv", "stem"] = "deconv",
        widths: tuple[int, int, int, int, int] = WIDTHS,
        stem_widths: tuple[int, int, int, int] = (16, 32, 48, 64),
        upsampling: Upsampling = "transpose",
        deconv_upsampling: Upsampling | None = None,
        **encoder: object,
    ) -> None:
        super().__init__()
        options = VimOptions(**{"channels": in_channels, **encoder})  # type: ignore[arg-type]
        if options.patch != 16:
            raise InputError(f"patch={options.patch} does not fit the decoder, which doubles four times; use 16")
        if in_channels not in (1, options.channels):
            raise InputError(
                f"in_channels={in_channels} does not fit an encoder of {options.channels} channels; "
                f"use 1 or {options.channels}, or set channels={in_channels}"
            )
        # Weights of the reference take either: it repeats an image of one channel.
        self._takes = (in_channels,) if skips == "stem" else tuple(sorted({1, options.channels}))
        self.divisor = 1 if options.pad_to_canvas else options.patch
        self.canvas = options.canvas if options.pad_to_canvas else None
        self.encoder = Vim(options)
        if len(widths) != 5 or len(stem_widths) != 4:
            raise InputError(
                f"widths={widths}, stem_widths={stem_widths} do not fit the strides; give 5 from stride 16 to 1 "
                "and 4 from stride 1 to 8"
            )
        at16, at8, at4, at2, at1 = widths
        if skips == "stem":
            self.stem = nn.ModuleList(
                ConvBlock(i, o) for i, o in zip((in_channels, *stem_widths[:-1]), stem_widths, strict=True)
            )
            side = stem_widths[::-1]
        else:
            kind = deconv_upsampling or upsampling
            inputs = (options.embedding, at16, at8, at4)
            for number, (i, o) in enumerate(zip(inputs, widths, strict=False), start=1):
                self.add_module(f"deconv{number}", Deconv(i, o, kind))
            side = (at8, at4, at2, at2)
        self.skips, self._sides = skips, side[:3]
        self.base = ConvBlock(options.embedding, at16)
        self.decoder = Decoder(widths[:4], side[:3], upsampling)
        self.deconv_out = upsampler(upsampling, at2, at1)
        self.decoder_head = ConvBlock(at1 + side[3], at1)
        self.out_conv = nn.Conv2d(at1, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, out_channels, Y, X).

        Raises
        ------
        InputError
            If the image has another number of channels, Y or X is no multiple of `divisor`, or an image that is padded
            to the canvas exceeds it.
        """
        check_image(x, self._takes, self.divisor)
        size = x.shape[-2:]
        x = arranged(self._pad(x))
        tokens = self.encoder(x)
        *coarse, fine = self._stem(x) if self.skips == "stem" else self._deconv(tokens)
        decoded = self.deconv_out(self.decoder(self.base(tokens), coarse))
        logits: Tensor = self.out_conv(self.decoder_head(decoded, fine))
        return logits[..., : size[0], : size[1]]

    def _pad(self, x: Tensor) -> Tensor:
        if self.canvas is None:
            return x
        missing = [self.canvas - s for s in x.shape[-2:]]
        if min(missing) < 0:
            raise InputError(
                f"image of {x.shape[-2]} x {x.shape[-1]} pixels exceeds the canvas of {self.canvas} that these "
                "weights were trained for; predict it in tiles of at most that size"
            )
        return F.pad(x, (0, missing[1], 0, missing[0]))

    def _stem(self, x: Tensor) -> list[Tensor]:
        """Return the stem's maps at strides 8, 4, 2, 1."""
        maps: list[Tensor] = []
        for block in self.stem:
            x = block(F.max_pool2d(x, 2) if maps else x)
            maps.append(x)
        return maps[::-1]

    def _deconv(self, tokens: Tensor) -> list[Tensor]:
        """Return the doubled tokens at strides 8, 4, 2, 1, as many channels of each as the decoder takes."""
        maps, x = [], tokens
        for number in range(1, 5):
            x = self.get_submodule(f"deconv{number}")(x)
            maps.append(x)
        # The reference cuts its skips to the shape of the decoder's map along every axis, channels included: the
        # central half of them takes part, the outer half only feeds the next deconvolution.
        return [_central(m, size) for m, size in zip(maps, self._sides, strict=False)] + maps[3:]


class Deconv(nn.Module):
    """Double a map, then 3 x 3 convolution, batch norm, ReLU: (B, inputs, Y, X) to (B, outputs, 2Y, 2X)."""

    def __init__(self, inputs: int, outputs: int, upsampling: Upsampling) -> None:
        super().__init__()
        self.block = nn.Sequential(
            upsampler(upsampling, inputs, outputs), Conv(outputs), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, outputs, 2Y, 2X), not negative."""
        out: Tensor = self.block(x)
        return out


class Conv(nn.Module):
    """A 3 x 3 convolution that keeps the channels, under the name that checkpoints have it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.block = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, channels, Y, X)."""
        out: Tensor = self.block(x)
        return out


def _central(x: Tensor, channels: int) -> Tensor:
    """Return the central ``channels`` of (B, C, Y, X)."""
    begin = (x.shape[1] - channels) // 2
    return x[:, begin : begin + channels]
