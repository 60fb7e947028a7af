"""Which network a torch-em checkpoint belongs to, told from the names and shapes of its entries.

Three layouts of ViM-UNet and UNETR exist: every map doubled by transposed convolution (the default until June 2025),
every map doubled bilinearly (the default since), and a mixture where only the skips are transposed. The kind of each is
read off its name. Rotary frequencies in a file mark the generation of ViM-UNet that the paper used, which computes
another function. A file of Segment Anything holds, among much else, the encoder of a UNETR.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from vimvol.errors import CheckpointError
from vimvol.models.spec import ModelSpec

ROPE = "encoder.rope."
SAM = "image_encoder."
PATCH = "encoder.patch_embed.proj.weight"
WRAPPERS = ("module.", "_orig_mod.")
"""Prefixes that torch's data parallelism and compiler put before every name."""


def state_dict_in(content: object, where: str) -> dict[str, Tensor]:
    """Return the weights in what a PyTorch file held: a trainer's checkpoint or the bare names and tensors.

    Raises
    ------
    CheckpointError
        If there are none.
    """
    if isinstance(content, Mapping) and "pytorch-lightning_version" in content:
        raise CheckpointError(
            f"{where} is what a training goes on from, and no weights to use; give those that `vimvol train` writes "
            "beside it at the end, MODEL.safetensors"
        )
    state = content.get("model_state", content) if isinstance(content, Mapping) else None
    if not isinstance(state, Mapping) or not state or not all(isinstance(v, Tensor) for v in state.values()):
        held = (
            f"keys {', '.join(map(repr, list(content)[:4]))}"
            if isinstance(content, Mapping)
            else type(content).__name__
        )
        raise CheckpointError(f"{where} holds no weights ({held}); give a file with 'model_state' or a bare state_dict")
    for prefix in WRAPPERS:
        if all(k.startswith(prefix) for k in state):
            state = {k.removeprefix(prefix): v for k, v in state.items()}
    return dict(state)


def infer_spec(state: dict[str, Tensor], where: str) -> tuple[ModelSpec, dict[str, Tensor]]:
    """Return what network the weights are for, and the weights without what is computed or not used.

    Raises
    ------
    CheckpointError
        If no network of ours has such names.
    """
    if any(k.startswith(SAM) for k in state):
        return _segment_anything(
            {k.replace(SAM, "encoder.", 1): v for k, v in state.items() if k.startswith(SAM)}, where
        )
    if PATCH in state and "encoder.blocks.0.attn.qkv.weight" in state:
        spec = _unetr(state, where)
    elif PATCH in state and "encoder.layers.0.mixer.A_b_log" in state:
        spec = _vimunet(state, where)
    elif "encoder.blocks.0.block.1.weight" in state and "base.block.1.weight" in state:
        spec = _unet(state, where)
    else:
        raise CheckpointError(
            f"{where} has weights of another architecture (first entry {next(iter(state))!r}); "
            "ViM-UNet, UNETR and UNet2d of torch-em, Segment Anything's and this package's own files can be read"
        )
    return spec, {k: v for k, v in state.items() if not k.startswith(ROPE)}


def encoder_alone(state: Mapping[str, Tensor]) -> bool:
    """Tell whether weights are those of an encoder, without what makes a prediction of it."""
    return all(k.startswith("encoder.") for k in state)


def _vimunet(state: Mapping[str, Tensor], where: str) -> ModelSpec:
    width, channels = _shape(state, PATCH, where)[:2]
    name = {192: "vimunet-tiny", 384: "vimunet-small"}.get(width)
    if name is None:
        raise CheckpointError(f"{where} is a ViM-UNet of width {width}; this package knows 192 (tiny) and 384 (small)")
    paper = any(k.startswith(ROPE) for k in state)
    rows = _shape(state, "encoder.pos_embed", where)[1]
    options: dict[str, Any] = {
        "depth": _count(state, r"encoder\.layers\.(\d+)\."),
        "state": _shape(state, "encoder.layers.0.mixer.A_log", where)[1],
        "channels": channels,
        "canvas": math.isqrt(rows - 1) * 16,
        "pad_to_canvas": True,
        "above_canvas": "stretch",
        "class_token": "first" if paper else "middle",
        "drop": "first",
        "skip_channels": "central",
        "backward_step": "zero",
        "divide": not paper,
        "rope": paper,
        "head": "encoder.head.weight" in state,
        **_doubling(state),
    }
    return _spec(name, options, state, 1, where)


def _unetr(state: Mapping[str, Tensor], where: str) -> ModelSpec:
    name, options = _vit(state, where)
    return _spec(
        name, {**options, "pad_to_canvas": True, "skip_channels": "central", **_doubling(state)}, state, 1, where
    )


def _segment_anything(encoder: dict[str, Tensor], where: str) -> tuple[ModelSpec, dict[str, Tensor]]:
    name, options = _vit(encoder, where)
    return ModelSpec(name, options, card={"trained": "the encoder alone, by Segment Anything"}), encoder


def _vit(state: Mapping[str, Tensor], where: str) -> tuple[str, dict[str, Any]]:
    """Return the name, and the options that are not the same in every file of this name."""
    width, channels = _shape(state, PATCH, where)[:2]
    name = {768: "unetr-base", 1024: "unetr-large", 1280: "unetr-huge"}.get(width)
    if name is None:
        raise CheckpointError(
            f"{where} has a vision transformer of width {width}; this package knows 768 (base), 1024 (large) and "
            "1280 (huge)"
        )
    canvas = _shape(state, "encoder.pos_embed", where)[1] * 16
    return name, {"channels": channels, "canvas": canvas, "neck": "encoder.neck.0.weight" in state}


def _doubling(state: Mapping[str, Tensor]) -> dict[str, str]:
    return {
        "upsampling": _upsampling(state, "decoder.samplers.0"),
        "deconv_upsampling": _upsampling(state, "deconv1.block.0"),
    }


def _unet(state: Mapping[str, Tensor], where: str) -> ModelSpec:
    features, channels = _shape(state, "encoder.blocks.0.block.1.weight", where)[:2]
    options: dict[str, Any] = {
        "features": features,
        "depth": _count(state, r"encoder\.blocks\.(\d+)\."),
        "upsampling": _upsampling(state, "decoder.samplers.0"),
    }
    return _spec("unet-nano" if features == 16 else "unet", options, state, channels, where)


def _spec(name: str, options: dict[str, Any], state: Mapping[str, Tensor], in_channels: int, where: str) -> ModelSpec:
    """Return the description; torch-em names no classes, and standardises the intensities by default."""
    out = _shape(state, "out_conv.weight", where)[0]
    known = {1: ("boundary",), 2: ("foreground", "boundary")}
    classes = known.get(out, tuple(f"channel-{i}" for i in range(out)))
    return ModelSpec(name, options, in_channels, out, classes)


def _upsampling(state: Mapping[str, Tensor], key: str) -> str:
    return "transpose" if f"{key}.block.weight" in state else "bilinear"


def _count(state: Mapping[str, Tensor], pattern: str) -> int:
    return 1 + max(int(m.group(1)) for k in state if (m := re.match(pattern, k)))


def _shape(state: Mapping[str, Tensor], key: str, where: str) -> tuple[int, ...]:
    if key not in state:
        raise CheckpointError(f"{where} lacks the entry {key!r}; it is damaged or of another architecture")
    if state[key].ndim < 2:  # every entry that is looked at has as many axes
        raise CheckpointError(f"{where} has {key} of shape {tuple(state[key].shape)}; it is of another architecture")
    return tuple(state[key].shape)
