import pytest
import torch
from torch import nn

from vimvol.train.dataset import load_data
from vimvol.train.module import BoundaryModule, predict_slice


class Shift(nn.Module):
    """A network of one weight: the intensities plus it."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, image):
        assert image.shape[-2:] == (32, 32)
        return image + self.weight


@pytest.mark.parametrize("shape", [(32, 32), (60, 70), (8, 100), (1, 1), (24, 25)])
def test_windows_cover_a_slice_of_any_size(shape):
    image = torch.rand(1, 1, *shape)
    torch.testing.assert_close(predict_slice(Shift(), image, (32, 32), 3), image + 1)


def test_the_learning_rate_rises_and_falls_to_0(config):
    module = BoundaryModule(Shift(), config.model_copy(update={"steps": 100, "warmup": 10}), load_data(config))
    rates = [module._rate(step) for step in range(101)]
    assert rates.index(max(rates)) == 10
    assert max(rates) == 1.0
    assert 0 < rates[0] < 0.2
    assert rates[100] == pytest.approx(0)
    assert rates[10:] == sorted(rates[10:], reverse=True)


def test_the_average_follows_the_weights_slowly(config):
    module = BoundaryModule(Shift(), config.model_copy(update={"ema": 0.9}), load_data(config))
    with torch.no_grad():
        module.model.weight.fill_(11.0)
    module.on_train_batch_end(None, None, 0)
    first = float(module.average.weight)
    assert first == pytest.approx(1 * 0.1 + 11 * 0.9)  # a young average forgets its start
    assert not module.average.weight.requires_grad


def test_vectors_do_not_decay(config):
    optimizer = BoundaryModule(nn.Conv2d(1, 1, 3), config, load_data(config)).configure_optimizers()["optimizer"]
    assert [(g["weight_decay"], len(g["params"])) for g in optimizer.param_groups] == [(0.01, 1), (0.0, 1)]
