"""What networks share whose encoder sees an image as patches: options, embedding, and the U-Net decoder (torch-em)."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vimvol.errors import InputError
from vimvol.models.blocks import ConvBlock, Decoder, Upsampling, check_choice, upsampler
from vimvol.models.norm import arranged
from vimvol.models.unet import check_image

WIDTHS = (512, 256, 128, 64, 64)
"""Channels of the paper's decoders at strides 16, 8, 4, 2, 1."""

Widths = tuple[int, ...]
"""Channels of a decoder at strides from the width of a patch down to 1, halved each time."""

SkipChannels = Literal["all", "central"]
"""Which channels of a skip the decoder sees: all, or as many in the middle as it has itself, as in the reference."""

AboveCanvas = Literal["refuse", "stretch"]
"""What becomes of an image above the canvas that images are padded to: an error, or the reference's result."""


@dataclass(frozen=True)
class PatchOptions:
    """What every encoder of patches is made of.

    Attributes
    ----------
    embedding, depth, patch
        Channels of a token, layers, and the width of a patch in pixels.
    channels
        Channels of the patch convolution; an image of one channel is repeated for it.
    canvas
        Width in pixels of the square image that the position embedding is laid out for.
    pad_to_canvas
        Pad every image with zeros to the canvas, as the reference does, instead of interpolating the embedding.
    above_canvas
        What becomes of an image that is larger than a canvas it would be padded to: it is refused; or, as in the
        reference, cut to the canvas and its prediction stretched to the image, which is told in a warning.
    """

    embedding: int = 192
    depth: int = 24
    patch: int = 16
    channels: int = 3
    canvas: int = 1024
    pad_to_canvas: bool = False
    above_canvas: AboveCanvas = "refuse"

    def __post_init__(self) -> None:
        check_choice("above_canvas", self.above_canvas, AboveCanvas)
        if self.canvas % self.patch:
            raise InputError(
                f"canvas={self.canvas} pixels holds no whole number of patches; make it a multiple of {self.patch}"
            )


class PatchEmbedding(nn.Module):
    """Project patches that do not overlap: (B, channels, Y, X) to (B, E, gy, gx)."""

    def __init__(self, options: PatchOptions) -> None:
        super().__init__()
        self.proj = nn.Conv2d(options.channels, options.embedding, options.patch, stride=options.patch)
        fan_in = options.channels * options.patch**2
        nn.init.trunc_normal_(self.proj.weight, std=math.sqrt(1 / fan_in) / 0.87962566103423978)
        assert self.proj.bias is not None
        nn.init.zeros_(self.proj.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, E, gy, gx)."""
        out: Tensor = self.proj(repeated(x, self.proj.in_channels))
        return out


def repeated(x: Tensor, channels: int) -> Tensor:
    """Return an image of one channel as one of ``channels``, and any other as it is."""
    return x.expand(-1, channels, -1, -1) if x.shape[1] == 1 else x


def accepted_channels(in_channels: int, options: PatchOptions) -> tuple[int, ...]:
    """Return the channels that an image may have: one, which is repeated, or those of the encoder.

    Raises
    ------
    InputError
        If the network is asked for with others.
    """
    if in_channels not in (1, options.channels):
        raise InputError(
            f"in_channels={in_channels} does not fit an encoder of {options.channels} channels; "
            f"use 1 or {options.channels}, or set channels={in_channels}"
        )
    return tuple(sorted({1, options.channels}))


def check_widths(widths: Widths, patch: int) -> None:
    """Check that a decoder doubles from patches to pixels.

    Raises
    ------
    InputError
        If the patch is no power of two above 2, or there is not one width for each stride from it down to 1.
    """
    levels = patch.bit_length() - 1
    if patch < 4 or patch != 2**levels:
        raise InputError(f"patch={patch} cannot be doubled to from single pixels; use 4, 8, 16 or 32")
    if len(widths) != levels + 1:
        raise InputError(f"widths={widths} do not fit the strides; give {levels + 1}, from stride {patch} to 1")


def skip_widths(widths: Widths, skip_channels: SkipChannels) -> tuple[int, ...]:
    """Return how many channels of the doubled tokens the decoder sees, from half the patch's stride to stride 1."""
    check_choice("skip_channels", skip_channels, SkipChannels)
    return widths[:-1] if skip_channels == "all" else (*widths[1:-1], widths[-2])


class PatchUNet(nn.Module):
    """A U-Net decoder on an encoder of patches: (B, C, Y, X) to logits (B, out_channels, Y, X).

    Parameters
    ----------
    options
        Of the encoder.
    modules
        The encoder, and what makes the skips, by the names that checkpoints have them.
    accepted
        Channels that an image may have.
    out_channels
        Channels of the prediction.
    widths
        Channels of the decoder at strides from ``options.patch`` to 1, halved each time.
    sides
        Channels of the skips that the decoder sees, at the strides of ``widths`` but the first; of those that have
        more, the central ones.
    upsampling
        How the decoder doubles maps.

    Attributes
    ----------
    divisor
        Multiple that Y and X must have; 1 where images are padded to the canvas.
    canvas
        Pixels along Y and X that every image is padded to; none: it is not padded. A smaller image costs as much as
        one of this size, and a larger one is refused or stretched.
    encoder_options
        Class of ``options``, whose fields a network takes as keyword arguments.
    """

    encoder_options: ClassVar[type[PatchOptions]]

    def __init__(
        self,
        options: PatchOptions,
        modules: Mapping[str, nn.Module],
        accepted: tuple[int, ...],
        out_channels: int,
        widths: Widths,
        sides: tuple[int, ...],
        upsampling: Upsampling,
    ) -> None:
        super().__init__()
        self._accepted, self._sides = accepted, sides[:-1]
        self.divisor = 1 if options.pad_to_canvas else options.patch
        self.canvas = options.canvas if options.pad_to_canvas else None
        self.above_canvas = options.above_canvas
        for name, module in modules.items():
            self.add_module(name, module)
        self.base = ConvBlock(options.embedding, widths[0])
        self.decoder = Decoder(widths[:-1], sides[:-1], upsampling)
        self.deconv_out = upsampler(upsampling, *widths[-2:])
        self.decoder_head = ConvBlock(widths[-1] + sides[-1], widths[-1])
        self.out_conv = nn.Conv2d(widths[-1], out_channels, 1)

    def encode(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return the encoded patches (B, E, Y / patch, X / patch), and the skips, coarsest first."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, out_channels, Y, X).

        Raises
        ------
        InputError
            If the image has another number of channels, Y or X is no multiple of `divisor`, or it exceeds the canvas
            and is not to be stretched.
        """
        check_image(x, self._accepted, self.divisor)
        size = x.shape[-2:]
        tokens, (*coarse, fine) = self.encode(arranged(self._pad(x)))
        # The reference cuts its skips to the shape of the decoder's map along every axis, channels included: of a skip
        # with twice the channels the central half takes part. With `skip_channels` "all" there is nothing to cut.
        coarse = [_central(m, channels) for m, channels in zip(coarse, self._sides, strict=True)]
        decoded = self.deconv_out(self.decoder(self.base(tokens), coarse))
        logits: Tensor = self.out_conv(self.decoder_head(decoded, fine))
        logits = logits[..., : size[0], : size[1]]
        return logits if logits.shape[-2:] == size else _stretched(logits, size)

    def _pad(self, x: Tensor) -> Tensor:
        if self.canvas is None:
            return x
        missing = [self.canvas - s for s in x.shape[-2:]]
        if min(missing) < 0:
            problem = (
                f"image of {x.shape[-2]} x {x.shape[-1]} pixels exceeds the canvas of {self.canvas} that these "
                "weights were trained for"
            )
            if self.above_canvas == "refuse":
                raise InputError(f"{problem}; predict it in tiles of at most that size")
            warnings.warn(
                f"{problem}, and is cut to it and the prediction stretched (above_canvas='stretch'); "
                "predict it in tiles of at most that size",
                stacklevel=2,
            )
        return F.pad(x, (0, missing[1], 0, missing[0]))


def _central(x: Tensor, channels: int) -> Tensor:
    """Return the central ``channels`` of (B, C, Y, X)."""
    begin = (x.shape[1] - channels) // 2
    return x[:, begin : begin + channels]


def _stretched(logits: Tensor, size: torch.Size) -> Tensor:
    """Stretch (B, C, Y, X) to another size: the reference interpolates probabilities."""
    stretched = F.interpolate(logits.float().sigmoid(), size, mode="bilinear", align_corners=False)
    return torch.logit(stretched, eps=1e-7).to(logits.dtype)
