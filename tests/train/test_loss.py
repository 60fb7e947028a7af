import pytest
import torch

from vimvol.train.loss import dice_bce_loss, dice_loss, supervised_loss


def tensors(seed=0):
    generator = torch.Generator().manual_seed(seed)
    target = (torch.rand(2, 1, 8, 8, generator=generator) > 0.8).float()
    return torch.randn(2, 1, 8, 8, generator=generator), target


def test_a_perfect_prediction_costs_nothing():
    _, target = tensors()
    assert float(dice_bce_loss((target * 2 - 1) * 50, target, torch.ones_like(target))) == pytest.approx(0, abs=1e-4)


def test_a_wrong_prediction_costs_more_than_an_unsure_one():
    _, target = tensors()
    weight = torch.ones_like(target)
    wrong, unsure = dice_bce_loss((1 - target * 2) * 5, target, weight), dice_bce_loss(target * 0, target, weight)
    assert wrong > unsure > 0


def test_ignored_voxels_have_no_say():
    logits, target = tensors()
    weight = torch.ones(2, 1, 8, 8)
    weight[..., :4] = 0
    loss = dice_bce_loss(logits, target, weight)
    changed = logits.clone()
    changed[..., :4] = 30
    assert dice_bce_loss(changed, target, weight) == loss


def test_without_any_voxel_it_is_0_and_has_a_gradient():
    logits, target = tensors()
    logits.requires_grad_()
    loss = dice_bce_loss(logits, target, torch.zeros_like(target))
    loss.backward()
    assert float(loss.detach()) == 0
    assert not logits.grad.any()


def test_a_missed_boundary_weighs_as_much_as_told():
    target = torch.zeros(1, 1, 4, 4)
    target[..., 0] = 1
    weight = torch.ones_like(target)
    missed, invented = torch.full_like(target, -20.0), torch.full_like(target, 20.0)
    plain = [float(dice_bce_loss(x, target, weight)) for x in (missed, invented)]
    weighted = [float(dice_bce_loss(x, target, weight, 4.0)) for x in (missed, invented)]
    assert weighted[0] > plain[0]
    assert weighted[1] < plain[1]


def test_dice_is_summed_over_channels():
    logits, target = torch.randn(2, 3, 8, 8), (torch.rand(2, 3, 8, 8) > 0.7).float()
    weight = torch.ones_like(target)
    p = logits.sigmoid()
    expected = sum(
        1 - 2 * (p[:, c] * target[:, c]).sum() / (p[:, c].square().sum() + target[:, c].square().sum())
        for c in range(3)
    )
    torch.testing.assert_close(dice_loss(logits, target, weight), expected)


def test_dice_ignores_what_has_no_weight():
    logits, target = torch.randn(1, 2, 8, 8), torch.rand(1, 2, 8, 8)
    weight = torch.ones_like(target)
    weight[:, 1, :, :4] = 0
    loss = dice_loss(logits, target, weight)
    changed, other = logits.clone(), target.clone()
    changed[:, 1, :, :4], other[:, 1, :, :4] = 9, 0.5
    assert dice_loss(changed, other, weight) == loss
    changed[:, 0, :, :4] = 9
    assert dice_loss(changed, other, weight) != loss


def test_dice_of_nothing_is_finite():
    logits = torch.full((1, 1, 4, 4), -200.0, requires_grad=True)
    loss = dice_loss(logits, torch.zeros(1, 1, 4, 4), torch.ones(1, 1, 4, 4))
    loss.backward()
    assert float(loss.detach()) == 1
    assert torch.isfinite(logits.grad).all()


def test_resolutions_count_by_halves_and_are_compared_at_their_pixels():
    logits, target = tensors()
    weight = (torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(1)) > 0.5).float()
    outputs = [logits, logits[..., ::2, ::2], logits[..., ::4, ::4]]
    full = dice_bce_loss(logits, target, weight, 3.0)
    half = dice_bce_loss(outputs[1], target[..., 1::2, 1::2], weight[..., 1::2, 1::2], 3.0)
    fourth = dice_bce_loss(outputs[2], target[..., 2::4, 2::4], weight[..., 2::4, 2::4], 3.0)
    found = supervised_loss(dice_bce_loss, outputs, target, weight, 3.0)
    torch.testing.assert_close(found, (4 * full + 2 * half + fourth) / 7)
    torch.testing.assert_close(supervised_loss(dice_bce_loss, outputs[:1], target, weight, 3.0), full)
