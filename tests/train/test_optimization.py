import pytest
import torch
from torch import nn

from vimvol.config import TrainConfig
from vimvol.models.registry import MODELS, build_model
from vimvol.train.optimization import Plateau, decaying, learning_rate_share, make_optimizer


def shares(config: TrainConfig, **changes: object) -> list[float]:
    config = config.model_copy(update={"steps": 100, "warmup": 10, **changes})
    return [learning_rate_share(config, step, Plateau(0.5, 1)) for step in range(101)]


def test_the_learning_rate_rises_and_falls_to_0(config):
    rates = shares(config)
    assert rates.index(max(rates)) == 10
    assert max(rates) == 1.0
    assert 0 < rates[0] < 0.2
    assert rates[100] == pytest.approx(0)
    assert rates[10:] == sorted(rates[10:], reverse=True)


@pytest.mark.parametrize("schedule", ["constant", "plateau"])
def test_other_schedules_stay_up_behind_the_warmup(config, schedule):
    rates = shares(config, schedule=schedule)
    assert rates[:10] == sorted(rates[:10])
    assert set(rates[10:]) == {1.0}
    assert set(shares(config, schedule=schedule, warmup=0)) == {1.0}


def test_a_plateau_goes_as_pytorchs_own():
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.9, patience=2)
    ours = Plateau(0.9, 2)
    generator = torch.Generator().manual_seed(0)
    for score in (1.0 - 0.3 * torch.arange(60).div(60).sqrt() + 0.1 * torch.rand(60, generator=generator)).tolist():
        theirs.step(score)
        ours.tell(score)
        again = Plateau(0.9, 2)
        again.load_state_dict(ours.state_dict())
        ours = again
        assert ours.scale == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-12)
    assert ours.scale < 0.9


@pytest.mark.parametrize("name", MODELS)
def test_only_weights_of_linear_maps_decay(name):
    with torch.device("meta"):
        model = build_model(name)
    linear = {nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.ConvTranspose3d}
    chosen = decaying(model)
    assert chosen
    for parameter, _ in model.named_parameters():
        owner, _, leaf = parameter.rpartition(".")
        assert (parameter in chosen) == (type(model.get_submodule(owner)) in linear and leaf == "weight"), parameter


def test_state_spaces_norms_biases_and_positions_do_not_decay(config):
    model = build_model("vimunet-nano", depth=1, embedding=16)
    optimizer = make_optimizer(model, config)
    decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    parameters = dict(model.named_parameters())
    assert set(decay) == {id(p) for p in parameters.values()}
    seen = set()
    for name, parameter in parameters.items():
        special = next((s for s in ("A_log", "A_b_log", ".D", "norm", "bias", "pos_embed") if s in name), None)
        seen.add(special)
        assert decay[id(parameter)] == (0.0 if special else config.weight_decay), name
    assert seen >= {"A_log", "A_b_log", ".D", "norm", "bias", "pos_embed", None}


def test_the_optimizer_is_the_one_asked_for(config):
    assert type(make_optimizer(nn.Linear(1, 1), config)) is torch.optim.AdamW
    assert type(make_optimizer(nn.Linear(1, 1), config.model_copy(update={"optimizer": "adam"}))) is torch.optim.Adam
