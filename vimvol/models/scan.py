"""The selective scan of Mamba (Gu & Dao, 2023, section 3), in plain PyTorch.

Shapes: B batch, D channels, L positions, N states a channel.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

CHUNK_ELEMENTS = 1 << 17
"""Values of one working array of a chunk: a handful of these arrays stay in the cache of a core."""


def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,  # noqa: N803 - the names of the paper
    B: Tensor,  # noqa: N803
    C: Tensor,  # noqa: N803
    D: Tensor | None = None,  # noqa: N803
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    return_last_state: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """Run the recurrence ``h_l = exp(delta_l A) h_(l-1) + delta_l B_l u_l``, ``y_l = <C_l, h_l> + D u_l``.

    Computed in float32, or float64 where ``u`` is, whatever autocast says.

    Parameters
    ----------
    u, delta, z
        (B, D, L) input, step size, and gate: the result is multiplied by ``silu(z)``.
    A
        (D, N), negative for a state that decays.
    B, C
        (B, N, L) input and output of the states.
    D, delta_bias
        (D,) weight of the input in the output, and what is added to ``delta``.
    delta_softplus
        Whether ``softplus`` is applied to ``delta``, after the bias.
    return_last_state
        Whether the state after the last position is returned too.

    Returns
    -------
    y
        (B, D, L), of the dtype of ``u``.
    last_state
        (B, D, N), only where asked.
    """
    kind = torch.promote_types(u.dtype, torch.float32)
    with _as_given(u):
        x, step = u.to(kind), delta.to(kind)
        if delta_bias is not None:
            step = step + delta_bias.to(kind)[:, None]
        if delta_softplus:
            step = F.softplus(step)
        y, last = _scan(x, step, A.to(kind), B.to(kind), C.to(kind))
        if D is not None:
            y = torch.addcmul(y, x, D.to(kind)[:, None])
        if z is not None:
            y = y * F.silu(z.to(kind))
    y = y.to(u.dtype)
    return (y, last) if return_last_state else y


def _as_given(tensor: Tensor) -> AbstractContextManager[None]:
    """Switch autocast off, which would compute products in half precision."""
    kind = tensor.device.type
    return torch.autocast(kind, enabled=False) if torch.amp.is_autocast_available(kind) else nullcontext()


def _scan(u: Tensor, delta: Tensor, a: Tensor, b: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """Return y (B, D, L) and the last state (B, D, N); positions lead and channels are innermost inside."""
    y, last = _Scan.apply(  # type: ignore[no-untyped-call]
        u.permute(2, 0, 1).contiguous(),
        delta.permute(2, 0, 1).contiguous(),
        a.t().contiguous(),
        b.permute(2, 0, 1).contiguous(),
        c.permute(2, 0, 1).contiguous(),
    )
    return y.permute(1, 2, 0), last.transpose(1, 2)


def _chunk(batch: int, states: int, channels: int) -> int:
    """Return how many positions are worked on together."""
    return max(8, CHUNK_ELEMENTS // (batch * states * channels))


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
        size = _chunk(batch, states, channels)
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
        with _as_given(grad_y):
            return _backward(ctx.saved_tensors, grad_y.contiguous(), grad_last)


def _backward(saved: tuple[Tensor, ...], grad_y: Tensor, carry: Tensor) -> tuple[Tensor, ...]:
    """Return the gradients of u, delta, a, b, c.

    ``carry`` is the gradient that reaches the last state of a chunk from what comes after it.
    """
    u, delta, a, b, c, *begins = saved
    length, batch, channels = u.shape
    size = _chunk(batch, a.shape[0], channels)
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
