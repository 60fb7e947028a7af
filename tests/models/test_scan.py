import functools
import os
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from vimvol.models import scan
from vimvol.models.loops import workers
from vimvol.models.scan import BACKENDS, Backend, Direction, cpu, cuda, plain, scan_directions, selective_scan

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
    before, plain.CHUNK_ELEMENTS = plain.CHUNK_ELEMENTS, elements
    try:
        y, last = selective_scan(**data, return_last_state=True)
    finally:
        plain.CHUNK_ELEMENTS = before
    expected = slow(*data.values())
    torch.testing.assert_close((y, last), expected)


def test_gradients_of_output_and_last_state():
    data = arguments(2, 3, 19, 2)  # more than one chunk of the smallest size
    before, plain.CHUNK_ELEMENTS = plain.CHUNK_ELEMENTS, 1
    try:
        inputs = tuple(v.requires_grad_() for v in data.values())
        assert torch.autograd.gradcheck(lambda *v: selective_scan(*v, return_last_state=True), inputs)
    finally:
        plain.CHUNK_ELEMENTS = before


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


def direction(batch: int, channels: int, length: int, states: int, seed: int = 0, reverse: bool = False) -> Direction:
    """Draw float32 arguments as a network has them: steps of any sign before softplus, decaying states."""
    g = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=g)

    tokens = (batch, length)
    u, delta, b, c = draw(*tokens, channels), 4 * draw(*tokens, channels), draw(*tokens, states), draw(*tokens, states)
    return Direction(u, delta, -8 * draw(channels, states).abs(), b, c, draw(channels), draw(channels), reverse)


def tensors(way: Direction) -> list[Tensor]:
    return [t for t in way if isinstance(t, Tensor)]


def double(way: Direction) -> Direction:
    return Direction(*(t.double() if isinstance(t, Tensor) else t for t in way))


def with_gradients(backend: Backend, ways: list[Direction], weights: list[tuple[Tensor, Tensor]]) -> list[Tensor]:
    """Return y, last states, and the gradients of a weighted sum of them."""
    inputs = [t.detach().requires_grad_() for way in ways for t in tensors(way)]
    fresh = [Direction(*inputs[i * 7 : i * 7 + 7], way.reverse) for i, way in enumerate(ways)]
    assert backend.takes(fresh, True, False)
    results = backend.scan(fresh, True)
    loss = sum(((y * wy).sum() + (last * wl).sum()) for (y, last), (wy, wl) in zip(results, weights, strict=True))
    return [t.detach() for pair in results for t in pair] + list(torch.autograd.grad(loss, inputs))


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 3), st.integers(1, 150), st.integers(1, 70), st.integers(1, 9), st.booleans(), st.integers(0, 99))
def test_compiled_as_plain(batch, channels, length, states, reverse, seed):
    """Any number of channels beside whole blocks, of positions beside whole chunks, and of states."""
    way = direction(batch, channels, length, states, seed, reverse)
    random = torch.Generator().manual_seed(seed)
    weights = [
        (torch.randn(batch, length, channels, generator=random), torch.randn(batch, channels, states, generator=random))
    ]
    found = with_gradients(BACKENDS["numba"], [way], weights)
    expected = with_gradients(BACKENDS["torch"], [double(way)], [(weights[0][0].double(), weights[0][1].double())])
    for number, (f, e) in enumerate(zip(found, expected, strict=True)):
        # Gradients are sums over positions, of terms that may be ten times what is left of them: 1.4e-5 was seen.
        bound = 1e-5 if number < 2 else 1e-4
        np.testing.assert_allclose(f, e, rtol=0, atol=bound * max(1.0, float(e.abs().max())))


def test_a_network_is_computed_by_compiled_kernels():
    way = direction(1, 4, 8, 2)
    assert cpu.takes([way], True, False)
    assert not cuda.takes([way], True, False)


@pytest.mark.parametrize("change", [{"A": torch.ones(4, 2)}, {"u": torch.ones(1, 8, 4, dtype=torch.float64)}])
def test_what_the_kernels_cannot_do_is_left_to_pytorch(change):
    """Growing states overflow the exponent; double precision is not compiled."""
    way = direction(1, 4, 8, 2)._replace(**change)
    assert not cpu.takes([way], True, False)
    (y,) = scan_directions([way], True)
    torch.testing.assert_close(y, plain.scan([way], True)[0][0].to(way.u.dtype))


def test_a_negative_step_is_left_to_pytorch():
    way = direction(1, 4, 8, 2)._replace(delta_bias=None)
    assert not cpu.takes([way], False, False)
    assert cpu.takes([way._replace(delta=way.delta.abs())], False, False)


def test_two_directions_in_one_call():
    ways = [direction(2, 70, 40, 4, 1), direction(2, 70, 40, 4, 2, reverse=True)]
    both = scan_directions(ways, True)
    for y, way in zip(both, ways, strict=True):
        assert torch.equal(y, scan_directions([way], True)[0])
    mirrored = Direction(*(t.flip(1) if t.ndim == 3 else t for t in tensors(ways[1])))
    torch.testing.assert_close(both[1], scan_directions([mirrored], True)[0].flip(1), rtol=0, atol=0)


def test_values_that_are_no_numbers_stay_visible():
    for name in ("u", "delta", "A", "B", "C", "D", "delta_bias"):
        way = direction(1, 4, 8, 2)
        bad = getattr(way, name).clone()
        bad.view(-1)[0] = torch.nan
        (y,) = scan_directions([way._replace(**{name: bad})], True)
        assert y.isnan().any(), name


def test_steps_of_any_size():
    """Softplus of large and of tiny steps, against double precision."""
    way = direction(1, 64, 30, 4)
    delta = torch.linspace(-80, 80, way.delta.numel()).view_as(way.delta)
    way = way._replace(delta=delta, delta_bias=None)
    (y,), (expected,) = scan_directions([way], True), scan_directions([double(way)], True)
    torch.testing.assert_close(y.double(), expected, rtol=0, atol=2e-6 * float(expected.abs().max()))


def test_threads_change_nothing():
    way = direction(2, 200, 50, 4)
    weights = [(torch.randn(2, 50, 200), torch.randn(2, 200, 4))]
    alone = with_gradients(BACKENDS["numba"], [way], weights)
    torch.set_num_threads(4)
    try:
        together = with_gradients(BACKENDS["numba"], [way], weights)
    finally:
        torch.set_num_threads(1)
    assert all(torch.equal(a, b) for a, b in zip(alone, together, strict=True))


def test_many_callers_at_once():
    """Threads of a program that predict side by side share the helpers and wait for each other at no point."""
    ways = [direction(1, 130, 64, 4, seed) for seed in range(8)]
    expected = [scan_directions([way], True)[0] for way in ways]
    torch.set_num_threads(3)
    try:
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(lambda way: scan_directions([way], True)[0], ways * 5))
    finally:
        torch.set_num_threads(1)
    assert all(torch.equal(f, e) for f, e in zip(found, expected * 5, strict=True))


def interrupt():
    raise KeyboardInterrupt


@pytest.mark.parametrize("own", [True, False], ids=["own threads", "PyTorch's threads"])
def test_threads_run_everything_once_and_hand_errors_on(own, monkeypatch):
    if own:
        monkeypatch.setattr(workers, "_team", lambda: None)
    elif workers._team() is None:
        pytest.skip("this PyTorch has no OpenMP that can be entered")
    torch.set_num_threads(4)
    try:
        done: list[int] = []
        workers.run([lambda i=i: done.append(i) for i in range(50)])
        assert sorted(done) == list(range(50))
        with pytest.raises(ZeroDivisionError):
            workers.run([lambda: 1 / 0 for _ in range(4)])
        with pytest.raises(KeyboardInterrupt):  # in whichever thread it comes
            workers.run([interrupt] * 4)
        together = threading.Barrier(2)
        workers.run([lambda: together.wait(20)] * 2)  # passes if two run at once
        assert len(done) == 50
    finally:
        torch.set_num_threads(1)


def test_no_signal_is_lost_wherever_it_comes():
    """A handler that raises, as that of Ctrl-C, may run at any instruction of the main thread, of a callback, too."""
    program = """
import os, signal, threading, time, torch
from vimvol.models.loops import workers
torch.set_num_threads(2)
sent = seen = 0
raised = []
def stop(*_):
    raised.append(1)
    raise KeyboardInterrupt
signal.signal(signal.SIGINT, stop)
main = threading.main_thread().ident
for round in range(60):
    begun, over = threading.Event(), False
    def send():
        begun.wait()
        time.sleep(round % 7 * 1e-5)
        signal.pthread_kill(main, signal.SIGINT)
    thread = threading.Thread(target=send)
    thread.start()
    try:
        begun.set()
        end = time.monotonic() + 5
        while time.monotonic() < end:
            workers.run([lambda: None] * 8)
    except KeyboardInterrupt:
        seen += 1
    thread.join()
assert seen == len(raised) == 60, (seen, len(raised))
"""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", program], timeout=120, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="threads of a process are counted in /proc")
def test_tasks_bring_no_threads_beside_those_of_pytorch():
    program = """
import os, torch
from vimvol.models.loops import workers
torch.set_num_threads(4)
torch.rand(1 << 20).add_(1)  # the team of PyTorch is there
before = len(os.listdir('/proc/self/task'))
workers.run([lambda: None] * 40)
torch.rand(1 << 20).add_(1)
after = len(os.listdir('/proc/self/task'))
print(before, after, workers._team() is None)
"""
    command = [sys.executable, "-W", "ignore", "-c", program]
    before, after, none = subprocess.run(command, check=True, timeout=60, capture_output=True, text=True).stdout.split()
    if none == "True":
        pytest.skip("this PyTorch has no OpenMP that can be entered")
    assert before == after


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_forked_process_has_helpers_of_its_own():
    """As the workers of a data loader are."""
    program = """
import os, torch
from vimvol.models.loops import workers
torch.set_num_threads(2)
workers.run([lambda: None] * 4)
child = os.fork()
if child == 0:
    done = []
    workers.run([lambda i=i: done.append(i) for i in range(20)])
    os._exit(0 if sorted(done) == list(range(20)) else 1)
assert os.waitpid(child, 0)[1] == 0
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", program], check=True, timeout=60)


SCAN = """
import sys, torch
from vimvol.models.scan import Direction, cpu, scan_directions
assert 'numba' not in sys.modules  # importing compiles nothing
way = Direction(*(torch.ones(s) for s in ((1, 9, 4), (1, 9, 4), (4, 2), (1, 9, 2), (1, 9, 2))))
way = way._replace(A=-way.A)
assert cpu.takes([way], True, False)
print(float(scan_directions([way], True)[0].sum()))
"""


def installed(folder: Path) -> Path:
    """Copy the package without what is cached beside it."""
    source = Path(scan.__file__).parents[2]
    shutil.copytree(source, folder / "vimvol", ignore=shutil.ignore_patterns("__pycache__", "weights"))
    return folder


def environment(folder: Path, **more: str) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith("NUMBA_")}
    return kept | {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"} | more


def test_processes_that_compile_at_once(tmp_path):
    """Workers of a new installation all find an empty cache; each must end with kernels that work."""
    folder = installed(tmp_path)
    start = functools.partial(
        subprocess.Popen, [sys.executable, "-c", SCAN], cwd=folder, env=environment(folder), text=True
    )
    starts = [start(stdout=subprocess.PIPE) for _ in range(2)]
    printed = {process.communicate(timeout=240)[0] for process in starts}
    assert [process.returncode for process in starts] == [0, 0]
    assert len(printed) == 1
    assert list(folder.rglob("scan.forward*.nbc"))
    again = start(stdout=subprocess.PIPE)
    assert again.communicate(timeout=240)[0] == printed.pop()


def test_no_folder_for_the_cache(tmp_path):
    """An installation that belongs to someone else, for a user without a home."""
    folder = installed(tmp_path)
    (folder / "vimvol" / "models" / "loops" / "__pycache__").write_text("")  # no folder can be made here, nor below
    blocked = environment(folder, HOME=str(folder / "file"), XDG_CACHE_HOME=str(folder / "file" / "cache"))
    (folder / "file").write_text("")
    done = subprocess.run(
        [sys.executable, "-c", SCAN], cwd=folder, env=blocked, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr
    assert not list(folder.rglob("*.nbc"))


BITS = """
import hashlib, torch
from vimvol.models.scan import Direction, scan_directions
draw = torch.Generator().manual_seed(0)
way = Direction(*(torch.randn(s, generator=draw) for s in ((2, 90, 70), (2, 90, 70), (70, 8), (2, 90, 8), (2, 90, 8))))
way = way._replace(A=-way.A.abs(), D=torch.ones(70), delta_bias=torch.zeros(70))
given = [tensor.requires_grad_() for tensor in way[:7]]
y = scan_directions([way], True)[0]
for tensor in (y, *torch.autograd.grad((y * y).sum(), given)):
    print(hashlib.sha256(tensor.detach().contiguous().numpy().tobytes()).hexdigest())
"""


def test_what_is_loaded_computes_the_same_bits_as_what_was_just_compiled(tmp_path):
    """Else the first process after an installation would differ from all others."""
    folder = installed(tmp_path)
    run = functools.partial(subprocess.check_output, cwd=folder, env=environment(folder), timeout=240)
    first, second = (run([sys.executable, "-c", BITS]) for _ in range(2))
    assert first.count(b"\n") == 8
    assert first == second
