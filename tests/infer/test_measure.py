import os
import signal

import pytest

from vimvol.errors import IncompleteRunError, InputError
from vimvol.infer import measure as module
from vimvol.infer.measure import measure


def test_a_wider_network_costs_more():
    narrow, wide = (
        measure("unet-nano", out_channels=2, options={"features": f}, size=130, repeat=2, device="cpu") for f in (4, 32)
    )
    assert 0 < narrow.seconds < wide.seconds
    assert 0 < narrow.mebibytes < wide.mebibytes
    # the maps of the first level alone: 32 channels of 144 x 144 float32
    assert wide.mebibytes > 32 * 144**2 * 4 / 2**20
    assert narrow.device.startswith("cpu, ")


def test_what_is_wrong_is_told_from_the_other_process():
    with pytest.raises(InputError, match="no network is called 'unet-nan'"):
        measure("unet-nan")


def test_too_little_memory_is_told():
    with pytest.raises(IncompleteRunError, match="unet-nano could not be measured on 10000000 x 10000000 pixels"):
        measure("unet-nano", size=10**7, device="cpu")


def killed(*_):
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_process_that_is_killed_is_told(monkeypatch):
    monkeypatch.setattr(module, "_measured", killed)
    with pytest.raises(IncompleteRunError, match="unet-nano could not be measured on 64 x 64 pixels"):
        measure("unet-nano", size=64)
