"""Dice plus binary cross-entropy, where the annotation says something."""

from __future__ import annotations

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
