"""What the reference does otherwise than it should: each a value of an option, and the right form the other."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from vimvol.errors import InputError
from vimvol.models import MODELS, build_model
from vimvol.models.registry import count_parameters, default_options

MODES = {
    "drop": ("class", "first"),
    "skip_channels": ("all", "central"),
    "above_canvas": ("refuse", "stretch"),
    "backward_step": ("spread", "zero"),
}
"""Right form, and what the reference does."""

CUT = ("vimunet-tiny", "vimunet-small", "unetr-base", "unetr-large", "unetr-huge")


def small(**options):
    torch.manual_seed(0)
    return build_model("vimunet-tiny", **({"depth": 2, "canvas": 64} | options)).eval()


@pytest.mark.parametrize("layout", ["today_t_T", "today_t_F", "paper_t_T"])
def test_checkpoints_of_the_reference_have_every_mode(golden, layout):
    options = golden.tiny(layout).spec.options
    assert {mode: options[mode] for mode in MODES} == {mode: wrong for mode, (_, wrong) in MODES.items()}


def test_networks_trained_here_have_the_right_forms_but_for_the_papers_count():
    for name in ("vimunet-nano", "vimunet-tiny", "vimunet-small"):
        options = default_options(name)
        expected = {mode: right for mode, (right, _) in MODES.items()}
        expected["skip_channels"] = "central" if name in CUT else "all"
        assert {mode: options[mode] for mode in MODES} == expected
        assert options["pad_to_canvas"] is False


@pytest.mark.parametrize("name", CUT)
def test_parameters_of_all_channels(name):
    """Every first convolution of a level then sees as many channels again as it has itself."""
    more = sum(9 * width**2 for width in (256, 128, 64))
    assert more == 774_144
    whole = count_parameters(name, skip_channels="all")
    assert whole == count_parameters(name) + more
    assert MODELS[name].options["skip_channels"] == "central"


@torch.inference_mode()
def test_all_channels_hold_the_central_ones_of_the_reference(golden):
    """With weights of 0 for the channels that the reference cuts away, its logits come out."""
    options = dict(golden.tiny("today_t_T").spec.options) | {"skip_channels": "all"}
    model = build_model("vimunet-tiny", out_channels=2, **options).eval()
    state = golden.state("today_t_T")
    for level, width in enumerate((256, 128, 64)):
        key = f"decoder.blocks.{level}.block.1.weight"
        given = state[key]
        state[key] = torch.zeros(width, 3 * width, 3, 3)
        state[key][:, :width], state[key][:, width + width // 2 : 2 * width + width // 2] = given.split(width, dim=1)
    model.load_state_dict(state)
    logits = model(golden.input(1, 256, 256))
    expected = golden.arrays("vimunet_tiny")["today_convT_logits"]
    np.testing.assert_allclose(logits, expected, rtol=0, atol=4e-4)


@pytest.mark.parametrize("kept", MODES["skip_channels"])
@torch.inference_mode()
def test_channels_of_a_skip_that_reach_the_decoder(kept):
    """Of deconv3's 128 the reference's decoder sees the central 64."""
    model, x = small(skip_channels=kept), torch.randn(1, 1, 64, 64)
    model.deconv4.block[0].block.weight.zero_()  # the other way by which a channel has an effect
    before, bias = model(x), model.deconv3.block[2].bias
    moved = []
    for channel in (5, 40, 90, 100):
        bias[channel] += 1
        moved.append(not torch.equal(model(x), before))
        bias[channel] -= 1
    assert moved == [kept == "all", True, True, kept == "all"]


@torch.inference_mode()
def test_an_image_above_the_canvas_is_refused_or_cut_and_stretched():
    x = torch.rand(1, 1, 96, 48)
    model = small(pad_to_canvas=True, above_canvas="stretch")
    with pytest.warns(UserWarning, match="96 x 48 pixels exceeds the canvas of 64 .* stretched"):
        found = model(x).sigmoid()
    expected = F.interpolate(model(x[:, :, :64]).sigmoid(), (96, 48), mode="bilinear", align_corners=False)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
    with pytest.raises(InputError, match="exceeds the canvas of 64"):
        small(pad_to_canvas=True)(x)
    assert small()(x).shape == x.shape  # without padding any size fits


def test_the_backward_direction_begins_with_steps_like_the_forward_one_or_with_a_bias_of_0():
    for mode in MODES["backward_step"]:
        mixer = small(backward_step=mode).encoder.layers[0].mixer
        steps = [F.softplus(p.bias).detach() for p in (mixer.dt_proj, mixer.dt_proj_b)]
        assert 0.001 <= steps[0].min() < 0.005 < 0.05 < steps[0].max() <= 0.101
        if mode == "zero":
            torch.testing.assert_close(steps[1], torch.full_like(steps[1], math.log(2)))
        else:
            assert 0.001 <= steps[1].min() < 0.005 < 0.05 < steps[1].max() <= 0.101


@pytest.mark.parametrize(
    ("option", "says"),
    [
        ("skip_channels", "'all' or 'central'"),
        ("above_canvas", "'refuse' or 'stretch'"),
        ("backward_step", "'spread' or 'zero'"),
        ("drop", "'class' or 'first'"),
        ("class_token", "'first' or 'middle' or 'none'"),
        ("position", "'learned' or 'none'"),
        ("skips", "'deconv' or 'stem'"),
        ("upsampling", "'transpose' or 'bilinear'"),
    ],
)
def test_a_value_that_is_not_known_is_told_with_those_that_are(option, says):
    with pytest.raises(InputError, match=f"{option}='both' is not known; use {says}"), torch.device("meta"):
        build_model("vimunet-tiny", **{option: "both"})
