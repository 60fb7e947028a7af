"""The selective scan on a CUDA device, by the kernels of ``mamba-ssm`` where it is installed."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from vimvol.models.scan.direction import Direction

MOST_STATES = 256
"""States a channel that the kernels can hold."""


def takes(directions: Sequence[Direction], _soft: bool, want_last: bool) -> bool:
    """Tell whether the kernels can compute this; they have no gradient of the last state, and no float64."""
    for way in directions:
        if way.u.device.type != "cuda" or torch.float64 in (way.u.dtype, way.delta.dtype, way.A.dtype):
            return False
        if way.u.numel() == 0 or not 0 < way.A.shape[1] <= MOST_STATES:
            return False
    return not (want_last and torch.is_grad_enabled()) and kernel() is not None


@functools.cache
def kernel() -> Callable[..., Any] | None:
    """Return ``selective_scan_fn`` of ``mamba-ssm``; none where it is missing, or was built without its kernels."""
    try:
        from mamba_ssm.ops.selective_scan_interface import selective_scan_fn
    except ImportError:
        return None
    found: Callable[..., Any] = selective_scan_fn
    return found


def scan(directions: Sequence[Direction], soft: bool) -> list[tuple[Tensor, Tensor]]:
    """Return y (B, L, D) and the last state (B, D, N) of every direction; states are float32 inside."""
    return [_one(way, soft) for way in directions]


def _one(way: Direction, soft: bool) -> tuple[Tensor, Tensor]:
    function = kernel()
    assert function is not None, "asked for without `takes`"
    kind = functools.reduce(torch.promote_types, (t.dtype for t in (way.u, way.delta, way.B, way.C)))
    # The kernels want positions innermost, sequences of one dtype and parameters in float32.
    u, delta, b, c = (
        (t.flip(1) if way.reverse else t).to(kind).transpose(1, 2).contiguous()
        for t in (way.u, way.delta, way.B, way.C)
    )
    a, d, bias = (None if t is None else t.float().contiguous() for t in (way.A, way.D, way.delta_bias))
    y, last = function(u, delta, a, b, c, d, None, bias, soft, True)
    y = y.transpose(1, 2)
    return y.flip(1) if way.reverse else y, last
