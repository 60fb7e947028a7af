"""Reference data: weights and inputs are made by a rule from the names of their entries, outputs are stored."""

import ast
import functools
import re
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from vimvol.models import LoadedModel, load_checkpoint

SMALL = {192: 384, 384: 768, 768: 1536, 44: 56, 12: 24}
"""Extents of ViM tiny and those of small, in the encoder."""


def generator(name: str) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(zlib.crc32(name.encode("ascii"))))


@functools.cache
def fill(key: str, shape: tuple[int, ...]) -> Tensor:
    """Return the value of an entry; the first rule that fits holds."""
    rng, last = generator(key), key.rsplit(".", 1)[-1]
    if last == "num_batches_tracked" or last.startswith("freqs_"):  # frequencies are computed, not read
        return torch.zeros(shape, dtype=torch.int64 if last[0] == "n" else torch.float32)
    if re.search(r"dt_proj(_b)?\.bias$", key):
        step = np.exp(rng.random(shape) * (np.log(0.1) - np.log(0.001)) + np.log(0.001)).clip(1e-4)
        return torch.from_numpy(step + np.log(-np.expm1(-step))).float()
    n = rng.standard_normal(shape)
    if last == "running_mean":
        n = 0.1 * n
    elif last == "running_var":
        n = 1 + 0.1 * np.abs(n)
    elif last in ("A_log", "A_b_log"):
        n = np.log(np.arange(1, shape[1] + 1)) + 0.1 * n
    elif last in ("D", "D_b") or (len(shape) == 1 and last == "weight"):
        n = 1 + 0.1 * n
    elif last in ("pos_embed", "cls_token"):
        n = 0.2 * n
    elif len(shape) == 1:
        n = 0.05 * n
    elif shape[2:] == (2, 2):
        n = n * np.sqrt(2 / shape[0])
    else:
        gain = 2 if len(shape) == 4 and shape[2] in (1, 3) else 1
        n = n * np.sqrt(gain / np.prod(shape[1:]))
    return torch.from_numpy(np.asarray(n)).float()


def image(channels: int, height: int, width: int) -> Tensor:
    """Return uniform values (1, channels, height, width) from the name of their shape."""
    values = generator(f"input_{channels}x{height}x{width}").random((1, channels, height, width))
    return torch.from_numpy(values).float()


@dataclass
class Golden:
    """The folder of reference data, and the rule."""

    folder: Path
    scratch: Path
    loaded: dict[str, LoadedModel] = field(default_factory=dict)

    def arrays(self, name: str) -> dict[str, np.ndarray]:
        with np.load(self.folder / f"{name}_golden.npz") as file:
            return dict(file)

    def shapes(self, layout: str) -> dict[str, tuple[int, ...]]:
        lines = (self.folder / f"keys_{layout}.txt").read_text().splitlines()
        rows = [line.split("\t") for line in lines if line.count("\t") == 2]
        return {key: ast.literal_eval(shape) for key, shape, _ in rows}

    def state(self, layout: str, small: bool = False, canvas: int = 256) -> dict[str, Tensor]:
        state = {}
        for key, shape in self.shapes(layout).items():
            if small and (key.startswith("encoder.") or key in ("deconv1.block.0.block.weight", "base.block.1.weight")):
                shape = tuple(SMALL.get(extent, extent) for extent in shape)
            if key == "encoder.pos_embed":
                shape = (1, (canvas // 16) ** 2 + 1, shape[2])
            state[key] = fill(key, shape)
        return state

    def tiny(self, layout: str) -> LoadedModel:
        """Return ViM-UNet tiny in this layout, for a canvas of 256; shared, so to be left as it is."""
        if layout not in self.loaded:
            self.loaded[layout] = self.load(self.state(layout))
        return self.loaded[layout]

    def load(self, state: dict[str, Tensor]) -> LoadedModel:
        path = self.scratch / "checkpoint.pt"
        torch.save({"model_state": state, "epoch": 3}, path)
        loaded = load_checkpoint(path)
        path.unlink()
        return loaded

    def input(self, channels: int, height: int, width: int) -> Tensor:
        return image(channels, height, width)


@pytest.fixture(scope="session")
def golden(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Golden:
    return Golden(shared / "golden", tmp_path_factory.mktemp("golden"))


@pytest.fixture(scope="session")
def normal() -> Callable[[str, tuple[int, ...]], Tensor]:
    """Return standard normal values, float64, from the name of an array."""
    return lambda name, shape: torch.from_numpy(generator(name).standard_normal(shape))


@pytest.fixture(scope="session")
def rule() -> Callable[[str, tuple[int, ...]], Tensor]:
    """Return the weights of an entry from its name."""
    return fill


@pytest.fixture(scope="session")
def golden_input() -> Callable[[int, int, int], Tensor]:
    """Return an image from its channels, height and width."""
    return image


@pytest.fixture(autouse=True, scope="package")
def one_thread():
    """Threads that wait for each other on a busy machine cost more than they bring to networks as small as these."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def seeded():
    """A network drawn at random may have nothing but zeros somewhere; a test is the same each time, in any order."""
    torch.manual_seed(0)


@pytest.fixture
def threads() -> Iterator[Callable[[int], None]]:
    """Set the number of PyTorch's threads, until the end of the test."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)
