"""What a selective scan is given."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Direction(NamedTuple):
    """Arguments of a scan along a sequence, channels innermost; their meaning as in `selective_scan`.

    Attributes
    ----------
    u, delta
        (B, L, D).
    A
        (D, N).
    B, C
        (B, L, N).
    D, delta_bias
        (D,), or none.
    reverse
        Whether the scan begins at the last position.
    """

    u: Tensor
    delta: Tensor
    A: Tensor
    B: Tensor
    C: Tensor
    D: Tensor | None = None
    delta_bias: Tensor | None = None
    reverse: bool = False
