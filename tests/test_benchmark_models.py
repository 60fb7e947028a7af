"""What the benchmark of networks measures on a GPU, seen without one."""

import importlib.util
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from vimvol.models.blocks import ConvBlock

CUDA, CPU = torch.device("cuda"), torch.device("cpu")


@pytest.fixture(scope="module")
def script():
    path = Path(__file__).parents[1] / "benchmarks" / "models.py"
    spec = importlib.util.spec_from_file_location("benchmark_of_models", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def events(monkeypatch):
    """What a device is asked for, in order."""
    found: list[str] = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda _: found.append("wait"))
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda _: found.append("reset"))
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda _: found.append("peak") or 2**21)
    return found


def test_short_calls_are_timed_together(script, events):
    script.timed(lambda: events.append("call"), 2, CUDA, calls=3)
    assert events == ["wait", *["call"] * 3, "wait"] * 3


def test_the_peak_of_a_device_is_that_of_the_call(script, events):
    cost = script.cost(lambda: events.append("call"), 1, CUDA)
    assert events == ["reset", *["wait", "call", "wait"] * 2, "peak"]
    assert cost["peak_mib"] == 2


@pytest.mark.parametrize(("device", "calls"), [(CUDA, 100), (CPU, 1)])
def test_a_convolution_on_a_device_is_one_of_many_between_two_waits(script, device, calls, monkeypatch):
    given = []
    monkeypatch.setattr(script, "timed", lambda function, repeat, device, calls=1: given.append(calls) or 1.0)
    monkeypatch.setattr(torch, "randn", lambda *shape, device, dtype: torch.empty(shape, device="meta"))
    script.convolution_peak(torch.float32, 1, device)
    assert given == [calls] * 2


@pytest.mark.parametrize(("device", "cell"), [(CUDA, " "), (CPU, " 50% ")])
def test_a_scan_has_a_floor_on_a_cpu_alone(script, device, cell, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "a GPU")
    about = script.machine(device) | {"clock": "perf_counter"}
    peaks = {"float32": 100.0, "bfloat16": 200.0}
    scan = {"torch": {"forward_ns": 0.4, "backward_ns": 1.0}}
    table = script.table({"machine": about, "peak_gflops": peaks, "size": 64, "models": [], "scan": scan})
    (row,) = [line for line in table.splitlines() if line.startswith("| torch")]
    assert row.split("|")[4].strip() == cell.strip()


def test_boundaries_are_compared_on_the_device(script, tmp_path, monkeypatch):
    with h5py.File(tmp_path / "raw.h5", "w") as file:
        file["raw"] = np.arange(2 * 16 * 16, dtype=np.uint8).reshape(2, 16, 16)
    places = set()

    class Recorded:
        def __init__(self, network, device, precision):
            places.add(device)

        def predict_block(self, raw, *rest):
            return np.zeros(raw.shape, np.uint8)

    monkeypatch.setattr(script, "Predictor", Recorded)
    assert set(script.bfloat16_difference(f"{tmp_path}/raw.h5:raw", CUDA).values()) == {0.0}
    assert places == {CUDA}


def test_what_is_fused_is_counted(script):
    """The operations of a network are the same with gradients, where nothing is fused."""
    block, x = ConvBlock(3, 5), torch.randn(2, 3, 8, 10)
    counts = []
    for grad in (True, False):
        with torch.set_grad_enabled(grad), FlopCounterMode(display=False, custom_mapping=script.COUNTED) as counter:
            block(x)
        counts.append(counter.get_total_flops())
    assert counts == [2 * 9 * 2 * 80 * (3 * 5 + 5 * 5)] * 2
