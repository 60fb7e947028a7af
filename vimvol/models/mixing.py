"""What happens between the projections of a Mamba block (Gu & Dao, 2023): convolution, scan and gate.

Shapes: B batch, L positions, D inner channels, N states a channel.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vimvol.models.loops import load, workers
from vimvol.models.loops.arrays import array, empty, spans, takes, tasks
from vimvol.models.scan import Direction, scan_directions
from vimvol.models.scan.plain import as_given

TASK = 1 << 16
"""Values of a task of the compiled loops, of which threads share the work."""


class Way(NamedTuple):
    """What a sequence is read with in a direction.

    Attributes
    ----------
    conv
        Of a position and those before it, every channel by itself, as `causal` takes it.
    x_proj
        To the rank of a step, and input and output of the states, without a bias: D to R + 2 N.
    dt_proj
        From that rank to the steps of all channels: R to D.
    a_log, d
        (D, N) logarithm of the decay, and (D,) weight of the input in the output.
    reverse
        Whether it is read from the end.
    """

    conv: nn.Conv1d
    x_proj: nn.Linear
    dt_proj: nn.Linear
    a_log: Tensor
    d: Tensor
    reverse: bool = False


def mix(z: Tensor, ways: Sequence[Way], factor: float = 1.0) -> Tensor:
    """Return the gated sum of what is read in one direction or two.

    Parameters
    ----------
    z
        (B, L, 2 D): what is read, and the gate.
    ways
        One or two.
    factor
        By which the sum is multiplied.

    Returns
    -------
    Tensor
        (B, L, D), of the dtype of ``z``.

    Raises
    ------
    ValueError
        If there are more ways, or none.
    """
    if len(ways) not in (1, 2):
        raise ValueError(f"a sequence is read in one direction or two, not in {len(ways)}")
    if _suits(z):
        # In float32, whatever autocast says: to convert what the small products take would cost more than it saves.
        with as_given(z):
            return _gated(_scanned(_convolved(z, ways), ways), z, factor)
    x, gate = z.chunk(2, dim=-1)
    found = _scanned([F.silu(causal(x, way.conv, way.reverse)) for way in ways], ways)
    # The gate acts position by position: once on the sum equals once on each direction.
    y = functools.reduce(torch.add, found) * F.silu(gate)
    return y if factor == 1 else y * factor


def causal(x: Tensor, conv: nn.Conv1d, reverse: bool = False) -> Tensor:
    """Convolve x (B, L, D) along L so that a position sees itself and those before it, or behind; return (B, L, D)."""
    # As an image of one row whose channels are innermost in memory: several times as fast on a CPU as a 1D convolution.
    row = x.transpose(1, 2).unsqueeze(2)
    padding = conv.kernel_size[0] - 1
    weight = conv.weight.flip(-1) if reverse else conv.weight
    y = F.conv2d(row, weight.unsqueeze(2), conv.bias, padding=(0, padding), groups=conv.groups)
    y = y[..., padding:] if reverse else y[..., : x.shape[1]]
    return y.squeeze(2).transpose(1, 2)


def _scanned(inputs: Sequence[Tensor], ways: Sequence[Way]) -> list[Tensor]:
    """Return what the scan makes of every way's convolved u (B, L, D)."""
    directions = []
    for u, way in zip(inputs, ways, strict=True):
        rank, state = way.dt_proj.in_features, way.a_log.shape[1]
        step, b, c = torch.split(F.linear(u, way.x_proj.weight.to(u.dtype)), [rank, state, state], dim=-1)
        delta = F.linear(step, way.dt_proj.weight.to(step.dtype))
        a = -torch.exp(way.a_log.to(torch.promote_types(way.a_log.dtype, torch.float32)))
        directions.append(Direction(u, delta, a, b, c, way.d, way.dt_proj.bias, way.reverse))
    return scan_directions(directions, delta_softplus=True)


def _suits(z: Tensor) -> bool:
    """Tell whether the compiled loops take this: they have no gradients."""
    return not torch.is_grad_enabled() and takes(z) and load("mixing") is not None


def _convolved(z: Tensor, ways: Sequence[Way]) -> list[Tensor]:
    """Return silu of what `causal` gives of the first half of z: (B, L, D) float32 for every way."""
    given, outs, queue = [array(z)], [], []
    for way in ways:
        channels, taps = way.conv.out_channels, way.conv.kernel_size[0]
        # PyTorch correlates, so that the last tap belongs to the position itself.
        weight = array(way.conv.weight.detach().float().view(channels, taps).flip(1).t())
        bias = np.zeros(channels, np.float32) if way.conv.bias is None else array(way.conv.bias.float())
        outs.append(empty(*z.shape[:2], channels))
        queue += _cut("convolve", given, (weight, bias, way.reverse), array(outs[-1]))
    workers.run(queue)
    return outs


def _gated(found: Sequence[Tensor], z: Tensor, factor: float) -> Tensor:
    """Return the sum of what was found, by ``factor`` and silu of the second half of z: (B, L, D), of its dtype."""
    alone = len(found) == 1  # which is added to itself
    out = empty(*found[0].shape, dtype=z.dtype)
    given = [array(found[0]), array(found[-1]), array(z)]
    workers.run(_cut("gate", given, (np.float32(factor / 2 if alone else factor),), array(out)))
    return out


def _cut(name: str, inputs: Sequence[Any], fixed: Sequence[Any], out: Any) -> list[workers.Task]:  # noqa: ANN401
    """Return what fills out (B, L, D) by a loop."""
    return tasks(getattr(load("mixing"), name), inputs, fixed, [out], spans(out.shape[1], -(-out[0].size // TASK)))
