"""Maps halved and doubled in size: (B, C, Y, X). On a CPU, without gradients, by loops that are compiled for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from vimvol.models.loops import load, workers
from vimvol.models.loops.arrays import empty, empty_map, pixels, spans, takes, tasks

TASK = 1 << 17
"""Values of the result that a task writes."""


def max_pooled(x: Tensor) -> Tensor:
    """Return the maximum of each 2 x 2 pixels: (B, C, Y, X) to (B, C, Y // 2, X // 2)."""
    if not _suits(x) or x.shape[2] % 2 or x.shape[3] % 2:
        return F.max_pool2d(x, 2)
    out = empty_map(x, x.shape[1], x.shape[2] // 2, x.shape[3] // 2)
    _fill(_loops().halve, x, out)
    return out


def doubled(x: Tensor) -> Tensor:
    """Return a map interpolated bilinearly: (B, C, Y, X) to (B, C, 2Y, 2X)."""
    if not _suits(x):
        return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
    out = empty_map(x, x.shape[1], 2 * x.shape[2], 2 * x.shape[3])

    def double(source: Any, begin: int, end: int, target: Any) -> None:  # noqa: ANN401 - arrays
        _loops().double(source, begin, end, empty(source.shape[1] * source.shape[2]).numpy(), target)

    _fill(double, x, out)
    return out


def _suits(x: Tensor) -> bool:
    """Tell whether the compiled loops take this map: they have no gradients, and vectors of channels."""
    if torch.is_grad_enabled() or not takes(x) or not x.is_contiguous(memory_format=torch.channels_last):
        return False
    return _loops() is not None and x.shape[1] % _loops().LANES == 0


def _loops() -> Any:  # noqa: ANN401 - a compiled module
    return load("resize")


def _fill(loop: Callable[..., None], x: Tensor, out: Tensor) -> None:
    """Write all rows of all images of a result, some rows a task."""
    workers.run(tasks(loop, [pixels(x)], (), [pixels(out)], spans(out.shape[2], -(-out[0].numel() // TASK))))
