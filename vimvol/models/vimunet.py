"""ViM-UNet: a U-Net decoder on a Vision Mamba encoder (Archit & Pape, MIDL 2024)."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from vimvol.errors import InputError
from vimvol.models.blocks import ConvBlock, Deconv, Upsampling, check_choice
from vimvol.models.patches import WIDTHS, PatchUNet, SkipChannels, Widths, accepted_channels, check_widths, skip_widths
from vimvol.models.resize import max_pooled
from vimvol.models.vim import Vim, VimOptions

Skips = Literal["deconv", "stem"]


class ViMUNet(PatchUNet):
    """ViM-UNet: (B, in_channels, Y, X) to logits (B, out_channels, Y, X).

    Parameters
    ----------
    in_channels, out_channels
        Channels of the image, and of the prediction.
    skips
        What the decoder sees beside the tokens: ``deconv``, the encoder's output doubled again and again, as in the
        paper; or ``stem``, maps of a small convolutional network at strides from 1 to half a patch, which keep the
        detail that a patch of 16 pixels loses.
    skip_channels
        Which channels of the ``deconv`` skips the decoder sees: ``all``, or the ``central`` ones alone, which the
        reference does and the paper's numbers of parameters hold. The others then only feed the next doubling.
    widths
        Channels of the decoder at strides from the width of a patch down to 1: 16, 8, 4, 2, 1 unless ``patch`` differs.
    stem_widths
        Channels of the stem at strides from 1 to half a patch: 1, 2, 4, 8.
    upsampling
        How the decoder doubles maps.
    deconv_upsampling
        How the skips double them; none: as the decoder.
    channels
        Of the patch convolution; none: ``in_channels``.
    **encoder
        Other fields of `vimvol.models.vim.VimOptions`.
    """

    encoder_options = VimOptions

    def __init__(
        self,
        in_channels: int = 1,
        out_channels: int = 1,
        *,
        skips: Skips = "deconv",
        skip_channels: SkipChannels = "all",
        widths: Widths = WIDTHS,
        stem_widths: Widths = (16, 32, 48, 64),
        upsampling: Upsampling = "transpose",
        deconv_upsampling: Upsampling | None = None,
        channels: int | None = None,
        **encoder: object,
    ) -> None:
        options = VimOptions(channels=in_channels if channels is None else channels, **encoder)  # type: ignore[arg-type]
        accepted = accepted_channels(in_channels, options)
        check_choice("skips", skips, Skips)
        check_widths(widths, options.patch)
        if skips == "stem" and len(stem_widths) != len(widths) - 1:
            raise InputError(
                f"stem_widths={stem_widths} do not fit the strides; give {len(widths) - 1}, from stride 1 to "
                f"{options.patch // 2}"
            )
        modules: dict[str, nn.Module] = {"encoder": Vim(options)}
        sides = skip_widths(widths, skip_channels)
        if skips == "stem":
            pairs = zip((in_channels, *stem_widths[:-1]), stem_widths, strict=True)
            modules["stem"] = nn.ModuleList(ConvBlock(i, o) for i, o in pairs)
            sides = tuple(stem_widths[::-1])
            accepted = (in_channels,)
        else:
            kind = deconv_upsampling or upsampling
            inputs = (options.embedding, *widths[:-2])
            for number, (i, o) in enumerate(zip(inputs, widths[:-1], strict=True), start=1):
                modules[f"deconv{number}"] = Deconv(i, o, kind)
        super().__init__(options, modules, accepted, out_channels, widths, sides, upsampling)
        self.skips = skips

    def encode(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return the encoded patches (B, E, Y / patch, X / patch), and the skips from half its stride to 1."""
        tokens: Tensor = self.get_submodule("encoder")(x)
        return tokens, self._stem(x) if self.skips == "stem" else self._deconv(tokens)

    def _stem(self, x: Tensor) -> list[Tensor]:
        """Return the stem's maps, coarsest first."""
        maps: list[Tensor] = []
        for block in self.get_submodule("stem").children():
            x = block(max_pooled(x) if maps else x)
            maps.append(x)
        return maps[::-1]

    def _deconv(self, x: Tensor) -> list[Tensor]:
        """Return the doubled tokens, coarsest first."""
        maps = []
        for number in range(1, len(self._sides) + 2):
            x = self.get_submodule(f"deconv{number}")(x)
            maps.append(x)
        return maps
