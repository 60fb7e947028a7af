"""What a network costs: seconds and memory of one image, in a process of its own, so that its memory is its own."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Any

import torch

from vimvol.engine.usage import forget_peak, memory_of_process, peak_of_process
from vimvol.errors import IncompleteRunError
from vimvol.geometry import round_up
from vimvol.infer.device import is_out_of_memory, resolve_device
from vimvol.models.memory import kept_memory
from vimvol.models.registry import build_model


@dataclass(frozen=True)
class Cost:
    """What an image costs.

    Attributes
    ----------
    seconds
        Median of several forward passes, after one that is not counted.
    mebibytes
        Most memory at a time of weights and maps: of the device, or what a process on a CPU takes beyond what it holds
        when code is loaded and compiled.
    device
        Name of the device, on a CPU with the number of threads.
    """

    seconds: float
    mebibytes: float
    device: str


def measure(
    name: str,
    *,
    out_channels: int = 1,
    options: Mapping[str, Any] | None = None,
    size: int = 512,
    repeat: int = 3,
    device: str = "auto",
) -> Cost:
    """Time the forward pass of a network with random weights, in float32, on an image.

    Parameters
    ----------
    name, out_channels, options
        As `vimvol.models.registry.build_model` takes them.
    size
        Pixels along each axis of the image, rounded up to what the network takes.
    repeat
        Passes that count.
    device
        See `vimvol.infer.device.resolve_device`.

    Raises
    ------
    InputError
        If there is no such network, option or device.
    IncompleteRunError
        If the process does not survive, or the device has too little memory.
    """
    arguments = (name, out_channels, dict(options or {}), size, repeat, device)
    try:
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            return pool.submit(_measured, *arguments).result()
    except (BrokenProcessPool, MemoryError, RuntimeError) as error:  # the first is a RuntimeError, too
        if not isinstance(error, BrokenProcessPool) and not is_out_of_memory(error):
            raise
        raise IncompleteRunError(
            f"network {name} could not be measured on {size} x {size} pixels: memory is too small, probably; choose a "
            "smaller image"
        ) from None


def _measured(name: str, out_channels: int, options: Mapping[str, Any], size: int, repeat: int, device: str) -> Cost:
    where = resolve_device(device)

    def passes(extent: int, count: int) -> list[float]:
        """Return the seconds of several passes of a fresh network."""
        model = build_model(name, out_channels=out_channels, **options).to(where).eval()
        extent = round_up(extent, 2 * int(getattr(model, "divisor", 1)))
        image = torch.randn(1, 1, extent, extent, device=where)
        seconds = []
        with torch.inference_mode(), kept_memory():  # as the predictor does for a block
            for _ in range(count):
                begin = time.perf_counter()
                model(image)
                if where.type == "cuda":
                    torch.cuda.synchronize(where)
                seconds.append(time.perf_counter() - begin)
        return seconds

    passes(1, 1)  # loads and compiles code, which is not the network's memory
    before = memory_of_process() or peak_of_process()
    forget_peak()
    seconds = passes(size, repeat + 1)[1:]
    if where.type == "cuda":
        peak, about = torch.cuda.max_memory_allocated(where), torch.cuda.get_device_name(where)
    else:
        peak, about = peak_of_process() - before, f"{where.type}, {torch.get_num_threads()} threads"
    return Cost(statistics.median(seconds), peak / 2**20, about)
