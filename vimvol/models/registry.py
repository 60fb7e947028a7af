"""The networks that can be built by name: one line an entry."""

from __future__ import annotations

import dataclasses
import difflib
import inspect
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from vimvol.config.explain import shown
from vimvol.errors import InputError
from vimvol.models.meta import without_values
from vimvol.models.nnunet import NNUNet
from vimvol.models.umamba import UMamba
from vimvol.models.unet import UNet
from vimvol.models.unetr import UNETR
from vimvol.models.vimunet import ViMUNet


@dataclass(frozen=True)
class Entry:
    """A network that can be built by name.

    Attributes
    ----------
    name
        What it is asked for by.
    build
        Called with ``in_channels``, ``out_channels`` and the options; gives a network that maps (B, in_channels, Y, X)
        to logits (B, out_channels, Y, X) and has an attribute ``divisor``, the multiple that Y and X must have.
    purpose
        What it is for, one line.
    options
        Keyword arguments of ``build`` that make it this network.
    """

    name: str
    build: Callable[..., nn.Module]
    purpose: str
    options: Mapping[str, Any] = field(default_factory=dict)


# Of the skips, the central channels alone: the paper's numbers of parameters hold this.
CUT = {"channels": 3, "canvas": 1024, "skip_channels": "central"}
PAPER: dict[str, Any] = CUT | {"depth": 24, "state": 16, "head": True}
SAM: dict[str, Any] = CUT | {"window": 14, "neck": True}
SAM_BASE = SAM | {"embedding": 768, "depth": 12, "heads": 12}
SAM_LARGE = SAM | {"embedding": 1024, "depth": 24, "heads": 16}
SAM_HUGE = SAM | {"embedding": 1280, "depth": 32, "heads": 16}
NANO: dict[str, Any] = {
    "skips": "stem",
    "embedding": 96,
    "depth": 8,
    "state": 8,
    "canvas": 256,
    "class_token": "none",
    "drop_path": 0.0,
    "head": False,
    "widths": (128, 96, 48, 32, 16),
    "stem_widths": (16, 32, 48, 64),
    "upsampling": "bilinear",
}

MODELS: dict[str, Entry] = {
    e.name: e
    for e in (
        Entry("vimunet-nano", ViMUNet, "the default: small, for a CPU or a fast run", NANO),
        Entry("vimunet-tiny", ViMUNet, "the paper's ViM-UNet Tiny; its checkpoints load", PAPER | {"embedding": 192}),
        Entry("vimunet-small", ViMUNet, "the paper's ViM-UNet Small; its checkpoints load", PAPER | {"embedding": 384}),
        Entry("unetr-base", UNETR, "the paper's UNETR Base; its and Segment Anything's checkpoints load", SAM_BASE),
        Entry("unetr-large", UNETR, "the paper's UNETR Large; its and Segment Anything's checkpoints load", SAM_LARGE),
        Entry("unetr-huge", UNETR, "the paper's UNETR Huge; its and Segment Anything's checkpoints load", SAM_HUGE),
        Entry("unet-nano", UNet, "a U-Net of the size of vimunet-nano, to compare with", {"features": 16}),
        Entry("unet", UNet, "the paper's U-Net baseline; torch-em's checkpoints load", {"features": 64}),
        Entry("nnunet", NNUNet, "nnU-Net's 2D network as it plans it for patches of 512 x 512"),
        Entry("umamba-bot", UMamba, "U-Mamba with a Mamba block at the bottleneck", {"mamba": "bottleneck"}),
        Entry("umamba-enc", UMamba, "U-Mamba with Mamba blocks in the encoder", {"mamba": "encoder"}),
    )
}


def build_model(name: str, *, in_channels: int = 1, out_channels: int = 1, **options: Any) -> nn.Module:  # noqa: ANN401
    """Return a freshly initialised network.

    Parameters
    ----------
    name
        Key of `MODELS`.
    in_channels, out_channels
        Channels of the image, and of the prediction.
    **options
        Replace options of the entry.

    Raises
    ------
    InputError
        If there is no such network or option, or an option or a number of channels does not fit.
    """
    if name not in MODELS:
        close = difflib.get_close_matches(name, MODELS, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise InputError(f"no network is called {name!r}; {hint}there are {', '.join(MODELS)}")
    if min(in_channels, out_channels) < 1:
        raise InputError(f"network {name} cannot have {in_channels} channels in and {out_channels} out; give 1 or more")
    entry = MODELS[name]
    valid = list(default_options(name))
    unknown = next((o for o in options if o not in valid), None)
    if unknown is not None:
        raise InputError(f"network {name} has no option {unknown!r}; it has {', '.join(valid)}")
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Initializing zero-element tensors")  # refused below
            model = entry.build(in_channels=in_channels, out_channels=out_channels, **{**entry.options, **options})
        empty = next((name for name, weight in model.named_parameters() if not weight.numel()), None)
        if empty is not None:  # which would fail with the first image
            raise ValueError(f"nothing would be left of its {empty}")
        return model
    except (TypeError, ValueError, ArithmeticError, IndexError, AssertionError, RuntimeError) as error:
        if not options:
            raise
        given = ", ".join(f"{key} = {shown(value)}" for key, value in options.items())
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise InputError(f"network {name} cannot be built with {given} ({reason}); give other options") from None


def count_parameters(name: str, *, in_channels: int = 1, out_channels: int = 1, **options: Any) -> int:  # noqa: ANN401
    """Return how many trainable values a network has; takes no memory for them. Arguments as `build_model`."""
    with without_values():
        model = build_model(name, in_channels=in_channels, out_channels=out_channels, **options)
    return sum(p.numel() for p in model.parameters())


def default_options(name: str) -> dict[str, Any]:
    """Return every option of a network, and of its encoder, with the value that it has where none is given."""
    entry = MODELS[name]
    encoder = getattr(entry.build, "encoder_options", None)
    fields = {} if encoder is None else {f.name: f.default for f in dataclasses.fields(encoder)}
    parameters = inspect.signature(entry.build).parameters.values()
    own = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}
    return {**own, **{k: v for k, v in fields.items() if k not in own}, **entry.options}
