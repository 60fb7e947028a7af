"""Time every network on an image, and the selective scan, against what the processor could do at best.

    python benchmarks/models.py                 # all networks, 512 x 512, every thread; minutes
    python benchmarks/models.py --quick         # 256 x 256, one repetition
    python benchmarks/models.py --data a.h5:raw # also how far bfloat16 moves the boundaries of the shipped weights

Prints a table in Markdown and writes it with its numbers to ``--out``. Every network runs in a process of its own, so
that its memory is its own. With a CUDA device that device is measured, otherwise the CPU.
"""

from __future__ import annotations

import argparse
import datetime
import json
import math
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from vimvol.errors import VimvolError
from vimvol.infer.predictor import Predictor
from vimvol.infer.tiles import make_tiling
from vimvol.models import MODELS, build_model
from vimvol.models.memory import kept_memory
from vimvol.models.registry import count_parameters
from vimvol.models.scan import BACKENDS, Direction

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
CLOCK = [time.perf_counter]
"""The last one measures."""

SCAN_OPERATIONS = 20
"""Floating-point operations an element and state on a CPU: an exponential of 14, the recurrence and the output."""

CALLS = 100
"""Convolutions that a device is given between two measurements: to wait for one takes as long as to compute it."""


def fused_flop(_x: Any, weight: Any, *_: Any, out_shape: Any, **__: Any) -> int:  # noqa: ANN401
    """Return what a convolution that applies what follows takes, which PyTorch counts for plain ones alone."""
    return 2 * math.prod(out_shape) * math.prod(weight[1:])


FUSED = getattr(torch.ops.mkldnn, "_convolution_pointwise", None)
COUNTED = {} if FUSED is None else {FUSED: fused_flop}


def main() -> None:
    """Measure, print and write."""
    arguments = parse()
    if arguments.shared:
        CLOCK.append(time.process_time)
    torch.set_num_threads(arguments.threads)
    torch.backends.cudnn.allow_tf32 = False  # nor does a prediction in float32 round on a GPU
    device = torch.device(arguments.device)
    if arguments.child:
        print(json.dumps(measure_model(arguments.child, arguments.size, arguments.repeat, device)))
        return
    peaks = {name: convolution_peak(dtype, arguments.repeat, device) for name, dtype in DTYPES.items()}
    result: dict[str, Any] = {
        "machine": machine(device) | {"clock": CLOCK[-1].__name__},
        "size": arguments.size,
        "peak_gflops": peaks,
        "models": [],
    }
    for name in arguments.models or MODELS:
        print(f"{name} ...", file=sys.stderr, flush=True)
        result["models"].append({"name": name, **in_process(name, arguments)})
        write(result, arguments.out)
    result["scan"] = measure_scan(arguments.repeat, device)
    if arguments.data:
        result["bfloat16_difference"] = bfloat16_difference(arguments.data, device)
    print(write(result, arguments.out))


def write(result: dict[str, Any], out: Path) -> str:
    """Write what there is so far, and return the table."""
    text = table(result)
    out.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")
    out.with_suffix(".md").write_text(text)
    return text


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cuda = torch.cuda.is_available()
    parser.add_argument("--quick", action="store_true", help="256 x 256 pixels, one repetition")
    parser.add_argument("--models", nargs="*", help="names; all where not given")
    parser.add_argument("--size", type=int, default=512, help="pixels along an axis of the image")
    parser.add_argument("--repeat", type=int, default=5, help="repetitions, of which the median counts")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--shared", action="store_true", help="one thread and its processor time: others work here too")
    parser.add_argument("--device", default="cuda" if cuda else "cpu")
    parser.add_argument("--limit", type=float, default=600, help="seconds that a network may take in all")
    parser.add_argument("--data", help="FILE.h5:DATASET, uint8 (z, y, x), to compare boundaries in bfloat16")
    parser.add_argument("--out", type=Path, default=Path("benchmark-models"), help="files to write, without suffix")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.size, arguments.repeat = 256, 1
    if arguments.shared:
        arguments.threads = 1
    return arguments


def machine(device: torch.device) -> dict[str, str]:
    """Return what the numbers belong to."""
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        lines = dict(line.split(":", 1) for line in info.read_text().splitlines() if ":" in line)
        fields = {key.strip(): value.strip() for key, value in lines.items()}
        flags = fields.get("flags", "").split()
        wide = [flag for flag in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if flag in flags]
        name = f"{fields.get('model name', name)} ({', '.join(wide)})"
    return {
        "kind": device.type,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else name,
        "threads": str(torch.get_num_threads()),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numba": metadata.version("numba"),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }


def timed(function: Callable[[], object], repeat: int, device: torch.device, calls: int = 1) -> float:
    """Return the median of the seconds of a call, several of them between two waits; the first round is not counted."""
    seconds = []
    for _ in range(1 + repeat):
        wait(device)
        begin = CLOCK[-1]()
        for _ in range(calls):
            function()
        wait(device)
        seconds.append((CLOCK[-1]() - begin) / calls)
    return statistics.median(seconds[1:])


def wait(device: torch.device) -> None:
    """Wait until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def convolution_peak(dtype: torch.dtype, repeat: int, device: torch.device) -> float:
    """Return the GFLOP/s of the fastest of two 3 x 3 convolutions that these networks are made of."""
    best = 0.0
    calls = CALLS if device.type == "cuda" else 1
    for channels, size in ((64, 512), (256, 128)):
        x = torch.randn(1, channels, size, size, device=device, dtype=dtype).contiguous(
            memory_format=torch.channels_last
        )
        weight = torch.randn(channels, channels, 3, 3, device=device, dtype=dtype)
        with torch.inference_mode():
            seconds = timed(lambda x=x, w=weight: F.conv2d(x, w, padding=1), max(3, repeat), device, calls)
        best = max(best, 2 * 9 * channels**2 * size**2 / seconds / 1e9)
    return best


def in_process(name: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure a network in a fresh process; a reason where it cannot be measured."""
    options = {"size": arguments.size, "repeat": arguments.repeat, "threads": arguments.threads}
    command = [sys.executable, __file__, "--child", name, "--device", arguments.device]
    command += ["--shared"] if arguments.shared else []
    command += [part for key, value in options.items() for part in (f"--{key}", str(value))]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=arguments.limit)
    except subprocess.TimeoutExpired:
        return {"skipped": f"more than {arguments.limit:.0f} s"}
    if done.returncode:
        return {"skipped": (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1][:120]}
    measured: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return measured


def measure_model(name: str, size: int, repeat: int, device: torch.device) -> dict[str, Any]:
    """Return parameters, FLOPs of an image, and seconds and memory in each precision."""
    try:
        parameters = count_parameters(name)
        model = build_model(name).to(device).eval()
    except VimvolError as error:
        return {"skipped": str(error)}
    x = torch.randn(1, 1, size, size, device=device)
    with torch.no_grad(), FlopCounterMode(display=False, custom_mapping=COUNTED) as counter:
        model(x)
    result: dict[str, Any] = {"parameters": parameters, "gflop": counter.get_total_flops() / 1e9}
    for precision in DTYPES:

        def run(half: bool = precision == "bfloat16") -> None:
            with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=half):
                model(x)

        with kept_memory():  # as the predictor does for a block
            result[precision] = cost(run, repeat, device)
    return result


def cost(function: Callable[[], object], repeat: int, device: torch.device) -> dict[str, float]:
    """Return the seconds of a call, and the most MiB that it held on the device.

    On a CPU it is what the process has held so far, Python and libraries with it.
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    seconds = timed(function, repeat, device)
    if device.type == "cuda":
        peak = torch.cuda.max_memory_allocated(device) / 2**20
    else:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    return {"seconds": seconds, "peak_mib": peak}


def measure_scan(repeat: int, device: torch.device) -> dict[str, Any]:
    """Return ns an element and state of every backend, both directions of a layer of ViM-UNet small."""
    batch, length, channels, states = 1, 1024, 768, 16
    g = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=g).to(device)

    def direction(reverse: bool) -> Direction:
        rows = draw(batch, length, channels), draw(batch, length, channels)
        small = -draw(channels, states).abs(), draw(batch, length, states), draw(batch, length, states)
        return Direction(*rows, *small, draw(channels), draw(channels), reverse)

    ways = [direction(False), direction(True)]
    learned = [Direction(*(t.clone().requires_grad_() for t in way[:7]), way.reverse) for way in ways]
    inputs = [t for way in learned for t in way[:7]]
    elements = len(ways) * batch * length * channels * states
    found: dict[str, Any] = {}
    for name, backend in BACKENDS.items():
        if not backend.takes(ways, True, False):
            continue

        def forward(scan: Callable[..., object] = backend.scan) -> None:
            with torch.inference_mode():
                scan(ways, True)

        ys = [y for y, _ in backend.scan(learned, True)]
        grads = [torch.ones_like(y) for y in ys]

        def backward(ys: list[torch.Tensor] = ys, grads: list[torch.Tensor] = grads) -> None:
            torch.autograd.grad(ys, inputs, grads, retain_graph=True)

        count = 3 * repeat if name != "torch" else 1
        with kept_memory():  # as above
            seconds = timed(forward, count, device), timed(backward, count, device)
        found[name] = {"forward_ns": seconds[0] / elements * 1e9, "backward_ns": seconds[1] / elements * 1e9}
    return found


def bfloat16_difference(data: str, device: torch.device, slices: int = 3) -> dict[str, float]:
    """Return the mean absolute difference of boundary probabilities of shipped weights, bfloat16 against float32."""
    import h5py

    from vimvol.geometry import Block
    from vimvol.infer.standardization import Standardization
    from vimvol.models import load_checkpoint, shipped

    path, dataset = data.rsplit(":", 1)
    with h5py.File(path) as file:
        raw = np.asarray(file[dataset][:slices])
    standard = Standardization((float(raw.mean()),), (float(raw.std()),))
    found = {}
    for name in shipped():
        network: Any = load_checkpoint(name).model
        tiling = make_tiling(raw.shape, (256, 256), (32, 32), network.divisor)
        box = Block((0, 0, 0), raw.shape)
        maps = [
            Predictor(network, device, precision).predict_block(raw, box, box, tiling, standard, 1).astype(np.float64)
            for precision in DTYPES
        ]
        found[name] = float(np.abs(maps[0] - maps[1]).mean() / 255)
    return found


def table(result: dict[str, Any]) -> str:
    """Return the numbers as Markdown."""
    about, peaks = result["machine"], result["peak_gflops"]
    baseline = next((m["float32"]["seconds"] for m in result["models"] if m["name"] == "unet" and "gflop" in m), None)
    lines = [
        f"{about['device']}, {about['threads']} threads ({about['clock']}); "
        f"torch {about['torch']}, numba {about['numba']}, "
        f"Python {about['python']}; {about['date']}. Image of {result['size']} x {result['size']} pixels. "
        f"Convolution peak: float32 {peaks['float32']:.0f}, bfloat16 {peaks['bfloat16']:.0f} GFLOP/s.",
        "",
        "| network | parameters | GFLOP | float32 s | of UNet | of floor | MiB | bfloat16 s | of UNet | times | MiB |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for m in result["models"]:
        if "skipped" in m:
            lines.append(f"| {m['name']} | {m['skipped']} |" + " |" * 9)
            continue
        full, half = m["float32"], m["bfloat16"]
        floor = m["gflop"] / peaks["float32"] / full["seconds"]
        ratios = [f"{d['seconds'] / baseline:.2f}" if baseline else "" for d in (full, half)]
        cells = [m["name"], f"{m['parameters']:,}", f"{m['gflop']:.0f}", f"{full['seconds']:.3f}", ratios[0]]
        cells += [f"{floor:.0%}", f"{full['peak_mib']:.0f}", f"{half['seconds']:.3f}", ratios[1]]
        cells += [f"{full['seconds'] / half['seconds']:.2f}", f"{half['peak_mib']:.0f}"]
        lines.append("| " + " | ".join(cells) + " |")
    # On a GPU an exponential is an instruction, and convolutions may have units that a scan cannot use.
    least = SCAN_OPERATIONS / peaks["float32"] if about["kind"] == "cpu" else None
    lines += ["", "| selective scan | forward ns | backward ns | forward, of floor |", "|---|---|---|---|"]
    for name, value in result.get("scan", {}).items():
        cells = [
            name,
            f"{value['forward_ns']:.3f}",
            f"{value['backward_ns']:.3f}",
            "" if least is None else f"{least / value['forward_ns']:.0%}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    for name, difference in result.get("bfloat16_difference", {}).items():
        lines += ["", f"Boundaries of {name} in bfloat16 differ by {difference:.4f} on average."]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
