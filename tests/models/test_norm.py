import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from vimvol.models import norm
from vimvol.models.norm import InstanceNorm, instance_norm


def draw(batch: int, channels: list[int], size: tuple[int, int], seed: int = 0) -> list[Tensor]:
    g = torch.Generator().manual_seed(seed)
    return [3 * torch.randn(batch, c, *size, generator=g) + 5 for c in channels]


@settings(max_examples=25, deadline=None)
@given(
    st.integers(1, 2),
    st.lists(st.sampled_from([1, 3, 16, 40, 80]), min_size=1, max_size=3),
    st.tuples(st.integers(1, 20), st.integers(2, 24)),
    st.booleans(),
    st.integers(0, 9),
)
def test_values_and_gradients(batch, channels, size, last, seed):
    """Any number of maps and channels, pixels in any number and either layout, as PyTorch in double precision."""
    maps = draw(batch, channels, size, seed)
    layout = torch.channels_last if last else torch.contiguous_format
    own = [m.clone(memory_format=layout).requires_grad_() for m in maps]
    theirs = [m.double().requires_grad_() for m in maps]
    found, expected = instance_norm(*own), F.instance_norm(torch.cat(theirs, 1))
    assert found.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=2e-5)
    weights = torch.randn(expected.shape, generator=torch.Generator().manual_seed(seed))
    gradients = torch.autograd.grad((found * weights).sum(), own)
    for f, e in zip(gradients, torch.autograd.grad((expected * weights).sum(), theirs), strict=True):
        torch.testing.assert_close(f.double(), e, rtol=0, atol=2e-5 * max(1.0, float(e.abs().max())))


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 2), st.sampled_from([1, 16, 40, 80]), st.sampled_from([1.0, 0.01]), st.sampled_from([1, 5, 24]))
def test_with_what_follows(batch, channels, slope, width):
    """With and without gradients, as PyTorch in double precision."""
    own = InstanceNorm(channels, slope)
    with torch.no_grad():
        own.weight.normal_(1, 0.5)
        own.bias.normal_()
    exact = InstanceNorm(channels, slope).double()
    exact.load_state_dict(own.state_dict())
    (x,) = draw(batch, [channels], (8, width))
    y = F.leaky_relu(F.instance_norm(x.double(), weight=exact.weight, bias=exact.bias), slope)
    torch.testing.assert_close(exact(x.double()), y)
    torch.testing.assert_close(own(x).double(), y, rtol=0, atol=5e-5)
    with torch.inference_mode():
        torch.testing.assert_close(own(x).double(), y.detach(), rtol=0, atol=5e-5)
        half = own(x.bfloat16())
        assert half.dtype == torch.bfloat16
        torch.testing.assert_close(half.double(), exact(x.bfloat16().double()), rtol=2**-8, atol=1e-3)
    weights = torch.randn(y.shape, generator=torch.Generator().manual_seed(0))
    found = torch.autograd.grad((own(x) * weights).sum(), [own.weight, own.bias])
    for f, e in zip(found, torch.autograd.grad((y * weights).sum(), [exact.weight, exact.bias]), strict=True):
        torch.testing.assert_close(f.double(), e, rtol=1e-4, atol=1e-3)


def test_mean_far_from_zero():
    """Squares of values about 10000 would cancel in single precision."""
    x = 1e4 + torch.randn(1, 3, 64, 64)
    torch.testing.assert_close(instance_norm(x).double(), F.instance_norm(x.double()), rtol=0, atol=2e-3)


@pytest.mark.parametrize("contrast", [1e-3, 1e-2, 1e-1])
def test_little_contrast_far_from_zero(contrast):
    """The mean is kept to more digits than one float32 has, which a channel of two pixels would show."""
    noise = torch.randn(1, 500, 1, 2, generator=torch.Generator().manual_seed(0))
    x = (5 + contrast * noise).requires_grad_()
    exact = x.detach().double().requires_grad_()
    found, expected = instance_norm(x), F.instance_norm(exact)
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=5e-6)
    gradients = [torch.autograd.grad(y[..., 0].sum(), v)[0] for y, v in ((found, x), (expected, exact))]
    torch.testing.assert_close(gradients[0].double(), gradients[1], rtol=1e-5, atol=5e-5)


@pytest.mark.parametrize("place", [(0, 0), (-1, -1), (3, 5)])
def test_a_single_pixel_far_from_the_others(place):
    """As a convolution that pads makes at the edge of a channel with little contrast."""
    (x,) = draw(1, [16], (64, 64))
    x[:, :, *place] = 3000
    torch.testing.assert_close(instance_norm(x).double(), F.instance_norm(x.double()), rtol=2e-6, atol=2e-6)


def test_bfloat16_rounds_once():
    (x,) = (m.to(torch.bfloat16) for m in draw(2, [24], (16, 16)))
    y = instance_norm(x)
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.double(), F.instance_norm(x.double()), rtol=2**-8, atol=1e-4)


def test_bfloat16_keeps_what_is_no_number():
    x = torch.ones(1, 20, 4, 4, dtype=torch.bfloat16)
    x[0, 3, 1, 1] = torch.nan
    y = instance_norm(x)
    assert y[0, 3].isnan().all()
    assert not y[0, :3].isnan().any()


def test_other_devices_and_dtypes_are_left_to_pytorch():
    for x in (torch.ones(1, 2, 4, 4, dtype=torch.float64), torch.ones(1, 2, 4, 4, device="meta")):
        assert not norm._suits(x)
        assert norm.arranged(x) is x
        assert instance_norm(x, x).shape == (1, 4, 4, 4)


def test_a_channel_without_contrast_becomes_zero():
    assert not instance_norm(torch.full((1, 2, 8, 8), 7.0)).any()


@pytest.mark.parametrize("channels", [16, 200])
def test_threads_change_nothing(channels):
    maps = [m.requires_grad_() for m in draw(1, [channels, channels], (130, 130))]

    def run() -> list[Tensor]:
        y = instance_norm(*maps)
        return [y.detach(), *torch.autograd.grad(y.square().sum() + (y**3).sum(), maps)]

    alone = run()
    torch.set_num_threads(3)
    try:
        together = run()
    finally:
        torch.set_num_threads(1)
    assert all(torch.equal(a, t) for a, t in zip(alone, together, strict=True))
