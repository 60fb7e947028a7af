"""The selective scan in plain PyTorch, for every device and dtype.

Shapes: B batch, L positions, D channels, N states a channel.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from vimvol.models.scan.direction import Direction

CHUNK_ELEMENTS = 1 << 17
"""Values of one working array of a chunk on a CPU: a handful of these arrays stay in the cache of a core."""

DEVICE_CHUNK_ELEMENTS = 1 << 22
"""The same on any other device, where an operator is a launch: six arrays of 16 MiB in float32, of 32 in float64."""


def takes(_directions: Sequence[Direction], _soft: bool, _want_last: bool) -> bool:
    """Tell that anything can be computed: any device, any floating-point dtype, any sign."""
    return True


def scan(directions: Sequence[Direction], soft: bool) -> list[tuple[Tensor, Tensor]]:
    """Return y (B, L, D) and the last state (B, D, N) of every direction, float32, or float64 where u is."""
    return [_one(way, soft) for way in directions]


def _one(way: Direction, soft: bool) -> tuple[Tensor, Tensor]:
    kind = torch.promote_types(way.u.dtype, torch.float32)
    with as_given(way.u):
        u, step, b, c = (
            (t.flip(1) if way.reverse else t).to(kind).transpose(0, 1) for t in (way.u, way.delta, way.B, way.C)
        )
        if way.delta_bias is not None:
            step = step + way.delta_bias.to(kind)
        if soft:
            step = F.softplus(step)
        inputs = (t.contiguous() for t in (u, step, way.A.to(kind).t(), b, c))
        y, last = _Scan.apply(*inputs)  # type: ignore[no-untyped-call]
        if way.D is not None:
            y = torch.addcmul(y, u, way.D.to(kind))
        y = y.transpose(0, 1)
    return y.flip(1) if way.reverse else y, last.transpose(1, 2)


def as_given(tensor: Tensor) -> AbstractContextManager[None]:
    """Switch autocast off, which would compute products in half precision."""
    kind = tensor.device.type
    return torch.autocast(kind, enabled=False) if torch.amp.is_autocast_available(kind) else nullcontext()


def _chunk(u: Tensor, a: Tensor) -> int:
    """Return how many positions of u (L, B, D) are worked on together, with the states of a (N, D)."""
    elements = CHUNK_ELEMENTS if u.device.type == "cpu" else DEVICE_CHUNK_ELEMENTS
    return max(8, elements // (u.shape[1] * a.numel()))


def _decay_and_input(u: Tensor, delta: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Return what multiplies the state and what is added to it, each (l, B, N, D)."""
    decay = (delta[:, :, None, :] * a).exp_()
    return decay, (delta * u)[:, :, None, :] * b[..., None]


class _Scan(torch.autograd.Function):
    """The bare recurrence; keeps one state a chunk and recomputes the others backwards.

    u, delta (L, B, D); a (N, D); b, c (L, B, N); gives y (L, B, D) and the last state (B, N, D).
    """

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401 - torch's context
        u: Tensor,
        delta: Tensor,
        a: Tensor,
        b: Tensor,
        c: Tensor,
    ) -> tuple[Tensor, Tensor]:
        length, batch, channels = u.shape
        states = a.shape[0]
        size = _chunk(u, a)
        y = torch.empty_like(u)
        state = u.new_zeros(batch, states, channels)
        begins = []
        for low in range(0, length, size):
            part = slice(low, low + size)
            begins.append(state)
            decay, h = _decay_and_input(u[part], delta[part], a, b[part])
            for decay_l, h_l in zip(decay.unbind(), h.unbind(), strict=True):
                h_l.addcmul_(decay_l, state)
                state = h_l
            state = state.clone()  # frees the rest of the chunk
            torch.matmul(c[part].unsqueeze(2), h, out=y[part].unsqueeze(2))
        ctx.save_for_backward(u, delta, a, b, c, *begins)
        return y, state

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_y: Tensor, grad_last: Tensor) -> tuple[Tensor, ...]:  # noqa: ANN401
        with as_given(grad_y):
            return _backward(ctx.saved_tensors, grad_y.contiguous(), grad_last)


def _backward(saved: tuple[Tensor, ...], grad_y: Tensor, carry: Tensor) -> tuple[Tensor, ...]:
    """Return the gradients of u, delta, a, b, c.

    ``carry`` is the gradient that reaches the last state of a chunk from what comes after it.
    """
    u, delta, a, b, c, *begins = saved
    length, size = len(u), _chunk(u, a)
    grad_u, grad_delta, grad_b, grad_c = (torch.empty_like(t) for t in (u, delta, b, c))
    grad_a = torch.zeros_like(a)
    for number in reversed(range(len(begins))):
        part = slice(number * size, min(length, (number + 1) * size))
        u_p, delta_p, grad_y_p = u[part], delta[part], grad_y[part]
        decay, g = _decay_and_input(u_p, delta_p, a, b[part])
        states = _states(decay, g, begins[number])
        torch.matmul(states[1:], grad_y_p[..., None], out=grad_c[part].unsqueeze(-1))
        # Gradient of every state: from its own output, and through the decay from the state after it.
        torch.mul(c[part][..., None], grad_y_p[:, :, None, :], out=g)
        g[-1] += carry
        rows, decays = g.unbind(), decay.unbind()
        for decay_l, g_l, g_before in zip(decays[:0:-1], rows[:0:-1], rows[-2::-1], strict=True):
            g_before.addcmul_(decay_l, g_l)
        carry = decays[0] * rows[0]
        reach = torch.matmul(b[part].unsqueeze(2), g).squeeze(2)
        torch.mul(reach, delta_p, out=grad_u[part])
        torch.matmul(g, (delta_p * u_p)[..., None], out=grad_b[part].unsqueeze(-1))
        exponent = g.mul_(decay).mul_(states[:-1])  # gradient of delta A
        torch.addcmul((exponent * a).sum(2), reach, u_p, out=grad_delta[part])
        grad_a += exponent.mul_(delta_p[:, :, None, :]).sum((0, 1))
    return grad_u, grad_delta, grad_a, grad_b, grad_c


def _states(decay: Tensor, inputs: Tensor, begin: Tensor) -> Tensor:
    """Return the states from the one before a chunk to its last (l + 1, B, N, D)."""
    states = inputs.new_empty(len(inputs) + 1, *inputs.shape[1:])
    states[0] = begin
    rows = states.unbind()
    for decay_l, input_l, before, after in zip(decay.unbind(), inputs.unbind(), rows[:-1], rows[1:], strict=True):
        torch.addcmul(input_l, decay_l, before, out=after)
    return states
