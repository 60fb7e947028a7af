"""Losses, where the annotation says something: Dice, and Dice plus binary cross-entropy."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor
from torch.nn import functional


def dice_bce_loss(logits: Tensor, target: Tensor, weight: Tensor, boundary_weight: float = 1.0) -> Tensor:
    """Return soft Dice loss plus mean binary cross-entropy.

    Cross-entropy gives every voxel a gradient from the first step; Dice weighs the thin boundaries, less than a tenth
    of the voxels, like the rest (Milletari et al. 2016, V-Net, 3DV). By itself Dice wipes out boundaries that the
    network is not sure of, and one gap merges two neurites: ``boundary_weight`` speaks for them.

    Parameters
    ----------
    logits
        (b, c, y, x) float, before the sigmoid.
    target
        (b, c, y, x) float, 0 or 1.
    weight
        (b, 1 or c, y, x) float, 0 where the loss must not look.
    boundary_weight
        Of a boundary voxel in the cross-entropy, against 1 of any other.

    Returns
    -------
    Tensor
        Scalar >= 0; 0 if no voxel counts.
    """
    logits = logits.float()
    weight = weight.expand_as(target)
    entropy = functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
    share = weight * (1.0 + (boundary_weight - 1.0) * target)
    mean_entropy = (entropy * share).sum() / share.sum().clamp(min=1.0)
    probability = logits.sigmoid() * weight
    truth = target * weight
    overlap = (probability * truth).sum()
    # A constant in both terms makes the loss 0, and not NaN, for a batch without boundaries that predicts none.
    dice = (2.0 * overlap + 1.0) / (probability.square().sum() + truth.square().sum() + 1.0)
    return mean_entropy + 1.0 - dice


def dice_loss(logits: Tensor, target: Tensor, weight: Tensor, boundary_weight: float = 1.0) -> Tensor:  # noqa: ARG001
    """Return the sum over channels of soft Dice loss: the loss of the ViM-UNet paper.

    Torch-em's ``DiceLoss`` behind a sigmoid. With distances whose weight is 0 outside of objects it is torch-em's
    ``DiceBasedDistanceLoss`` with masked distances.

    Parameters
    ----------
    logits
        (b, c, y, x) float, before the sigmoid.
    target
        (b, c, y, x) float in [0, 1].
    weight
        (b, 1 or c, y, x) float, 0 where the loss must not look, else 1.
    boundary_weight
        Not used; here so that losses can be exchanged.

    Returns
    -------
    Tensor
        Scalar in [0, c]; a channel of which no voxel counts costs 1 and has no gradient.
    """
    probability = logits.float().sigmoid() * weight
    truth = target * weight
    axes = (0, 2, 3)
    overlap = (probability * truth).sum(axes)
    norm = probability.square().sum(axes) + truth.square().sum(axes)
    return (1.0 - 2.0 * overlap / norm.clamp(min=1e-7)).sum()


LOSSES: dict[str, Callable[[Tensor, Tensor, Tensor, float], Tensor]] = {"dice-bce": dice_bce_loss, "dice": dice_loss}
"""By the name that `vimvol.config.TrainConfig.loss` has: logits, target, weight and boundary weight to a scalar."""


def supervised_loss(
    loss: Callable[[Tensor, Tensor, Tensor, float], Tensor],
    outputs: Sequence[Tensor],
    target: Tensor,
    weight: Tensor,
    boundary_weight: float = 1.0,
) -> Tensor:
    """Return the loss at several resolutions: deep supervision as in nnU-Net (Isensee et al. 2021).

    Each resolution counts half as much as the finer one; the shares sum to 1. Targets of a coarser resolution are those
    at the centres of its pixels.

    Parameters
    ----------
    loss
        One of `LOSSES`.
    outputs
        Logits (b, c, y, x), finest first.
    target, weight, boundary_weight
        As of `dice_bce_loss`, at full resolution.
    """
    shares = [2.0**-number for number in range(len(outputs))]
    total = target.new_zeros(())
    for share, logits in zip(shares, outputs, strict=True):
        size = logits.shape[-2:]
        wanted, counted = (functional.interpolate(m, size, mode="nearest-exact") for m in (target, weight))
        total = total + share / sum(shares) * loss(logits, wanted, counted, boundary_weight)
    return total
