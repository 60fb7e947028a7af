"""UNETR: a U-Net decoder on a vision transformer (Hatamizadeh et al., WACV 2022), here on Segment Anything's."""

from __future__ import annotations

from torch import Tensor, nn

from vimvol.errors import InputError
from vimvol.models.blocks import ConvBlock, Deconv, Upsampling
from vimvol.models.patches import (
    WIDTHS,
    PatchUNet,
    SkipChannels,
    Widths,
    accepted_channels,
    check_widths,
    repeated,
    skip_widths,
)
from vimvol.models.vit import Vit, VitOptions


class UNETR(PatchUNet):
    """UNETR: (B, in_channels, Y, X) to logits (B, out_channels, Y, X).

    The decoder sees the last tokens, the image, and the tokens of the first three global blocks, which are doubled
    three times, twice and once: the deeper, the coarser.

    Parameters
    ----------
    in_channels, out_channels
        Channels of the image, and of the prediction.
    skip_channels
        Which channels of the skips at strides 8, 4 and 2 the decoder sees: ``all``, or the ``central`` ones alone,
        which the reference does and the paper's numbers of parameters hold.
    widths
        Channels of the decoder at strides 16, 8, 4, 2, 1.
    upsampling
        How the decoder doubles maps.
    deconv_upsampling
        How the skips double them; none: as the decoder.
    **encoder
        Fields of `vimvol.models.vit.VitOptions`.
    """

    encoder_options = VitOptions

    def __init__(
        self,
        in_channels: int = 1,
        out_channels: int = 1,
        *,
        skip_channels: SkipChannels = "all",
        widths: Widths = WIDTHS,
        upsampling: Upsampling = "transpose",
        deconv_upsampling: Upsampling | None = None,
        **encoder: object,
    ) -> None:
        options = VitOptions(**encoder)  # type: ignore[arg-type]
        accepted = accepted_channels(in_channels, options)
        if options.patch != 16:
            raise InputError(f"patch={options.patch} does not fit the skips, which double three blocks' tokens; use 16")
        check_widths(widths, options.patch)
        kind = deconv_upsampling or upsampling
        at16, at8, at4, at2, _ = widths
        sides = skip_widths(widths, skip_channels)
        modules: dict[str, nn.Module] = {"encoder": Vit(options), "deconv1": Deconv(options.embedding, at16, kind)}
        for number, outputs in ((2, (at16, at8)), (3, (at16, at8, at4))):
            inputs = (options.embedding, *outputs[:-1])
            modules[f"deconv{number}"] = nn.Sequential(
                *(Deconv(i, o, kind) for i, o in zip(inputs, outputs, strict=True))
            )
        modules["deconv4"] = ConvBlock(options.channels, at2)
        super().__init__(options, modules, accepted, out_channels, widths, sides, upsampling)
        self.channels = options.channels

    def encode(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return the encoded patches (B, E, Y / 16, X / 16), and the skips at strides 8, 4, 2, 1."""
        x = repeated(x, self.channels)
        tokens, inner = self.get_submodule("encoder")(x)
        return tokens, [self.get_submodule(f"deconv{n}")(m) for n, m in enumerate([*inner[::-1], x], start=1)]
