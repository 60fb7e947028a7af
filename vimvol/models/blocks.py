"""Convolution blocks and upsamplers that the networks share.

Parameters are named as in torch-em, so that its checkpoints load. Axis order (B, C, Y, X) throughout.
"""

from __future__ import annotations

from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vimvol.errors import InputError
from vimvol.models.norm import instance_norm
from vimvol.models.resize import doubled

Upsampling = Literal["transpose", "bilinear"]
"""How a map is doubled in size: by a learned 2 x 2 transposed convolution, or bilinearly."""


def check_choice(option: str, value: object, choices: Any) -> None:  # noqa: ANN401 - a Literal
    """Refuse a value that is none of a ``Literal``'s.

    Raises
    ------
    InputError
        If it is not.
    """
    if value not in get_args(choices):
        raise InputError(f"{option}={value!r} is not known; use {' or '.join(map(repr, get_args(choices)))}")


class ConvBlock(nn.Module):
    """Twice instance norm, 3 x 3 convolution, ReLU: (B, inputs, Y, X) to (B, outputs, Y, X).

    The norm has neither parameters nor running statistics and comes before the convolution.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        # Checkpoints number the norms and activations too.
        self.block = nn.ModuleDict(
            {"1": nn.Conv2d(inputs, outputs, 3, padding=1), "4": nn.Conv2d(outputs, outputs, 3, padding=1)}
        )

    def forward(self, *maps: Tensor) -> Tensor:
        """Return (B, outputs, Y, X), not negative, from maps with ``inputs`` channels in all."""
        for conv in self.block.values():
            maps = (rectified(conv, instance_norm(*maps)),)  # type: ignore[arg-type]
        return maps[0]


def rectified(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """Return the ReLU of a convolution with a bias: (B, inputs, Y, X) to (B, outputs, Y, X).

    Where no gradients are wanted, on a CPU, oneDNN applies it while it still holds the sums, without another pass
    through memory, by the operator that PyTorch's own compiler calls for this. Sums may be rounded in another order.
    """
    half = torch.is_autocast_enabled("cpu")
    kind = torch.get_autocast_dtype("cpu") if half else x.dtype
    fused, given = _fused(kind), (x, conv.weight, conv.bias)
    if fused is None or torch.is_grad_enabled() or any(t is None or not _takes(t, kind, half) for t in given):
        return F.relu_(conv(x))
    values = (t.to(kind) for t in given if t is not None)
    out: Tensor = fused(*values, conv.padding, conv.stride, conv.dilation, conv.groups, "relu", [], "")
    return out


def _takes(x: Tensor, kind: torch.dtype, half: bool) -> bool:
    """Tell whether a convolution would compute with this tensor in this dtype, on a CPU."""
    return x.device.type == "cpu" and (x.dtype == kind or (half and x.dtype == torch.float32))


def _fused(kind: torch.dtype) -> Any:  # noqa: ANN401 - an operator
    """Return oneDNN's convolution with what follows it; none where there is none, or none for this dtype."""
    operators: Any = torch.ops.mkldnn
    if kind not in (torch.float32, torch.bfloat16) or not torch.backends.mkldnn.enabled:
        return None
    if kind == torch.bfloat16:
        known = getattr(operators, "_is_mkldnn_bf16_supported", None)
        if known is None or not known():
            return None
    return getattr(operators, "_convolution_pointwise", None)


class TransposeUp(nn.Module):
    """Double a map by a transposed convolution: (B, inputs, Y, X) to (B, outputs, 2Y, 2X)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.block = nn.ConvTranspose2d(inputs, outputs, 2, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, outputs, 2Y, 2X)."""
        out: Tensor = self.block(x)
        return out


class BilinearUp(nn.Module):
    """Double a map bilinearly and project it: (B, inputs, Y, X) to (B, outputs, 2Y, 2X)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, outputs, 2Y, 2X)."""
        # Interpolation weights sum to one, so it commutes with the 1 x 1 convolution, which costs a quarter on the
        # small map.
        return doubled(self.conv(x))


def upsampler(kind: Upsampling, inputs: int, outputs: int) -> nn.Module:
    """Return the module that doubles a map in this way."""
    check_choice("upsampling", kind, Upsampling)
    return TransposeUp(inputs, outputs) if kind == "transpose" else BilinearUp(inputs, outputs)


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


class Decoder(nn.Module):
    """The way back up of a U-Net.

    Parameters
    ----------
    features
        Channels from the coarsest map on: of the input, then of the result of every level.
    skips
        Channels that are concatenated at every level, coarsest first.
    upsampling
        How maps are doubled.
    """

    def __init__(self, features: tuple[int, ...], skips: tuple[int, ...], upsampling: Upsampling) -> None:
        super().__init__()
        outputs = features[1:]
        self.blocks = nn.ModuleList(ConvBlock(f + s, f) for f, s in zip(outputs, skips, strict=True))
        self.samplers = nn.ModuleList(upsampler(upsampling, i, o) for i, o in zip(features[:-1], outputs, strict=True))

    def forward(self, x: Tensor, skips: list[Tensor]) -> Tensor:
        """Return (B, features[-1], Y, X) at the resolution of the last of ``skips``, which are coarsest first."""
        for sampler, block, skip in zip(self.samplers, self.blocks, skips, strict=True):
            x = block(sampler(x), skip)
        return x
