import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from vimvol.models import scan
from vimvol.models.scan import selective_scan

NAMES = ("u", "delta", "A", "B", "C", "D", "z", "delta_bias")


def slow(u: Tensor, delta: Tensor, a: Tensor, b: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """The recurrence as it is written in the paper."""
    h = torch.zeros(u.shape[0], u.shape[1], a.shape[1], dtype=u.dtype)
    ys = []
    for position in range(u.shape[2]):
        step = delta[:, :, position, None]
        h = torch.exp(step * a) * h + step * b[:, None, :, position] * u[:, :, position, None]
        ys.append((h * c[:, None, :, position]).sum(-1))
    return torch.stack(ys, -1), h


def arguments(batch: int, channels: int, length: int, states: int, seed: int = 0) -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=g, dtype=torch.float64)

    sequence = (batch, channels, length)
    return {
        "u": draw(*sequence),
        "delta": draw(*sequence).abs(),
        "A": -draw(channels, states).abs(),
        "B": draw(batch, states, length),
        "C": draw(batch, states, length),
    }


@pytest.mark.parametrize("case", ["full", "nozd", "odd"])
@pytest.mark.parametrize(("dtype", "bound", "grad_bound"), [(torch.float32, 5e-6, 2e-5), (torch.float64, 1e-12, 1e-12)])
def test_reference(golden, case, dtype, bound, grad_bound):
    data = golden.arrays("selective_scan")
    given_ = {n: torch.from_numpy(data[f"{case}__in_{n}"]).to(dtype) for n in NAMES if f"{case}__in_{n}" in data}
    for value in given_.values():
        value.requires_grad_()
    y, last = selective_scan(**given_, delta_softplus=bool(data[f"{case}__softplus"]), return_last_state=True)
    assert y.dtype == dtype
    np.testing.assert_allclose(y.detach(), data[f"{case}__y_f64"], rtol=0, atol=bound)
    np.testing.assert_allclose(last.detach(), data[f"{case}__last_f64"], rtol=0, atol=bound)
    (y * torch.from_numpy(data[f"{case}__lossw"])).sum().backward()
    for name, value in given_.items():
        expected = data[f"{case}__g_{name}_f64"]
        np.testing.assert_allclose(value.grad, expected, rtol=0, atol=grad_bound * max(1, abs(expected).max()))


@settings(max_examples=25, deadline=None)
@given(
    st.integers(1, 3), st.integers(1, 5), st.integers(1, 40), st.integers(1, 6), st.integers(1, 200), st.integers(0, 9)
)
def test_any_shape_and_chunk(batch, channels, length, states, elements, seed):
    """However the sequence is cut for the cache, the result is that of the plain recurrence."""
    data = arguments(batch, channels, length, states, seed)
    before, scan.CHUNK_ELEMENTS = scan.CHUNK_ELEMENTS, elements
    try:
        y, last = selective_scan(**data, return_last_state=True)
    finally:
        scan.CHUNK_ELEMENTS = before
    expected = slow(*data.values())
    torch.testing.assert_close((y, last), expected)


def test_gradients_of_output_and_last_state():
    data = arguments(2, 3, 19, 2)  # more than one chunk of the smallest size
    before, scan.CHUNK_ELEMENTS = scan.CHUNK_ELEMENTS, 1
    try:
        inputs = tuple(v.requires_grad_() for v in data.values())
        assert torch.autograd.gradcheck(lambda *v: selective_scan(*v, return_last_state=True), inputs)
    finally:
        scan.CHUNK_ELEMENTS = before


def test_gradients_with_everything():
    data = {**arguments(1, 3, 6, 2), **{n: torch.randn(3, dtype=torch.float64) for n in ("D", "delta_bias")}}
    data["z"] = torch.randn(1, 3, 6, dtype=torch.float64)
    inputs = tuple(data[n].requires_grad_() for n in NAMES)
    assert torch.autograd.gradcheck(lambda *v: selective_scan(*v, delta_softplus=True), inputs)


def test_only_some_gradients_asked():
    data = arguments(1, 2, 5, 3)
    data["B"].requires_grad_()
    selective_scan(**data).sum().backward()
    assert data["B"].grad is not None
    assert data["u"].grad is None


def test_long_and_strongly_decaying_sequence_stays_finite():
    """A product of 2000 decays underflows; nothing is divided by it."""
    data = {k: v.float() for k, v in arguments(1, 4, 2000, 3).items()}
    data["A"] *= 50
    for value in data.values():
        value.requires_grad_()
    y = selective_scan(**data)
    y.sum().backward()
    torch.testing.assert_close(y, slow(*data.values())[0], rtol=1e-4, atol=1e-4)
    assert all(torch.isfinite(v.grad).all() for v in data.values())


def test_autocast_and_half_precision_compute_in_float32():
    data = arguments(1, 4, 64, 3)
    halves = {k: v.to(torch.bfloat16) for k, v in data.items()}
    expected = selective_scan(**{k: v.float() for k, v in halves.items()})
    with torch.autocast("cpu", torch.bfloat16):
        y = selective_scan(**halves)
        assert y.dtype == torch.bfloat16
        torch.testing.assert_close(y, expected.to(torch.bfloat16))
        assert torch.equal(selective_scan(**{k: v.float() for k, v in halves.items()}), expected)


def test_gradients_inside_autocast():
    data = {k: v.float().requires_grad_() for k, v in arguments(1, 4, 64, 3).items()}
    expected = torch.autograd.grad(selective_scan(**data).sum(), tuple(data.values()))
    with torch.autocast("cpu", torch.bfloat16):
        found = torch.autograd.grad(selective_scan(**data).sum(), tuple(data.values()))
    assert all(torch.equal(f, e) for f, e in zip(found, expected, strict=True))


def test_softplus_is_taken_after_the_bias():
    data = arguments(1, 2, 7, 2)
    bias = torch.tensor([0.3, -2.0], dtype=torch.float64)
    plain = data | {"delta": F.softplus(data["delta"] + bias[:, None])}
    torch.testing.assert_close(selective_scan(**data, delta_bias=bias, delta_softplus=True), selective_scan(**plain))
