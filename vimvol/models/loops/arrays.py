"""Tensors as compiled loops take them: on a CPU, float32, or bfloat16 as int16 bits."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from vimvol.models.loops.workers import Task


def takes(*tensors: Tensor) -> bool:
    """Tell whether tensors are on a CPU, of one dtype that loops take, and not empty."""
    kind = tensors[0].dtype
    return kind in (torch.float32, torch.bfloat16) and all(
        t.device.type == "cpu" and t.dtype == kind and t.numel() > 0 for t in tensors
    )


def array(x: Tensor) -> Any:  # noqa: ANN401 - an array of float32, or of bits
    """View a tensor in the order of its axes; one whose memory is in another order is copied."""
    x = x.detach().contiguous()
    return (x if x.dtype == torch.float32 else x.view(torch.int16)).numpy()


def pixels(x: Tensor) -> Any:  # noqa: ANN401 - an array of float32, or of bits
    """View a map (B, C, Y, X) in channels_last layout as (B, Y, X, C)."""
    return array(x.permute(0, 2, 3, 1))


def empty(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return a tensor to be filled, on the CPU whatever PyTorch's default device and dtype are."""
    return torch.empty(shape, dtype=dtype, device="cpu")


def empty_map(like: Tensor, channels: int, height: int, width: int) -> Tensor:
    """Return a map to be filled (B, channels, height, width) in channels_last layout, of the dtype of ``like``."""
    shape = (len(like), channels, height, width)
    return torch.empty(shape, dtype=like.dtype, device="cpu", memory_format=torch.channels_last)


def tasks(
    kernel: Callable[..., object],
    inputs: Sequence[Any],
    fixed: Sequence[Any],
    outs: Sequence[Any],
    cut: Sequence[tuple[int, int]],
) -> list[Task]:
    """Return the calls of a loop for every image and span of rows.

    Each is given the image's part of all inputs, what is fixed, begin and end of the span, and its part of all outputs.
    """
    return [
        functools.partial(kernel, *(a[image] for a in inputs), *fixed, *span, *(out[image] for out in outs))
        for image in range(len(outs[0]))
        for span in cut
    ]


def spans(count: int, parts: int) -> list[tuple[int, int]]:
    """Cut ``count`` rows into as many parts, or fewer where there are not as many rows, of about one length."""
    parts = min(count, parts)
    return list(itertools.pairwise(count * i // parts for i in range(parts + 1)))
