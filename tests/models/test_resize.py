import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from vimvol.models import resize
from vimvol.models.loops import resize as loops
from vimvol.models.resize import doubled, max_pooled


def draw(batch, channels, size, seed=0, kind=torch.float32):
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(batch, channels, *size, generator=g).to(kind)
    return x.contiguous(memory_format=torch.channels_last)


@settings(max_examples=25, deadline=None)
@given(
    st.integers(1, 2),
    st.sampled_from([1, 16, 24, 48]),
    st.tuples(st.integers(1, 9), st.integers(1, 9)),
    st.sampled_from([torch.float32, torch.bfloat16]),
    st.integers(0, 9),
)
@torch.inference_mode()
def test_as_pytorch(batch, channels, size, kind, seed):
    """Any size, odd ones and single pixels, too, cut into many tasks; channels that are no vectors are PyTorch's."""
    x = draw(batch, channels, size, seed, kind)
    ours = channels % 16 == 0
    assert resize._suits(x) == ours
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(resize, "TASK", 64)
        compare(x, size, kind, ours)


def compare(x, size, kind, ours):
    expected = F.interpolate(x.double(), scale_factor=2, mode="bilinear", align_corners=False)
    found = doubled(x)
    assert found.dtype == kind
    if ours:
        assert found.is_contiguous(memory_format=torch.channels_last)
    bound = {"rtol": 2**-8, "atol": 1e-6} if kind == torch.bfloat16 else {"rtol": 1e-6, "atol": 1e-6}
    torch.testing.assert_close(found.double(), expected, **bound)
    if min(size) > 1:
        assert torch.equal(max_pooled(x), F.max_pool2d(x, 2))


@pytest.mark.parametrize("place", [(0, 0), (0, 1), (1, 0), (1, 1)])
@torch.inference_mode()
def test_what_is_no_number_stays_so(place):
    x = draw(1, 16, (6, 6))  # at an edge PyTorch has it reach further
    x[0, 3, 2 + place[0], 2 + place[1]] = torch.nan
    assert torch.equal(max_pooled(x).isnan(), F.max_pool2d(x, 2).isnan())
    assert max_pooled(x).isnan().sum() == 1
    assert torch.equal(doubled(x).isnan(), F.interpolate(x, scale_factor=2, mode="bilinear").isnan())


@pytest.mark.parametrize(("name", "function"), [("halve", max_pooled), ("double", doubled)])
@torch.inference_mode()
def test_threads_change_nothing(name, function, threads, monkeypatch):
    x = draw(1, 16, (320, 240))
    calls, kernel = [], getattr(loops, name)
    monkeypatch.setattr(loops, name, lambda *given: calls.append(given) or kernel(*given))
    threads(1)
    alone = function(x)
    assert len(calls) > 1, "there was one task alone, or none"
    threads(2)
    assert torch.equal(alone, function(x))


@torch.inference_mode()
def test_whatever_is_the_default():
    x = draw(1, 16, (4, 6))
    expected = max_pooled(x), doubled(x)
    torch.set_default_dtype(torch.float64)
    try:
        with torch.device("meta"):
            found = max_pooled(x), doubled(x)
    finally:
        torch.set_default_dtype(torch.float32)
    assert all(torch.equal(f, e) for f, e in zip(found, expected, strict=True))


def test_gradients_are_those_of_pytorch():
    x = draw(1, 16, (4, 6)).requires_grad_()
    for ours, theirs in (
        (max_pooled(x), F.max_pool2d(x, 2)),
        (doubled(x), F.interpolate(x, scale_factor=2, mode="bilinear")),
    ):
        weights = torch.randn(ours.shape)
        assert torch.equal(*(torch.autograd.grad((y * weights).sum(), x)[0] for y in (ours, theirs)))
