from dataclasses import replace

import pytest
import torch
from torch import nn

from vimvol.train.dataset import CropDataset, SliceDataset
from vimvol.train.export import new_network
from vimvol.train.loss import LOSSES
from vimvol.train.module import BoundaryModule, predict_slice
from vimvol.train.sources import load_data


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


def test_the_average_follows_the_weights_slowly(config):
    module = BoundaryModule(Shift(), config.model_copy(update={"ema": 0.9}), load_data(config))
    with torch.no_grad():
        module.model.weight.fill_(11.0)
    module.update_average(0)
    first = float(module.average.weight)
    assert first == pytest.approx(1 * 0.1 + 11 * 0.9)  # a young average forgets its start
    assert not module.average.weight.requires_grad


def test_without_an_average_the_network_stands_for_itself(config):
    module = BoundaryModule(Shift(), config.model_copy(update={"ema": 0.0}), load_data(config))
    module.update_average(1)
    assert module.average is module.model
    assert module.model.weight.requires_grad


def test_slices_that_nobody_annotated_are_not_validated_on(config):
    """Of sparse annotation, every tenth slice, say, the scores are those of the slices that have one."""
    module = BoundaryModule(new_network(config), config, load_data(config))
    given = SliceDataset(load_data(config).validate[0], config)[0]
    empty = {**given, "target": given["target"] * 0, "weight": given["weight"] * 0, "labels": given["labels"] * 0}
    for number, slice_ in enumerate((empty, given, empty)):
        module.validation_step({key: value[None] for key, value in slice_.items()}, number)
    (name,) = module.names
    assert len(module._losses[name]) == len(module._accuracies[name]) == 1
    assert module._losses[name][0] > 0


def test_sources_of_one_name_are_judged_apart(config):
    data = load_data(config)
    (source,) = data.validate
    twice = replace(data, validate=(source, source))
    assert BoundaryModule(Shift(), config, data).names == (source.name,)
    assert BoundaryModule(Shift(), config, twice).names == (f"0-{source.name}", f"1-{source.name}")


def test_a_network_of_several_resolutions_learns_at_all_but_the_coarsest(config):
    config = config.model_copy(update={"model": "nnunet", "options": {"patch": [32, 32], "features": 4}})
    data = load_data(config)
    module = BoundaryModule(new_network(config), config, data)
    batch = {key: value[None] for key, value in CropDataset(data, config, 0, 1)[0].items()}
    loss = module._training_loss(batch)
    loss.backward()
    assert [head.weight.grad is not None for head in module.model.heads] == [False, True, True]
    alone = LOSSES[config.loss](module.model(batch["image"]), batch["target"], batch["weight"], config.boundary_weight)
    assert float(loss.detach()) != pytest.approx(float(alone.detach()))
