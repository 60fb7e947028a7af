"""The selective scan of Mamba (Gu & Dao, 2023, section 3), by the fastest means that fit device and dtype.

Shapes: B batch, D channels, L positions, N states a channel.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor

from vimvol.models.scan import cpu, cuda, plain
from vimvol.models.scan.direction import Direction

__all__ = ["BACKENDS", "Backend", "Direction", "scan_directions", "selective_scan"]


class Backend(NamedTuple):
    """A way to compute scans.

    Attributes
    ----------
    takes
        Called with directions, whether softplus is applied and whether last states are wanted; tells whether it can.
    scan
        Called with directions and whether softplus is applied; gives y (B, L, D) and the last state (B, D, N) of each.
    """

    takes: Callable[[Sequence[Direction], bool, bool], bool]
    scan: Callable[[Sequence[Direction], bool], list[tuple[Tensor, Tensor]]]


BACKENDS = {
    "mamba-ssm": Backend(cuda.takes, cuda.scan),
    "numba": Backend(cpu.takes, cpu.scan),
    "torch": Backend(plain.takes, plain.scan),
}
"""In order of preference; the first that takes the arguments computes them."""


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

    Computed in float32, or float64 where ``u`` is, whatever autocast says. A caller whose channels are innermost in
    memory saves copies with `scan_directions`.

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
    swapped = (t.transpose(1, 2) for t in (u, delta, B, C))
    x, step, b, c = swapped
    way = [Direction(x, step, A, b, c, D, delta_bias)]
    ((y, last),) = _backend(way, delta_softplus, return_last_state).scan(way, delta_softplus)
    y = y.transpose(1, 2)
    if z is not None:
        y = y * F.silu(z.to(y.dtype))
    y = y.to(u.dtype)
    return (y, last) if return_last_state else y


def scan_directions(directions: Sequence[Direction], delta_softplus: bool = False) -> list[Tensor]:
    """Run several scans at once, which keeps more cores busy than one after the other.

    Parameters
    ----------
    directions
        What each is given; of any lengths.
    delta_softplus
        Whether ``softplus`` is applied to every ``delta``, after the bias.

    Returns
    -------
    list
        y (B, L, D) of each, of the dtype of its ``u``; positions are in the order of ``u`` in either direction.
    """
    results = _backend(directions, delta_softplus, False).scan(directions, delta_softplus)
    return [y.to(way.u.dtype) for (y, _), way in zip(results, directions, strict=True)]


def _backend(directions: Sequence[Direction], soft: bool, want_last: bool) -> Backend:
    return next(b for b in BACKENDS.values() if b.takes(directions, soft, want_last))
