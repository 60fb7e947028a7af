"""The selective scan on a CUDA device, by the kernels of ``mamba-ssm`` where it is installed."""

from __future__ import annotations

import functools
import logging
import warnings
from collections.abc import Callable, Sequence
from threading import Lock
from typing import Any

import torch
from torch import Tensor

from vimvol.errors import install_text
from vimvol.models.scan.direction import Direction

LOG = logging.getLogger(__name__)

MOST_STATES = 256
"""States a channel that the kernels can hold."""

_loading = Lock()


def takes(directions: Sequence[Direction], _soft: bool, want_last: bool) -> bool:
    """Tell whether the kernels can compute this; they have no gradient of the last state, and no float64."""
    for way in directions:
        kinds = {t.dtype for t in (way.u, way.delta, way.A, way.B, way.C)}
        if way.u.device.type != "cuda" or torch.float64 in kinds:
            return False
        if way.u.numel() == 0 or not 0 < way.A.shape[1] <= MOST_STATES:
            return False
    return not (want_last and torch.is_grad_enabled()) and kernel() is not None


def kernel() -> Callable[..., Any] | None:
    """Return ``selective_scan_fn`` of ``mamba-ssm``; none where it cannot be loaded, of which the first call tells."""
    with _loading:  # filters of warnings are those of the process: two threads would restore each other's
        return _loaded()


@functools.cache
def _loaded() -> Callable[..., Any] | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # First, since without it the interface may load all the same, and fail in every scan.
            import selective_scan_cuda  # noqa: F401
            from mamba_ssm.ops.selective_scan_interface import selective_scan_fn
    except Exception as error:  # it loads Triton and more, which raise whatever they like
        LOG.warning(
            "the selective scan runs in plain PyTorch on the GPU, which is slower: the kernels of mamba-ssm cannot be "
            "loaded (%s: %s); %s",
            type(error).__name__,
            " ".join(str(error).split()),
            install_text("cuda"),
        )
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
