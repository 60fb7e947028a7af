import subprocess
import sys

import pytest
import torch

from vimvol.errors import InputError
from vimvol.models import MODELS, ModelSpec, build_model, load_checkpoint, save_checkpoint
from vimvol.models.nnunet import NNUNet
from vimvol.models.registry import count_parameters
from vimvol.models.umamba import UMamba
from vimvol.models.unetr import UNETR

SMALL = {
    UNETR: {"embedding": 32, "depth": 4, "heads": 2, "window": 2},
    NNUNet: {"patch": (64, 64), "features": 8, "most": 32},
    UMamba: {"patch": (64, 64), "features": 8, "most": 32},
}
"""Options that make a network that is too large for a test small."""


@pytest.mark.parametrize("name", MODELS)
def test_conformance(name, tmp_path):
    """What every network has to do, and a file of it too."""
    assert MODELS[name].name == name
    assert MODELS[name].purpose
    torch.manual_seed(0)
    options = SMALL.get(MODELS[name].build, {})
    model = build_model(name, out_channels=2, **options)
    size = (2 * model.divisor, 3 * model.divisor)
    x = torch.randn(2, 1, *size)
    logits = model(x)
    assert logits.shape == (2, 2, *size)
    assert torch.isfinite(logits).all()
    assert (logits < 0).any()  # logits, not probabilities
    logits.square().mean().backward()
    silent = [k for k, p in model.named_parameters() if p.grad is None or not torch.isfinite(p.grad).all()]
    assert [k for k in silent if not k.startswith(("encoder.head", "encoder.neck", "heads."))] == []

    model.eval()
    spec = ModelSpec(name, options, out_channels=2, classes=("inside", "boundary"), card={"data": "none"})
    save_checkpoint(tmp_path / "weights.safetensors", model, spec)
    loaded = load_checkpoint(tmp_path / "weights.safetensors", architecture=name)
    assert loaded.spec.classes == spec.classes
    assert loaded.spec.card == spec.card
    with torch.inference_mode():
        assert torch.equal(loaded.model(x), model(x))


@pytest.mark.parametrize("name", MODELS)
def test_images_that_do_not_fit(name):
    with torch.device("meta"):
        model = build_model(name)
        d = model.divisor
        for shape, says in [
            ((1, 1, 2 * d, 2 * d + 1), f"multiples of {d}"),
            ((1, 5, 2 * d, 2 * d), "C = 1"),
            ((2 * d, 2 * d), "B, C, Y, X"),
            ((1, 1, d, d), f"at least {2 * d}"),
            ((1, 1, 0, d), f"multiples of {d}"),
        ]:
            with pytest.raises(InputError, match=says) as caught:
                model(torch.zeros(shape))
            assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["vimunet-nano", "unet-nano", "unet", "unetr-base", "nnunet", "umamba-enc"])
def test_more_channels(name):
    with torch.device("meta"):
        model = build_model(name, in_channels=3, out_channels=4, **SMALL.get(MODELS[name].build, {}))
        size = 2 * model.divisor
        assert model(torch.zeros(1, 3, size, size)).shape == (1, 4, size, size)


@pytest.mark.parametrize("channels", [1, 2, 5])
def test_parameters_of_the_reference(channels):
    """Counts of the reference implementation; each channel of prediction takes 65."""
    expected = {
        ("vimunet-tiny", "transpose", None): 18_499_560,
        ("vimunet-tiny", "bilinear", None): 17_160_168,
        ("vimunet-tiny", "bilinear", "transpose"): 17_971_176,
        ("vimunet-small", "transpose", None): 39_174_888,
        ("vimunet-small", "bilinear", None): 37_540_584,
        ("vimunet-small", "bilinear", "transpose"): 38_646_504,
    }
    for (name, up, skips), count in expected.items():
        found = count_parameters(name, out_channels=channels, upsampling=up, deconv_upsampling=skips)
        assert found == count + 65 * channels, (name, up, skips)
    for name, count in (("base", 113_059_904), ("large", 334_419_776), ("huge", 665_920_064)):
        assert count_parameters(f"unetr-{name}", out_channels=channels) == count + 65 * channels
    assert count_parameters("unet", out_channels=channels) == 28_941_568 + 65 * channels
    assert count_parameters("unet", out_channels=channels, upsampling="transpose") == 31_030_528 + 65 * channels


@pytest.mark.parametrize("channels", [1, 3])
def test_parameters_of_nnunet_and_umamba(channels):
    """Counts of their authors' code for these patches; each channel of prediction takes heads at all resolutions."""
    for patch, heads, counts in (
        ((512, 512), 2023, (46_320_512, 86_143_392, 91_828_384)),
        ((320, 320), 1510, (33_468_800, 63_323_040, 67_312_288)),
    ):
        for name, count in zip(("nnunet", "umamba-bot", "umamba-enc"), counts, strict=True):
            assert count_parameters(name, out_channels=channels, patch=patch) == count + heads * channels


def test_nanos_are_small_and_alike():
    vim, unet = count_parameters("vimunet-nano"), count_parameters("unet-nano")
    assert 1_000_000 < vim < unet < 2_000_000


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("unet", {"features": -4}),
        ("unet", {"depth": "deep"}),
        ("vimunet-tiny", {"embedding": -3}),
        ("unet-nano", {"features": None}),
        ("unet-nano", {"features": 0}),
        ("vimunet-nano", {"state": 0}),
        ("vimunet-nano", {"canvas": 0}),
        ("unetr-base", {"embedding": 0}),
    ],
)
def test_options_that_make_no_network_are_told_in_one_line(name, options):
    (key, value), *_ = options.items()
    with pytest.raises(InputError, match=f"{name}.*{key} = {value!r}") as caught:
        build_model(name, **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("channels", [{"in_channels": 0}, {"out_channels": 0}, {"out_channels": -1}])
def test_channels_that_make_no_network_are_told(channels):
    with pytest.raises(InputError, match=r"network unet-nano cannot have .* channels in and .* out; give 1 or more"):
        build_model("unet-nano", **channels)


@pytest.mark.parametrize("rate", [-0.1, 1, 2])
def test_a_rate_that_skips_every_layer_is_refused(rate):
    with pytest.raises(InputError, match=f"drop_path={rate} is no rate"):
        build_model("vimunet-nano", drop_path=rate)


def test_unknown_names_and_options():
    with pytest.raises(InputError, match=r"'vimunet-tin'; did you mean 'vimunet-tiny'\? there are vimunet-nano, "):
        build_model("vimunet-tin")
    with pytest.raises(InputError, match=r"no option 'width'; it has .*embedding"):
        build_model("vimunet-nano", width=3)
    with pytest.raises(InputError, match="no option 'embedding'; it has features, depth"):
        build_model("unet", embedding=3)


def test_prediction_does_not_depend_on_the_batch():
    torch.manual_seed(0)
    model = build_model("vimunet-nano").eval()
    x = torch.randn(3, 1, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(model(x)[1:2], model(x[1:2]), rtol=1e-4, atol=1e-4)


def test_networks_of_shapes_alone_do_not_load_the_compiler():
    """It would take every process that predicts more than a second, and 100 MB."""
    script = (
        "import sys; from vimvol.models.registry import MODELS, count_parameters; "
        "[count_parameters(name) for name in MODELS]; print({'torch._dynamo', 'sympy'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
