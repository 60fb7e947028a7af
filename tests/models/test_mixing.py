import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from vimvol.models import mixing, rms
from vimvol.models.loops import rms as loops
from vimvol.models.mixing import Way, mix
from vimvol.models.rms import RMSNorm

kernel = loops.scale_sum

SIZES = st.tuples(st.integers(1, 2), st.sampled_from([1, 2, 3, 5, 40]), st.sampled_from([1, 7, 16, 50]))


def way(channels: int, reverse: bool = False, state: int = 4) -> Way:
    rank = 3
    return Way(
        nn.Conv1d(channels, channels, 4, groups=channels, padding=3),
        nn.Linear(channels, rank + 2 * state, bias=False),
        nn.Linear(rank, channels),
        torch.rand(channels, state),
        torch.randn(channels),
        reverse,
    )


def both(z: Tensor, ways: list[Way], factor: float, kind: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return what the compiled loops give, and PyTorch in double precision."""
    with torch.inference_mode(), pytest.MonkeyPatch.context() as patch:
        assert mixing._suits(z)
        patch.setattr(mixing, "TASK", 64)  # so that there are several
        with torch.autocast("cpu", torch.bfloat16, enabled=kind == torch.bfloat16):
            found = mix(z, ways, factor)
    doubled = [Way(*(m.double() for m in one[:5]), one.reverse) for one in ways]
    with torch.no_grad():
        expected = mix(z.double(), doubled, factor)
    for one in ways:  # modules are changed in place
        for module in one[:3]:
            module.float()
    return found, expected


@settings(max_examples=20, deadline=None)
@given(SIZES, st.sampled_from([[False], [True], [False, True]]), st.sampled_from([1.0, 0.5]), st.integers(0, 9))
def test_as_pytorch_in_double_precision(size, reverse, factor, seed):
    """Sequences shorter than the convolution, channels that fill no register, one direction or two."""
    torch.manual_seed(seed)
    batch, length, channels = size
    z = torch.randn(batch, length, 2 * channels)
    found, expected = both(z, [way(channels, back) for back in reverse], factor, torch.float32)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5 * max(1.0, float(expected.abs().max())))


def test_bfloat16_is_rounded_once():
    """All between what comes in and what goes out is float32, also under autocast."""
    torch.manual_seed(0)
    z = torch.randn(1, 60, 64).bfloat16()
    found, expected = both(z, [way(32), way(32, True)], 0.5, torch.bfloat16)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.double(), expected, rtol=2**-8, atol=1e-5 * float(expected.abs().max()))


@torch.inference_mode()
def test_large_and_missing_numbers():
    """Where the exponential of silu would overflow, and what is no number stays so, and where it is."""
    z = torch.zeros(1, 6, 2)
    z[0, :, 1] = torch.tensor([-1e4, -200.0, -88.5, 89.0, 200.0, torch.nan])
    one = way(1)
    y = mix(z, [one])
    assert torch.isfinite(y[0, :5]).all()
    z[0, :2, 1] = torch.tensor([-3e38, -torch.inf])
    y = mix(z, [one])
    assert not y[0, 0].any()
    assert y[0, 1].isnan().all()
    z[0, :2, 1] = 0
    assert y[0, 5].isnan().all()
    z[0, 2, 0] = torch.nan
    y = mix(z, [one])
    assert torch.isfinite(y[0, :2]).all()
    assert y[0, 2:].isnan().all()


@torch.inference_mode()
def test_threads_change_nothing(threads):
    torch.manual_seed(0)
    z, ways = torch.randn(2, 700, 256), [way(128), way(128, True)]
    assert mixing.TASK < 700 * 128, "there would be one task alone"
    threads(1)
    alone = mix(z, ways)
    threads(2)
    assert torch.equal(alone, mix(z, ways))


@torch.inference_mode()
def test_from_memory_in_another_order():
    torch.manual_seed(0)
    z, ways = torch.randn(2, 20, 32), [way(16), way(16, True)]
    assert torch.equal(mix(z, ways), mix(z.transpose(1, 2).contiguous().transpose(1, 2), ways))


def test_no_third_direction():
    with pytest.raises(ValueError, match="not in 3"):
        mix(torch.randn(1, 4, 8), [way(4)] * 3)


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
def test_root_mean_square(kind, monkeypatch):
    """With and without gradients, from maps in any layout, cut into many tasks."""
    torch.manual_seed(0)
    monkeypatch.setattr(rms, "TASK", 64)
    calls = []
    monkeypatch.setattr(loops, "scale_sum", lambda *given: calls.append(given) or kernel(*given))
    norm = RMSNorm(50)
    with torch.no_grad():
        norm.weight.normal_()
    h, residual = torch.randn(2, 50, 9).to(kind).transpose(1, 2), torch.randn(2, 50, 9).transpose(1, 2)
    expected, sums = norm(h, residual)
    with torch.inference_mode():
        found, total = norm(h, residual)
    assert len(calls) > 2
    assert found.dtype == kind
    assert total.dtype == torch.float32
    assert torch.equal(total, sums)
    torch.testing.assert_close(found, expected, rtol=2**-8 if kind == torch.bfloat16 else 1e-6, atol=1e-6)
    with torch.inference_mode():  # of shapes that PyTorch spreads out
        small, total = norm(h, residual[:1, :1])
    assert torch.equal(total, residual[:1, :1] + h.float())
    assert small.dtype == kind
