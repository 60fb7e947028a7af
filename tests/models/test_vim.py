import math

import numpy as np
import pytest
import torch

from vimvol.errors import InputError
from vimvol.models.vim import Mixer, RMSNorm, Vim, VimOptions, drop_path, rotate

TINY = {"embedding": 32, "depth": 2, "state": 4, "channels": 1, "canvas": 64}


def encoder(**options) -> Vim:
    torch.manual_seed(0)
    return Vim(VimOptions(**(TINY | options))).eval()


@pytest.mark.parametrize(("divide", "name"), [(True, "y_div"), (False, "y_nodiv")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_mixer_of_the_reference(golden, rule, normal, divide, name, dtype):
    data = golden.arrays("mixer")
    mixer = Mixer(192, 16, 24, divide)
    prefix = "encoder.layers.0.mixer."
    mixer.load_state_dict({k: rule(prefix + k, tuple(v.shape)) for k, v in mixer.state_dict().items()})
    mixer.to(dtype)
    x = normal("mixer_x", (2, 65, 192)).to(dtype).requires_grad_()
    y = mixer(x)
    np.testing.assert_allclose(y.detach(), data[f"{name}_f64"], rtol=0, atol=1e-5)
    if not divide:
        return
    (y * normal("mixer_lossw", (2, 65, 192)).to(dtype)).sum().backward()
    found = {"x": x.grad} | {k: v.grad for k, v in mixer.named_parameters()}
    for key, gradient in found.items():
        if f"g_{key}" in data:
            expected = data[f"g_{key}"]
            np.testing.assert_allclose(gradient, expected, rtol=0, atol=2e-5 * abs(expected).max(), err_msg=key)
        if f"gnorm_{key}" in data:
            assert float(gradient.norm()) == pytest.approx(float(data[f"gnorm_{key}"]), rel=1e-5)
    assert len([k for k in found if f"gnorm_{k}" in data]) == 16


def test_norm_of_the_reference(golden):
    data = {k: torch.from_numpy(v) for k, v in golden.arrays("rmsnorm").items()}
    norm = RMSNorm(192)
    norm.load_state_dict({"weight": data["w"]})
    y, total = norm(data["x"], data["r"])
    torch.testing.assert_close(total, data["s"], rtol=0, atol=1e-6)
    torch.testing.assert_close(y.detach(), data["y"], rtol=0, atol=5e-6)


def test_residual_stream_stays_in_float32():
    norm = RMSNorm(8)
    y, total = norm(torch.ones(1, 2, 8, dtype=torch.bfloat16), torch.full((1, 2, 8), 2.0**-12))
    assert (y.dtype, total.dtype) == (torch.bfloat16, torch.float32)
    assert torch.equal(total, torch.full((1, 2, 8), 1 + 2.0**-12))


@pytest.mark.parametrize("token", ["first", "middle", "none"])
@pytest.mark.parametrize("size", [(64, 64), (48, 96)])
def test_any_grid_and_class_token(token, size):
    model = encoder(class_token=token)
    x = torch.randn(2, 1, *size)
    assert model(x).shape == (2, 32, size[0] // 16, size[1] // 16)
    assert model.tokens(x).shape[1] == size[0] * size[1] // 256 + (token != "none")


def test_class_token_leaves_where_it_joined():
    """Patches keep their order: the grid is the tokens without the class token."""
    model = encoder(class_token="middle")
    x = torch.randn(1, 1, 64, 64)
    tokens = model.tokens(x)
    grid = torch.cat([tokens[:, :8], tokens[:, 9:]], 1).transpose(1, 2).reshape(1, 32, 4, 4)
    assert torch.equal(model(x), grid)
    first = encoder(class_token="middle", drop="first")
    first.load_state_dict(model.state_dict())
    assert torch.equal(first(x), tokens[:, 1:].transpose(1, 2).reshape(1, 32, 4, 4))


def test_positions_are_interpolated_about_the_class_token():
    model = encoder(class_token="middle")
    with torch.no_grad():
        model.pos_embed[:] = 2
        model.pos_embed[:, 8] = 7
    at = model._positions((6, 2))
    assert torch.allclose(at[:, 6], torch.tensor(7.0))
    assert torch.allclose(torch.cat([at[:, :6], at[:, 7:]], 1), torch.tensor(2.0))


def test_both_directions_reach_every_token():
    model = encoder(class_token="none", depth=1)
    x = torch.randn(1, 1, 64, 64, requires_grad=True)
    for place in ((0, 0), (3, 3)):
        (gradient,) = torch.autograd.grad(model(x)[0, :, *place].sum(), x)
        assert (gradient.unfold(2, 16, 16).unfold(3, 16, 16).abs().sum((-1, -2)) > 0).all()


def test_rotation_turns_and_keeps_length():
    x = torch.randn(1, 3, 8, dtype=torch.float64)
    angle = torch.rand(3, 8, dtype=torch.float64).repeat_interleave(2, -1)[:, :8]
    turned = rotate(x, angle.cos(), angle.sin())
    torch.testing.assert_close(turned.norm(dim=-1), x.norm(dim=-1))
    pair, by = torch.view_as_complex(x.unflatten(-1, (4, 2))), angle[:, ::2]
    torch.testing.assert_close(torch.view_as_complex(turned.unflatten(-1, (4, 2))), pair * torch.exp(1j * by))


def test_rotation_reaches_the_residual_stream():
    rotated, plain = (encoder(rope=rope, class_token="first") for rope in (True, False))
    plain.load_state_dict(rotated.state_dict())
    x = torch.randn(1, 1, 64, 64)
    assert not torch.allclose(rotated(x), plain(x))


def test_drop_path_rates_and_expectation():
    model = Vim(VimOptions(embedding=32, depth=24, state=2, canvas=64, drop_path=0.1))
    rates = [layer.drop_path for layer in model.layers]
    assert rates[:2] == [0, 0]
    assert rates[23] == pytest.approx(0.1 * 22 / 23)
    torch.manual_seed(0)
    x = torch.ones(4000, 1, 1)
    kept = drop_path(x, 0.25, True)
    torch.testing.assert_close(kept.unique(), torch.tensor([0, 4 / 3]))
    assert float(kept.mean()) == pytest.approx(1, abs=0.05)
    assert torch.equal(drop_path(x, 0.25, False), x)


def test_initial_steps_are_those_of_the_paper():
    torch.manual_seed(0)
    mixer = Mixer(192, 16, 24, True)
    for projection in (mixer.dt_proj, mixer.dt_proj_b):
        steps = torch.nn.functional.softplus(projection.bias.detach())
        assert 1e-3 * 0.99 < steps.min() < steps.max() < 0.1 * 1.01
        assert float(projection.weight.detach().abs().max()) <= 12**-0.5
    torch.testing.assert_close(mixer.A_log[7].detach(), torch.arange(1.0, 17.0).log())
    assert float(mixer.out_proj.weight.detach().abs().max()) <= 1 / math.sqrt(384 * 24)


def test_autocast_keeps_shapes_and_is_close():
    model = encoder()
    x = torch.randn(1, 1, 64, 64)
    with torch.autocast("cpu", torch.bfloat16):
        half = model(x).float()
    assert (half - model(x)).abs().mean() < 0.05


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"canvas": 100}, "multiple of 16"),
        ({"class_token": "none", "drop": "first"}, "drop='class'"),
        ({"rope": True, "embedding": 30}, "multiple of 4"),
    ],
)
def test_options_that_do_not_fit(options, says):
    with pytest.raises(InputError, match=says):
        VimOptions(**(TINY | options))
