import contextlib

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from vimvol.models.blocks import rectified


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize(("inputs", "outputs"), [(1, 16), (16, 16), (40, 24)])
def test_relu_within_the_convolution(inputs, outputs, half):
    """The same numbers with and without gradients, also under autocast, in the same layout."""
    torch.manual_seed(0)
    conv = nn.Conv2d(inputs, outputs, 3, padding=1)
    x = torch.randn(2, inputs, 20, 24).contiguous(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16) if half else contextlib.nullcontext():
        expected = rectified(conv, x)
        assert torch.equal(expected, F.relu(conv(x)))
        with torch.inference_mode():
            found = rectified(conv, x)
    assert found.dtype == (torch.bfloat16 if half else torch.float32)
    assert (found == 0).any()
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


@torch.inference_mode()
def test_without_the_operator(monkeypatch):
    """An operator of PyTorch's own that a later release may not have."""
    conv, x = nn.Conv2d(3, 4, 3, padding=1), torch.randn(1, 3, 8, 8)
    expected = rectified(conv, x)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    torch.testing.assert_close(rectified(conv, x), expected)
    assert torch.equal(rectified(conv, x), F.relu(conv(x)))
