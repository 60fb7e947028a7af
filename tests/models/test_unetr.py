"""UNETR: files of the reference and of Segment Anything, and what its skips are."""

import pytest
import torch
from torch import Tensor, nn

from tests.support import small_config
from vimvol.commands.segment import segment_volume
from vimvol.errors import CheckpointError, InputError
from vimvol.models import ModelSpec, build_model, load_checkpoint, save_checkpoint
from vimvol.models.checkpoint import read_spec, read_weights

WIDTHS = {"base": 768, "large": 1024, "huge": 1280}
SMALL = {"embedding": 16, "depth": 4, "heads": 2, "window": 2, "canvas": 64, "widths": (16, 12, 8, 4, 4)}


def light(name: str, **options: object) -> dict[str, Tensor]:
    """Entries of a network as a file holds them, each with one value for all its elements, which takes no memory."""
    with torch.device("meta"):
        model = build_model(name, **options)
    return {
        k: torch.tensor(n % 7 / 100).to(v.dtype).expand(v.shape) for n, (k, v) in enumerate(model.state_dict().items())
    }


def segment_anything(name: str) -> dict[str, Tensor]:
    """A checkpoint in the layout of segment-anything."""
    encoder = {"image_" + k: v for k, v in light(name).items() if k.startswith("encoder.")}
    other = {"mask_decoder.iou_token.weight": torch.zeros(1, 256), "prompt_encoder.no_mask_embed.weight": torch.ones(1)}
    return {**encoder, **other}


@pytest.mark.parametrize("name", WIDTHS)
@pytest.mark.parametrize("kinds", [("transpose", "transpose"), ("bilinear", "bilinear"), ("bilinear", "transpose")])
def test_a_checkpoint_of_the_reference_is_known_by_its_names_and_shapes(name, kinds, tmp_path):
    state = light(f"unetr-{name}", out_channels=2, upsampling=kinds[0], deconv_upsampling=kinds[1])
    torch.save({"model_state": state, "epoch": 7}, tmp_path / "best.pt")
    spec = read_spec(tmp_path / "best.pt")
    assert (spec.architecture, spec.in_channels, spec.out_channels) == (f"unetr-{name}", 1, 2)
    assert (spec.options["upsampling"], spec.options["deconv_upsampling"]) == kinds
    assert (spec.options["canvas"], spec.options["pad_to_canvas"]) == (1024, True)
    if name == "base":
        loaded = load_checkpoint(tmp_path / "best.pt").model
        assert all(torch.equal(v, state[k]) for k, v in loaded.state_dict().items())


def test_names_of_the_reference():
    """Entries of torch-em's UNETR with the encoder of segment-anything."""
    names = set(light("unetr-base"))
    block = ("attn.proj", "attn.qkv", "mlp.lin1", "mlp.lin2", "norm1", "norm2")
    expected = {f"encoder.blocks.{n}.{m}.{k}" for n in range(12) for m in block for k in ("weight", "bias")}
    expected |= {f"encoder.blocks.{n}.attn.rel_pos_{axis}" for n in range(12) for axis in "hw"}
    expected |= {"encoder.pos_embed", "encoder.patch_embed.proj.weight", "encoder.patch_embed.proj.bias"}
    expected |= {f"encoder.neck.{n}" for n in ("0.weight", "1.weight", "1.bias", "2.weight", "3.weight", "3.bias")}
    assert {n for n in names if n.startswith("encoder.")} == expected
    deconvs = ["deconv1", "deconv2.0", "deconv2.1", "deconv3.0", "deconv3.1", "deconv3.2"]
    modules = {f"{d}.block.{m}" for d in deconvs for m in ("0.block", "1.block", "2")} | {"deconv4.block.1"}
    assert modules < {n.rsplit(".", 1)[0] for n in names}


@pytest.mark.parametrize("name", WIDTHS)
def test_segment_anything_gives_the_encoder(name, tmp_path):
    path = tmp_path / "sam_vit.pth"
    torch.save(segment_anything(f"unetr-{name}"), path)
    assert read_spec(path).architecture == f"unetr-{name}"
    if name == "base":
        weights, all_of_it = read_weights(path), light("unetr-base")
        assert set(weights) == {k for k in all_of_it if k.startswith("encoder.")}
        assert all(torch.equal(weights[k], all_of_it[k]) for k in weights)
    with pytest.raises(
        CheckpointError, match=f"encoder without a decoder and cannot predict; .* unetr-{name}"
    ) as error:
        load_checkpoint(path)
    assert "\n" not in str(error.value)


def test_files_that_do_not_fit_are_told_with_key_and_shape(tmp_path):
    path, whole = tmp_path / "best.pt", light("unetr-base")
    key = "encoder.blocks.11.attn.rel_pos_h"
    for state, says in [
        (
            {k: v for k, v in whole.items() if k != key},
            r"lacks encoder\.blocks\.11\.attn\.rel_pos_h of shape \(127, 64\)",
        ),
        (whole | {key: torch.zeros(27, 64)}, r"rel_pos_h of shape \(27, 64\) where the network has \(127, 64\)"),
        (whole | {"encoder.pos_embed": torch.zeros(1)}, r"encoder\.pos_embed of shape \(1,\)"),
        (whole | {"encoder.patch_embed.proj.weight": torch.zeros(99, 3, 16, 16)}, "width 99; this package knows 768"),
        ({k: v for k, v in whole.items() if k != "encoder.pos_embed"}, "lacks the entry 'encoder.pos_embed'"),
    ]:
        torch.save(state, path)
        with pytest.raises(CheckpointError, match=says) as error:
            load_checkpoint(path)
        assert "\n" not in str(error.value)


def test_a_skip_is_the_deeper_the_coarser_and_the_image_is_the_last():
    """Tokens of the third, second and first global block are doubled once, twice and three times."""
    torch.manual_seed(0)
    model = build_model("unetr-base", **SMALL).eval()
    x = torch.randn(1, 1, 64, 96)
    seen: dict[str, Tensor] = {}

    def note(name: str) -> object:
        return lambda module, inputs, output: seen.__setitem__(name, inputs[0])

    for number in range(1, 5):
        model.get_submodule(f"deconv{number}").register_forward_hook(note(str(number)))
    tokens, maps = model.encode(x)
    last, inner = model.encoder(x)
    assert torch.equal(tokens, last)
    assert [m.shape[1:] for m in maps] == [(16, 8, 12), (12, 16, 24), (8, 32, 48), (4, 64, 96)]
    assert all(torch.equal(seen[str(3 - n)], m) for n, m in enumerate(inner))
    assert torch.equal(seen["4"], x.expand(-1, 3, -1, -1))


def test_grey_images_are_three_equal_channels_and_small_ones_are_padded_where_the_reference_does():
    torch.manual_seed(0)
    model = build_model("unetr-base", **SMALL).eval()
    x = torch.randn(1, 1, 32, 48)
    torch.testing.assert_close(model(x), model(x.expand(-1, 3, -1, -1)))
    padded = build_model("unetr-base", **SMALL, pad_to_canvas=True).eval()
    padded.load_state_dict(model.state_dict())
    whole = nn.functional.pad(x, (0, 16, 0, 32))
    torch.testing.assert_close(padded(x), model(whole)[..., :32, :48])
    with pytest.raises(InputError, match="exceeds the canvas of 64"):
        padded(torch.zeros(1, 1, 80, 64))


def test_it_segments_a_volume(sample, tmp_path):
    torch.manual_seed(0)
    save_checkpoint(tmp_path / "small.safetensors", build_model("unetr-base", **SMALL), ModelSpec("unetr-base", SMALL))
    config = small_config(predict__model=str(tmp_path / "small.safetensors"))
    assert segment_volume(f"{sample}:raw", str(tmp_path / "out.zarr"), config).segments > 0


@torch.inference_mode()
def test_logits_of_the_reference(rule, golden_input):
    """What torch-em 0.10.9 computes with the encoder of segment-anything 1.0, every 60th row and 80th column."""
    options = {"embedding": 64, "depth": 8, "heads": 4, "canvas": 320, "pad_to_canvas": True}
    model = build_model("unetr-base", **options).eval()
    model.load_state_dict({k: rule(k, tuple(v.shape)) for k, v in model.state_dict().items()})
    expected = [
        [0.28324, 1.56596, 0.02489, 0.21811],
        [0.18627, 1.29501, 0.58707, 1.39481],
        [0.21985, 3.77879, 0.37849, 0.89248],
        [1.09420, 2.22029, 0.25947, -0.93028],
        [0.28523, 0.23715, 1.59612, -0.13582],
    ]
    found = model(golden_input(1, 300, 320))[0, 0, ::60, ::80]
    torch.testing.assert_close(found, torch.tensor(expected), rtol=0, atol=5e-5)
