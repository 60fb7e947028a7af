"""Instance norm (Ulyanov et al., 2016), of several maps that go on as one, or with what follows it.

Axis order (B, C, Y, X). On a CPU maps lie with their channels innermost (``torch.channels_last``), in which
convolutions are fastest, and the norm is compiled for it.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from vimvol.models.loops import load, workers
from vimvol.models.loops.arrays import array, empty, empty_map, pixels, spans, takes, tasks

EPSILON = 1e-5
"""Added to the variance."""

SHARED, TASK = 1 << 16, 1 << 18
"""Values of a map from which on there are two tasks or more, and of a task. Sums are taken by tasks, whose number does
not depend on that of threads, so that no thread changes a result."""

FOLD = 64
"""Fewer channels than this are summed as several pixels side by side, to fill the registers."""


def instance_norm(*maps: Tensor) -> Tensor:
    """Bring every channel of every image to mean 0 and variance 1.

    Parameters
    ----------
    *maps
        (B, C_i, Y, X), of one dtype.

    Returns
    -------
    Tensor
        (B, sum of C_i, Y, X), the maps one after the other.
    """
    if len(maps) > 1 and not (len(maps) == 2 and _suits(*maps)):
        maps = (torch.cat(maps, 1),)
    if _suits(*maps):
        out: Tensor = _InstanceNorm.apply(*(m.contiguous(memory_format=torch.channels_last) for m in maps))  # type: ignore[no-untyped-call]
        return out
    return F.instance_norm(maps[0], eps=EPSILON)


class InstanceNorm(nn.Module):
    """Instance norm, a scale and a shift of every channel, and a leaky ReLU: (B, C, Y, X) to (B, C, Y, X).

    Parameters
    ----------
    channels
        C.
    slope
        Of the leaky ReLU below 0, at most 1; 1: there is none.
    """

    def __init__(self, channels: int, slope: float = 1.0) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))
        self.slope = slope

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, C, Y, X), of the dtype of ``x``."""
        weight, bias = self.weight, self.bias
        if not _suits(x):
            y = F.instance_norm(x, weight=weight, bias=bias, eps=EPSILON)
        elif torch.is_grad_enabled():
            y = torch.addcmul(bias.to(x.dtype)[:, None, None], instance_norm(x), weight.to(x.dtype)[:, None, None])
        else:
            x = x.contiguous(memory_format=torch.channels_last)
            return _scaled([x], [_statistics(x, weight, bias)], self.slope)
        return y if self.slope == 1 else F.leaky_relu_(y, self.slope)


def arranged(x: Tensor) -> Tensor:
    """Return an image in the layout that the network after it is fastest in."""
    if not _suits(x):
        return x
    # A single channel fits both layouts; only strides that are made this way tell a convolution which to go on with.
    return x.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)


def _suits(*maps: Tensor) -> bool:
    """Tell whether the compiled norm takes these maps."""
    alike = len({(len(m), *m.shape[2:]) for m in maps}) == 1
    return alike and takes(*maps) and maps[0].shape[-1] * maps[0].shape[-2] > 1 and load("norm") is not None


class _InstanceNorm(torch.autograd.Function):
    """The compiled norm of maps in channels_last layout."""

    @staticmethod
    def forward(ctx: Any, *maps: Tensor) -> Tensor:  # noqa: ANN401 - torch's context
        vectors = [_statistics(m) for m in maps]
        out = _scaled(maps, vectors)
        if any(ctx.needs_input_grad):
            ctx.save_for_backward(
                out, torch.cat([v[:, 1, : m.shape[1]] for v, m in zip(vectors, maps, strict=True)], 1)
            )
            ctx.widths = [m.shape[1] for m in maps]
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:  # noqa: ANN401
        loops: Any = load("norm")
        y, factor = ctx.saved_tensors
        batch, channels, height, width = y.shape
        pixels = height * width
        grad = grad.to(y.dtype).contiguous(memory_format=torch.channels_last)
        fold = _fold(channels, pixels)
        pairs = zip(_rows(grad, fold), _rows(y, fold), strict=True)
        sums = _sums(loops.gradient_moments, list(pairs), 2).sum(1).view(batch, 2, fold, channels).sum(2) / pixels
        mean, slope = (s.float() for s in sums.unbind(1))
        found, at, queue = [], 0, []
        fold = fold if len(ctx.widths) == 1 else 1
        wide = [v.repeat(1, fold) for v in (factor, mean, slope)]
        for count in ctx.widths:
            found.append(empty_map(y, count, height, width))
            for image in range(batch):
                given = _rows(grad, fold)[image], _rows(y, fold)[image]
                fixed = (*(v[image].numpy() for v in wide), _rows(found[-1], fold)[image], at)
                queue += [functools.partial(loops.gradient, *given, *span, *fixed) for span in _spans(*given[1].shape)]
            at += fold * count
        workers.run(queue)
        return tuple(found)


def _scaled(maps: Sequence[Tensor], vectors: Sequence[Tensor], slope: float = 1.0) -> Tensor:
    """Return one map or two, normalised, side by side (B, sum of channels, Y, X).

    ``vectors`` are those of `_statistics`; what is negative is multiplied by ``slope``.
    """
    loops: Any = load("norm")
    out = empty_map(maps[0], sum(m.shape[1] for m in maps), *maps[0].shape[2:])
    # Side by side with another map, pixels are not next to each other.
    fold = _fold(out.shape[1], out.shape[2] * out.shape[3]) if len(maps) == 1 else 1
    whole = _rows(out, fold)
    given = [a for x, found in zip(maps, vectors, strict=True) for a in (_rows(x, fold), found.numpy())]
    kernel = loops.scale if len(maps) == 1 else loops.scale_two
    workers.run(tasks(kernel, given, (np.float32(slope),), [whole], _spans(*whole.shape[1:])))
    return out


def _statistics(x: Tensor, weight: Tensor | None = None, bias: Tensor | None = None) -> Tensor:
    """Return mean, factor and shift (B, 3, F * C) float32 by which a map is normalised, F times (see `_fold`).

    The factor is scaled by ``weight`` and ``bias`` is added to the shift; (C,) each.
    """
    loops: Any = load("norm")
    rows, channels = _rows(x, _fold(x.shape[1], x.shape[2] * x.shape[3])), x.shape[1]
    sums = _sums(loops.moments, [(image,) for image in rows], 3).numpy()
    scale = np.ones(channels, np.float32) if weight is None else array(weight.detach().float())
    shift = np.zeros(channels, np.float32) if bias is None else array(bias.detach().float())
    found = empty(len(x), 3, rows.shape[2])
    for image, given in enumerate(rows):
        loops.finish(given, sums[image], scale, shift, np.float32(EPSILON), found[image].numpy())
    return found


def _sums(loop: Any, arrays: list[tuple[Any, ...]], scratch: int) -> Tensor:  # noqa: ANN401 - a compiled loop
    """Sum rows of every image by tasks; return (B, tasks, 2, channels) float64."""
    rows, channels = arrays[0][0].shape
    cut = _spans(rows, channels)
    parts = empty(len(arrays), len(cut), 2, channels, dtype=torch.float64)
    work, found = empty(len(arrays), len(cut), scratch, channels).numpy(), parts.numpy()
    workers.run(
        [
            functools.partial(loop, *given, *span, work[i, j], found[i, j])
            for i, given in enumerate(arrays)
            for j, span in enumerate(cut)
        ]
    )
    return parts


def _fold(channels: int, pixels: int) -> int:
    """Return how many pixels are taken side by side."""
    fold = 1
    while fold * channels < FOLD and pixels % (2 * fold) == 0:
        fold *= 2
    return fold


def _spans(pixels: int, channels: int) -> list[tuple[int, int]]:
    """Cut rows into tasks of one size."""
    values = pixels * channels
    return spans(pixels, 1 if values < SHARED else 2 * -(-values // (2 * TASK)))


def _rows(x: Tensor, fold: int = 1) -> Any:  # noqa: ANN401 - an array of float32, or of bits
    """View a map in channels_last layout as (B, pixels / fold, fold * channels)."""
    return pixels(x).reshape(len(x), -1, fold * x.shape[1])
