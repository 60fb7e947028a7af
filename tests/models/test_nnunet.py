import re

import pytest
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet, ResidualUNet
from torch import nn

from vimvol.errors import InputError
from vimvol.models import build_model
from vimvol.models.mamba import Mamba
from vimvol.models.plan import plan_unet
from vimvol.models.umamba import MambaLayer
from vimvol.models.vim import Mixer

SMALL = {"patch": (32, 48), "spacing": (1.0, 2.5), "features": 4, "most": 12}
NAMES = {"encoder.stages.": "encoder.", "decoder.stages.": "decoder.", "encoder.stem.": "stem."}
NAMES |= {"decoder.transpconvs.": "doublings.", "decoder.seg_layers.": "heads."}


def original(kind: type[nn.Module], blocks: str) -> nn.Module:
    """A network of the package as nnU-Net builds it, with PyTorch's own norm."""
    plan = plan_unet(*SMALL.values())
    torch.manual_seed(0)
    network = kind(
        input_channels=1,
        n_stages=len(plan.strides),
        features_per_stage=plan.features,
        conv_op=nn.Conv2d,
        kernel_sizes=plan.kernels,
        strides=plan.strides,
        num_classes=2,
        n_conv_per_stage_decoder=2,
        conv_bias=True,
        norm_op=nn.InstanceNorm2d,
        norm_op_kwargs={"eps": 1e-5, "affine": True},
        nonlin=nn.LeakyReLU,
        nonlin_kwargs={"inplace": True},
        **{blocks: 2},
    )
    with torch.no_grad():
        for name, value in network.named_parameters():
            if "all_modules.1." in name or ".norm." in name:
                value.add_(0.2 * torch.randn_like(value))
    return network


def weights(network: nn.Module) -> dict[str, torch.Tensor]:
    """Its weights, by the names that they have here, each once."""
    return {
        NAMES[begin] + key.removeprefix(begin): value
        for key, value in network.state_dict().items()
        for begin in NAMES
        if key.startswith(begin) and not re.search(r"\.(conv|norm)\.\w+$", key)
    }


@pytest.mark.parametrize(
    ("name", "kind", "blocks"),
    [("nnunet", PlainConvUNet, "n_conv_per_stage"), ("umamba-bot", ResidualUNet, "n_blocks_per_stage")],
)
def test_it_is_the_network_of_the_package(name, kind, blocks):
    """Values and gradients at every resolution, but for Mamba blocks."""
    theirs, ours = original(kind, blocks), build_model(name, out_channels=2, **SMALL)
    if name == "umamba-bot":
        ours.mamba = nn.ModuleDict()
    ours.load_state_dict(weights(theirs))
    x = torch.randn(2, 1, 64, 96)
    theirs.decoder.deep_supervision = True
    expected, found = theirs(x), ours.supervised(x)
    assert len(found) == len(expected) - 1  # nnU-Net gives the coarsest no weight
    for f, e in zip(found, expected, strict=False):
        torch.testing.assert_close(f, e, rtol=0, atol=2e-5)
    for outputs in (expected, found):
        sum(o.square().mean() for o in outputs[: len(found)]).backward()
    by_place = {p.data_ptr(): p.grad for p in theirs.parameters()}
    gradients = {key: by_place[value.data_ptr()] for key, value in weights(theirs).items()}
    largest = max(float(g.abs().max()) for g in gradients.values() if g is not None)
    for key, value in ours.named_parameters():
        assert (value.grad is None) == (gradients[key] is None) == key.startswith("heads.0.")
        if value.grad is not None:
            torch.testing.assert_close(value.grad, gradients[key], rtol=0, atol=1e-5 * largest, msg=key)
    theirs.decoder.deep_supervision = False
    with torch.inference_mode():  # the norm is another function without gradients
        torch.testing.assert_close(ours(x), theirs(x), rtol=0, atol=2e-5)


@pytest.mark.parametrize("name", ["nnunet", "umamba-enc"])
@pytest.mark.parametrize("batch", [1, 2])
@torch.inference_mode()
def test_channels_are_innermost_in_every_map(name, batch):
    """Else the norm copies a map, and convolutions are slower."""
    model, seen = build_model(name, **SMALL).eval(), []

    def look(module, inputs, output):
        seen.extend(m.is_contiguous(memory_format=torch.channels_last) for m in (*inputs, output))

    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d) and module.in_channels > 1:
            module.register_forward_hook(look)
    model(torch.randn(batch, 1, 64, 96).contiguous())
    assert len(seen) > 40
    assert all(seen)


@pytest.mark.parametrize(("name", "count"), [("umamba-bot", 1), ("umamba-enc", 5)])
def test_where_mamba_blocks_are(name, count):
    model = build_model(name, **SMALL)
    assert len(model.encoder) == 5
    layers = [m for m in model.modules() if isinstance(m, MambaLayer)]
    assert len(layers) == count
    seen = []
    for layer in layers:
        layer.register_forward_hook(lambda _, x, y: seen.append((x[0].shape, y.shape)))
    model(torch.zeros(1, 1, 32, 48))
    assert all(x == y for x, y in seen)
    assert [x[1] for x, _ in seen] == [4, 8, 12, 12, 12][-count:]


def test_no_other_place_for_mamba_blocks():
    with pytest.raises(InputError, match="mamba='decoder'"):
        build_model("umamba-bot", mamba="decoder")


def test_one_direction_is_the_forward_half_of_two():
    """The mixer of ViM, which the reference's numbers prove, whose other direction adds nothing."""
    torch.manual_seed(0)
    mamba, both = Mamba(32), Mixer(32, 16, 1, divide=False)
    state = {k: v for k, v in mamba.state_dict().items() if k not in both.state_dict()}
    assert not state
    both.load_state_dict(both.state_dict() | mamba.state_dict())
    with torch.no_grad():
        both.x_proj_b.weight.zero_()
        both.D_b.zero_()
    h = torch.randn(2, 30, 32)
    torch.testing.assert_close(mamba(h), both(h), rtol=1e-5, atol=1e-6)


def test_a_pixel_sees_itself_and_those_before_it():
    torch.manual_seed(0)
    layer = MambaLayer(8)
    x = torch.randn(1, 8, 4, 5, requires_grad=True)
    (gradient,) = torch.autograd.grad(layer(x)[0, :, 2, 1].sum(), x)
    reached = (gradient != 0).any(1).flatten()
    assert reached[:12].all()
    assert not reached[12:].any()


def test_mamba_blocks_stay_in_float32():
    layer = MambaLayer(16)
    x = torch.randn(1, 16, 6, 6)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(layer(x), layer(x.clone()))
        half = layer(x.bfloat16())
    assert half.dtype == torch.bfloat16
    assert torch.equal(half, layer(x.bfloat16().float()).bfloat16())
