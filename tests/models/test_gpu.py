"""What a GPU computes is what the CPU computes."""

import pytest
import torch

from vimvol.models import build_model
from vimvol.models.scan import BACKENDS, Direction, cuda

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


def direction(device: str, reverse: bool) -> Direction:
    g = torch.Generator().manual_seed(3)
    shapes = ((2, 70, 48), (2, 70, 48), (48, 16), (2, 70, 16), (2, 70, 16), (48,), (48,))
    u, delta, a, *rest = (torch.randn(*shape, generator=g).to(device).requires_grad_() for shape in shapes)
    a = (-a.detach().abs()).requires_grad_()
    return Direction(u, delta, a, *rest, reverse)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("name", ["mamba-ssm", "torch"])
def test_scan_and_gradients(name, reverse):
    if name == "mamba-ssm" and cuda.kernel() is None:
        pytest.skip("mamba-ssm is not installed, or without its kernels")
    results = []
    for device, backend in (("cuda", BACKENDS[name]), ("cpu", BACKENDS["numba"])):
        way = direction(device, reverse)
        assert backend.takes([way], True, False)
        ((y, _),) = backend.scan([way], True)
        gradients = torch.autograd.grad(y.square().sum(), way[:7])
        results.append([t.detach().cpu() for t in (y, *gradients)])
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=2e-5 * max(1.0, float(expected.abs().max())))


@pytest.mark.parametrize(("precision", "bound"), [(torch.float32, 2e-3), (torch.bfloat16, 2e-2)])
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("vimunet-nano", {}),
        ("unet-nano", {}),
        ("nnunet", {"patch": (64, 64), "features": 16}),
        ("umamba-enc", {"patch": (64, 64), "features": 16}),
    ],
)
def test_networks(name, options, precision, bound):
    torch.manual_seed(0)
    model = build_model(name, **options).eval()
    x = torch.randn(2, 1, 128, 96)
    with torch.inference_mode():
        expected = model(x).sigmoid()
        with torch.autocast("cuda", precision, enabled=precision == torch.bfloat16):
            found = model.to("cuda")(x.to("cuda")).float().sigmoid().cpu()
    assert float((found - expected).abs().mean()) < bound
