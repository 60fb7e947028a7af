"""The scan on a device, as far as that can be seen without one."""

import logging
import sys
from pathlib import Path

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from vimvol.models.scan import Direction, cuda, plain

PACKAGE = "mamba_ssm"
EXTENSION = "selective_scan_cuda"
INTERFACE = "def selective_scan_fn(*_): return 'scanned'\n"


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Return what installs a `mamba-ssm` of which two modules have this text; no text: the extension is missing."""

    def forget():
        cuda._loaded.cache_clear()
        for name in [name for name in sys.modules if name.split(".")[0] in (PACKAGE, EXTENSION)]:
            del sys.modules[name]

    def write(package: str, extension: str | None) -> Path:
        operators = tmp_path / PACKAGE / "ops"
        operators.mkdir(parents=True)
        (tmp_path / PACKAGE / "__init__.py").write_text(
            f"open({str(tmp_path / 'log')!r}, 'a').write('loaded ')\n{package}"
        )
        (operators / "__init__.py").touch()
        (operators / "selective_scan_interface.py").write_text(INTERFACE)
        if extension is not None:
            (tmp_path / f"{EXTENSION}.py").write_text(extension)
        monkeypatch.syspath_prepend(str(tmp_path))
        return tmp_path / "log"

    forget()
    yield write
    forget()


def test_kernels_that_load_are_taken_whatever_their_package_warns_of(install, caplog):
    install("import warnings\nwarnings.warn('old', FutureWarning)", "")
    assert cuda.kernel()() == "scanned"
    assert not caplog.records


@pytest.mark.parametrize(
    ("package", "extension", "reason"),
    [
        ("", None, "ModuleNotFoundError: No module named 'selective_scan_cuda'"),
        ("", "raise ImportError('undefined symbol: _ZN3c10')", "ImportError: undefined symbol: _ZN3c10"),
        ("raise RuntimeError('0 active drivers.\\nThere should be one.')", "", "RuntimeError: 0 active drivers. There"),
    ],
    ids=["no extension", "of another PyTorch", "no driver"],
)
def test_kernels_that_do_not_load_are_told_once_and_not_tried_again(install, caplog, package, extension, reason):
    """The interface itself loads in all cases but the last, and its function fails when it is called."""
    log = install(package, extension)
    with caplog.at_level(logging.WARNING):
        assert [cuda.kernel() for _ in range(3)] == [None] * 3
    (record,) = caplog.records
    assert "plain PyTorch on the GPU" in record.getMessage()
    assert reason in record.getMessage()
    assert "\n" not in record.getMessage()
    assert not log.exists() or log.read_text() == "loaded "


def direction(device: str, length: int = 9, channels: int = 4, states: int = 2) -> Direction:
    shapes = (
        (1, length, channels),
        (1, length, channels),
        (channels, states),
        (1, length, states),
        (1, length, states),
    )
    return Direction(*(torch.empty(shape, device=device) for shape in shapes))


@pytest.mark.parametrize("name", ["u", "delta", "A", "B", "C"])
def test_double_precision_in_any_sequence_is_left_to_pytorch(name, monkeypatch):
    monkeypatch.setattr(cuda, "kernel", lambda: max)
    with FakeTensorMode():
        way = direction("cuda")
        assert cuda.takes([way], True, False)
        assert not cuda.takes([way._replace(**{name: getattr(way, name).double()})], True, False)


class Operators(TorchDispatchMode):
    """Counts operators; on a device each that is no view is a launch."""

    count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += 1
        return function(*args, **(kwargs or {}))


def test_a_device_is_given_little_more_than_an_operator_a_position():
    length = 640
    with Operators() as operators, torch.no_grad():
        plain.scan([direction("meta", length, 384, 16)], True)
    assert operators.count < 1.1 * length
