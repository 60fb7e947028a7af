"""The selective scan on a CPU: compiled kernels, with gradients."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from vimvol.models.loops import load, workers
from vimvol.models.scan.direction import Direction

ARRAYS = 7
"""Tensors of a direction."""


def takes(directions: Sequence[Direction], soft: bool, _want_last: bool) -> bool:
    """Tell whether the kernels can compute this: on a CPU, not in float64, and with states that decay."""
    for way in directions:
        if way.u.device.type != "cpu" or torch.float64 in (way.u.dtype, way.delta.dtype, way.A.dtype):
            return False
        if way.u.numel() == 0 or way.A.numel() == 0 or bool((way.A > 0).any()):
            return False
        if not soft and (way.delta_bias is not None or bool((way.delta < 0).any())):
            return False
    return load("scan") is not None


def scan(directions: Sequence[Direction], soft: bool) -> list[tuple[Tensor, Tensor]]:
    """Return y (B, L, D) and the last state (B, D, N) of every direction, float32; all in one call."""
    ways, reverse = [_arrays(way) for way in directions], tuple(way.reverse for way in directions)
    if not torch.is_grad_enabled():
        return [(y, last) for y, last, _ in _forward(ways, reverse, soft, keep=False)]
    results = _Scan.apply(soft, reverse, *itertools.chain(*ways))  # type: ignore[no-untyped-call]
    return list(zip(results[::2], results[1::2], strict=True))


def _arrays(way: Direction) -> list[Tensor]:
    nothing = way.A.new_zeros(len(way.A))
    d = nothing if way.D is None else way.D
    bias = nothing if way.delta_bias is None else way.delta_bias
    return [t.to(torch.float32).contiguous() for t in (way.u, way.delta, way.A, way.B, way.C, d, bias)]


class _Scan(torch.autograd.Function):
    """Several scans; for each u, delta (B, L, D), A (D, N), B, C (B, L, N), D, bias (D,) give y and the last state."""

    @staticmethod
    def forward(ctx: Any, soft: bool, reverse: tuple[bool, ...], *flat: Tensor) -> tuple[Tensor, ...]:  # noqa: ANN401
        found = _forward(_grouped(flat), reverse, soft, keep=any(ctx.needs_input_grad))
        kept = [states for _, _, states in found]
        ctx.save_for_backward(*flat, *kept)
        ctx.soft, ctx.reverse = soft, reverse
        return tuple(tensor for y, last, _ in found for tensor in (y, last))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        module = load("gradients")
        assert module is not None, "asked for without `takes`"
        count = len(ctx.reverse)
        ways, kept = _grouped(ctx.saved_tensors[: ARRAYS * count]), ctx.saved_tensors[ARRAYS * count :]
        found: list[list[Tensor]] = []
        tasks = []
        for number, (arrays, back) in enumerate(zip(ways, ctx.reverse, strict=True)):
            u, delta, a, b, c, d, _bias = arrays
            batch, blocks = len(u), kept[number].shape[1]
            grad_y, grad_last = (g.contiguous() for g in grads[2 * number : 2 * number + 2])
            own = [torch.empty_like(t) for t in (u, delta)]
            own.append(a.new_empty(batch, *a.shape))
            own += [t.new_empty(blocks, *t.shape) for t in (b, c)]
            own += [d.new_empty(batch, len(d)) for _ in range(2)]
            found.append(own)
            tensors = (kept[number], grad_y, grad_last, *own)
            fixed = (*(t.detach().numpy() for t in arrays), ctx.soft, back, *(t.detach().numpy() for t in tensors))
            tasks += _tasks(module, "backward", fixed, count)
        workers.run(tasks)
        flat: list[Tensor] = []
        for grad_u, grad_delta, *summed in found:
            flat += [grad_u, grad_delta, *(t.sum(0) for t in summed)]
        return (None, None, *flat)


def _forward(
    ways: Sequence[Sequence[Tensor]], reverse: Sequence[bool], soft: bool, keep: bool
) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Return y, the last state, and those before every chunk, of which there are none unless they are to be kept."""
    module = load("scan")
    assert module is not None, "asked for without `takes`"
    found, tasks = [], []
    for arrays, back in zip(ways, reverse, strict=True):
        u, a = arrays[0], arrays[2]
        batch, length, channels = u.shape
        blocks, chunks = -(-channels // module.WIDTH), -(-length // module.CHUNK) if keep else 0
        y, last = torch.empty_like(u), u.new_empty(batch, *a.shape)
        found.append((y, last, u.new_empty(batch, blocks, chunks, a.shape[1] * module.WIDTH)))
        fixed = (*(t.detach().numpy() for t in arrays), soft, back, *(t.numpy() for t in found[-1]))
        tasks += _tasks(module, "forward", fixed, len(ways))
    workers.run(tasks)
    return found


def _tasks(module: Any, name: str, fixed: tuple[Any, ...], ways: int) -> list[workers.Task]:  # noqa: ANN401
    """Cut a kernel's work on one of several directions into tasks, enough for all threads.

    A task has a sequence and blocks of channels side by side. The more blocks, the longer the runs of memory that it
    reads; none changes another's result.
    """
    kernel, scratch = getattr(module, name), getattr(module, f"{name}_scratch")
    (batch, _, channels), states = fixed[0].shape, fixed[2].shape[1]
    blocks = -(-channels // module.WIDTH)
    parts = min(blocks, -(-torch.get_num_threads() // (batch * ways)))
    edges = [blocks * i // parts for i in range(parts + 1)]
    return [
        functools.partial(_call, kernel, fixed, scratch(states, end - begin), i, begin, end)
        for i in range(batch)
        for begin, end in itertools.pairwise(edges)
    ]


def _call(kernel: Any, fixed: tuple[Any, ...], scratch: int, *which: int) -> None:  # noqa: ANN401
    # PyTorch aligns what it allocates to 64 bytes, a cache line; NumPy does not.
    kernel(*fixed, torch.empty(scratch, dtype=torch.float32).numpy(), *which)


def _grouped(flat: Sequence[Tensor]) -> list[Sequence[Tensor]]:
    return [flat[i : i + ARRAYS] for i in range(0, len(flat), ARRAYS)]
