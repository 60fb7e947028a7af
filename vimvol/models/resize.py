"""Maps halved and doubled in size: (B, C, Y, X). On a CPU, without gradients, by loops that are compiled for them."""

from __future__ import annotations

import functools
import itertools
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from vimvol.models.loops import load, workers

TASK = 1 << 17
"""Values of the result that a task writes."""


def halved(x: Tensor) -> Tensor:
    """Return the most of each 2 x 2 pixels: (B, C, 2Y, 2X) to (B, C, Y, X)."""
    if not suits(x) or x.shape[2] % 2 or x.shape[3] % 2:
        return F.max_pool2d(x, 2)
    loops: Any = load("resize")
    out = _empty(x, x.shape[2] // 2, x.shape[3] // 2)
    _run(lambda source, target, begin, end: loops.halve(source, begin, end, target), x, out)
    return out


def doubled(x: Tensor) -> Tensor:
    """Return a map interpolated bilinearly: (B, C, Y, X) to (B, C, 2Y, 2X)."""
    if not suits(x):
        return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
    loops: Any = load("resize")
    out = _empty(x, 2 * x.shape[2], 2 * x.shape[3])

    def write(source: Any, target: Any, begin: int, end: int) -> None:  # noqa: ANN401 - arrays
        loops.double(source, begin, end, torch.empty(source.shape[1] * source.shape[2]).numpy(), target)

    _run(write, x, out)
    return out


def suits(x: Tensor) -> bool:
    """Tell whether the compiled loops take this map: they have no gradients, and vectors of channels."""
    if x.device.type != "cpu" or x.dtype not in (torch.float32, torch.bfloat16) or torch.is_grad_enabled():
        return False
    if not x.numel() or not x.is_contiguous(memory_format=torch.channels_last):
        return False
    loops: Any = load("resize")
    return loops is not None and x.shape[1] % loops.LANES == 0


def _run(write: Any, x: Tensor, out: Tensor) -> None:  # noqa: ANN401 - a function
    """Write all rows of all images of a result, some rows a task."""
    rows = out.shape[2]
    parts = min(rows, -(-out[0].numel() // TASK))
    edges = [rows * i // parts for i in range(parts + 1)]
    workers.run(
        [
            functools.partial(write, source, target, *span)
            for source, target in zip(_pixels(x), _pixels(out), strict=True)
            for span in itertools.pairwise(edges)
        ]
    )


def _empty(like: Tensor, height: int, width: int) -> Tensor:
    shape = (*like.shape[:2], height, width)
    return torch.empty(shape, dtype=like.dtype, memory_format=torch.channels_last)


def _pixels(x: Tensor) -> Any:  # noqa: ANN401 - an array of float32, or of bits
    """View a map in channels_last layout as (B, Y, X, C)."""
    pixels = x.detach().permute(0, 2, 3, 1)
    return (pixels if x.dtype == torch.float32 else pixels.view(torch.int16)).numpy()
