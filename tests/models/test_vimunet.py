import re
import zlib

import numpy as np
import pytest
import torch

from vimvol.errors import InputError
from vimvol.models import blocks, build_model, load_checkpoint, save_checkpoint

TODAY, BILINEAR, PAPER = "today_t_T", "today_t_F", "paper_t_T"
TOKENS, LOGITS, PROBABILITY = 5e-5, 4e-4, 1e-4


def close(found: torch.Tensor, expected: np.ndarray, bound: float) -> None:
    np.testing.assert_allclose(found, expected, rtol=0, atol=bound)


@pytest.mark.parametrize(
    ("layout", "tokens", "logits"),
    [
        (TODAY, "today_tokens", "today_convT_logits"),
        (BILINEAR, "today_tokens", "today_bilinear_logits"),
        (PAPER, "paper_tokens", "paper_convT_logits"),
    ],
)
@torch.inference_mode()
def test_tiny_of_the_reference(golden, layout, tokens, logits):
    data = golden.arrays("vimunet_tiny")
    x = golden.input(1, 256, 256)
    np.testing.assert_array_equal(x, data["x"])
    loaded = golden.tiny(layout)
    assert loaded.spec.architecture == "vimunet-tiny"
    close(loaded.model.encoder.tokens(x), data[tokens], TOKENS)
    close(loaded.model(x), data[logits], LOGITS)


@torch.inference_mode()
def test_inside_of_tiny(golden):
    data = golden.arrays("vimunet_tiny")
    model = golden.tiny(TODAY).model
    seen = []
    hooks = [
        layer.register_forward_hook(lambda module, inputs, output: seen.append(output))
        for layer in model.encoder.layers[:2]
    ]
    x = golden.input(1, 256, 256)
    close(model.encoder(x), data["today_enc"], TOKENS)
    for hook in hooks:
        hook.remove()
    close(seen[0][0], data["today_layer0_hidden"], TOKENS)
    close(seen[1][1], data["today_layer1_residual"], TOKENS)
    close(model(x).sigmoid(), data["today_convT_y"], PROBABILITY)


@torch.inference_mode()
def test_padding_to_the_canvas_and_three_channels(golden):
    data = golden.arrays("vimunet_tiny_crop")
    model = golden.tiny(TODAY).model
    x = golden.input(3, 200, 184)
    np.testing.assert_array_equal(x, data["x"])
    padded = torch.nn.functional.pad(x, (0, 72, 0, 56))
    close(model.encoder.tokens(padded), data["today_tokens"], TOKENS)
    close(model(x).sigmoid(), data["today_convT_y"], PROBABILITY)


@torch.inference_mode()
@pytest.mark.parametrize(("layout", "time"), [(TODAY, "today"), pytest.param(PAPER, "paper", marks=pytest.mark.slow)])
def test_small_of_the_reference(golden, layout, time):
    data = golden.arrays("vimunet_small")
    loaded = golden.load(golden.state(layout, small=True))
    assert loaded.spec.architecture == "vimunet-small"
    x = golden.input(1, 256, 256)
    close(loaded.model.encoder.tokens(x), data[f"{time}_tokens"], TOKENS)
    close(loaded.model(x), data[f"{time}_convT_logits"], LOGITS)


@pytest.mark.slow
@torch.inference_mode()
def test_tiny_at_its_official_size(golden):
    data = golden.arrays("vimunet_tiny_1024")
    x = golden.input(1, 512, 512)
    assert zlib.crc32(x.numpy().tobytes()) == data["x_crc32"]
    model = golden.load(golden.state(TODAY, canvas=1024)).model
    encoded = []
    model.encoder.register_forward_hook(lambda module, inputs, output: encoded.append(output))
    y = model(x).sigmoid()
    close(encoded[0][:, ::8], data["today_enc_ch8"], TOKENS)
    close(y[..., ::4, ::4], data["today_convT_y_s4"], PROBABILITY)
    assert float(y.double().mean()) == pytest.approx(float(data["y_mean"]), rel=1e-6)
    assert float(y.double().std()) == pytest.approx(float(data["y_std"]), rel=1e-5)
    assert float(y.double().diff(dim=-1).abs().sum()) == pytest.approx(float(data["y_sum_abs_dx"]), rel=1e-5)


@pytest.mark.parametrize("layout", [TODAY, BILINEAR, PAPER])
def test_names_and_shapes_of_the_reference(golden, layout):
    """Every entry is there, but for the frequencies, which are computed."""
    kind = "bilinear" if layout == BILINEAR else "transpose"
    with torch.device("meta"):
        model = build_model("vimunet-tiny", out_channels=2, canvas=256, upsampling=kind)
    expected = {k: s for k, s in golden.shapes(layout).items() if ".rope." not in k}
    assert {k: tuple(v.shape) for k, v in model.state_dict().items()} == expected


@pytest.mark.parametrize("layout", ["a", "b", "c"])
@torch.inference_mode()
def test_three_layouts_of_keys(golden, layout, tmp_path):
    """Layout c has bilinear samplers and transposed skips; each goes through our own format and back."""
    transposed, bilinear = (golden.state(x, canvas=64) for x in (TODAY, BILINEAR))
    state = {"a": transposed, "b": bilinear}.get(layout)
    if state is None:
        skip = re.compile(r"deconv\d")
        state = {k: v for k, v in transposed.items() if skip.match(k)}
        state |= {k: v for k, v in bilinear.items() if not skip.match(k)}
    loaded = golden.load(state)
    options = loaded.spec.options
    kinds = {"a": ("transpose",) * 2, "b": ("bilinear",) * 2, "c": ("bilinear", "transpose")}[layout]
    assert (options["upsampling"], options["deconv_upsampling"]) == kinds
    assert all(torch.equal(v, state[k]) for k, v in loaded.model.state_dict().items())
    save_checkpoint(tmp_path / "own.safetensors", loaded.model, loaded.spec)
    again = load_checkpoint(tmp_path / "own.safetensors", "vimunet-tiny")
    x = golden.input(1, 64, 48)
    assert torch.equal(again.model(x), loaded.model(x))


def test_generation_is_told_from_the_rotary_frequencies(golden):
    today, paper = (golden.tiny(layout).spec.options for layout in (TODAY, PAPER))
    assert (today["rope"], today["class_token"], today["divide"], today["drop"]) == (False, "middle", True, "first")
    assert (paper["rope"], paper["class_token"], paper["divide"], paper["drop"]) == (True, "first", False, "first")


def test_other_patches_and_channels_are_refused():
    with pytest.raises(InputError, match="patch=12 cannot be doubled to"):
        build_model("vimunet-nano", patch=12, canvas=48)
    with pytest.raises(InputError, match="give 4, from stride 8 to 1"):
        build_model("vimunet-nano", patch=8, canvas=64)
    with pytest.raises(InputError, match=r"stem_widths.*give 3, from stride 1 to 4"):
        build_model("vimunet-nano", patch=8, canvas=64, widths=(8, 8, 8, 8))
    with pytest.raises(InputError, match="give 5, from stride 16"):
        build_model("vimunet-nano", widths=(8, 8))
    with pytest.raises(InputError, match="in_channels=2"):
        build_model("vimunet-tiny", in_channels=2)


@pytest.mark.parametrize("skips", ["stem", "deconv"])
@pytest.mark.parametrize("patch", [4, 8, 32])
def test_every_pixel_sees_the_image_through_patches_of_another_size(patch, skips):
    levels = patch.bit_length() - 1
    shape = {"widths": (8,) * (levels + 1), "stem_widths": (4,) * levels}
    model = build_model("vimunet-nano", patch=patch, canvas=64, skips=skips, depth=1, **shape).eval()
    assert model.divisor == patch
    x = torch.rand(1, 1, 64, 96, requires_grad=True)
    logits = model(x)
    assert logits.shape == x.shape
    (slope,) = torch.autograd.grad(logits[0, 0, :6, :6].sum(), x)
    assert slope[0, 0, 40:, 70:].abs().sum() > 0, "the tokens do not reach the pixels"


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("vimunet-tiny", {"depth": 1}),
        ("vimunet-tiny", {"depth": 1, "upsampling": "bilinear"}),
        ("vimunet-nano", {}),
        ("unet-nano", {}),
    ],
)
@torch.inference_mode()
def test_channels_are_innermost_in_every_map(name, options, batch, monkeypatch):
    """A map that lost its layout is copied by every norm behind it, and all convolutions up to there are slower."""
    model = build_model(name, **({} if name == "unet-nano" else {"canvas": 64}), **options).eval()
    seen = {}

    def look(module, inputs, output):
        seen[module] = [tuple(m.stride()) == innermost(m.shape) for m in (*inputs, output)]

    def innermost(shape):
        return torch.empty(shape, memory_format=torch.channels_last).stride()

    rectified = blocks.rectified

    def seen_rectified(conv, x):
        y = rectified(conv, x)  # which does not call the module, and so no hook
        look(conv, (x,), y)
        return y

    kinds = (torch.nn.Conv2d, torch.nn.ConvTranspose2d)
    convolutions = [
        module
        for part, module in model.named_modules()
        if isinstance(module, kinds) and not (part.startswith("encoder.") and name != "unet-nano")
    ]
    for module in convolutions:
        module.register_forward_hook(look)
    monkeypatch.setattr(blocks, "rectified", seen_rectified)
    model(torch.randn(batch, 1, 64, 64).contiguous())
    assert len(seen) == len(convolutions) > 15
    for module, (before, after) in seen.items():
        assert before or module.in_channels == 1, "its input is in another layout"
        assert after or module.out_channels == 1, "its result is in another layout"
