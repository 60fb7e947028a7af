import os
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from vimvol.models import blocks
from vimvol.models.blocks import ConvBlock, rectified


@pytest.fixture
def fused(monkeypatch):
    """Count the calls of the fused operator."""
    calls, find = [], blocks._fused

    def counting(kind):
        operator = find(kind)
        return operator and (lambda *given: calls.append(given) or operator(*given))

    monkeypatch.setattr(blocks, "_fused", counting)
    return calls


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize(("inputs", "outputs", "size"), [(1, 16, 20), (16, 16, 6), (40, 24, 20)])
def test_relu_within_the_convolution(fused, inputs, outputs, size, batch, half):
    """Up to rounding the same with and without gradients, also under autocast, in the same layout."""
    torch.manual_seed(0)
    conv = nn.Conv2d(inputs, outputs, 3, padding=1)
    x = torch.randn(batch, inputs, size, 24).contiguous(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        expected = rectified(conv, x)
        assert torch.equal(expected, F.relu(conv(x)))
        assert not fused
        with torch.inference_mode():
            found, plain = rectified(conv, x), F.relu(conv(x))
    assert len(fused) == (not half or blocks._fused(torch.bfloat16) is not None)
    assert found.dtype == (torch.bfloat16 if half else torch.float32)
    assert found.stride() == plain.stride()
    assert (found == 0).any()
    bound = {"rtol": 2**-7, "atol": 1e-3} if half else {"rtol": 1e-5, "atol": 1e-5}
    torch.testing.assert_close(found, expected, **bound)


@pytest.mark.parametrize("kind", [torch.float64, torch.float16, torch.bfloat16])
def test_other_dtypes_are_those_of_the_convolution(kind):
    block, x = ConvBlock(3, 4).to(kind), torch.randn(1, 3, 8, 8).to(kind)
    expected = block(x)
    with torch.inference_mode():
        found = block(x)
        assert found.dtype == expected.dtype == kind
        torch.testing.assert_close(found, expected)
        with torch.autocast("cpu", torch.bfloat16, enabled=kind == torch.float64):
            assert block(x).dtype == kind
        with pytest.raises(RuntimeError, match=r"dtype|type"):
            rectified(block.block["1"], x.float())


@pytest.mark.filterwarnings("ignore:TF32")  # which the context manager switches, too
@pytest.mark.parametrize("missing", ["operator", "library"])
@torch.inference_mode()
def test_without_the_operator(monkeypatch, missing):
    """An operator of PyTorch's own that a later release may not have, and a library that may be switched off."""
    conv, x = nn.Conv2d(3, 4, 3, padding=1), torch.randn(1, 3, 8, 8)
    expected = rectified(conv, x)
    if missing == "operator":
        monkeypatch.setattr(torch.ops, "mkldnn", object())
        assert blocks._fused(torch.float32) is None
        assert blocks._fused(torch.bfloat16) is None
        torch.testing.assert_close(rectified(conv, x), expected)
    else:
        with torch.backends.mkldnn.flags(enabled=False):
            assert blocks._fused(torch.float32) is None
            torch.testing.assert_close(rectified(conv, x), expected)


OLD = """
import torch
from vimvol.models import build_model
model = build_model("unet-nano").eval()
with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
    assert model(torch.randn(1, 1, 32, 32)).isfinite().all()
"""


def test_bfloat16_on_a_processor_without_it():
    """PyTorch imitates it there, which the fused operator refuses to do."""
    environment = {**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2"}
    subprocess.run([sys.executable, "-c", OLD], env=environment, check=True, timeout=240)
