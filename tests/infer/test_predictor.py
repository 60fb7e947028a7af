import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch import nn

from vimvol.geometry import Block
from vimvol.infer.predictor import Fallbacks, Predictor, _Call, _exact
from vimvol.infer.standardization import Standardization
from vimvol.infer.tiles import make_tiling

SHAPE = (3, 40, 40)
VOLUME = np.random.default_rng(0).integers(0, 256, SHAPE, np.uint8)


class Mean(nn.Module):
    """A network that keeps what a subclass makes of it."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.avg_pool2d(nn.functional.pad(x, (4, 4, 4, 4), mode="reflect"), 9, 1)


class Hungry(Mean):
    """Runs out of memory with more than ``most`` tiles."""

    def __init__(self, most: int, error: Exception) -> None:
        super().__init__()
        self.most, self.error, self.sizes = most, error, []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.sizes.append(len(x))
        if len(x) > self.most:
            raise self.error
        return super().forward(x)


class Rounding(nn.Module):
    """The same by a convolution, which rounds its input in bfloat16."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.conv2d(x, torch.full((1, 1, 9, 9), 1 / 81), padding=4)


class Overflowing(Rounding):
    """Is not finite in bfloat16 where a tile's mean lies above a limit."""

    def __init__(self, value: float, always: bool = False) -> None:
        super().__init__()
        self.value, self.always = value, always

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = super().forward(x)
        if torch.is_autocast_enabled("cpu") or self.always:
            bad = x.mean((1, 2, 3)) > 0
            out[bad, :, 3, 5] = self.value
        return out


def predict(model: nn.Module, batch: int, precision: str = "float32") -> tuple[np.ndarray, Fallbacks]:
    tiling = make_tiling(SHAPE, (16, 16), (4, 4), 4)
    fallbacks = Fallbacks()
    whole = Block.whole(SHAPE)
    predictor = Predictor(model, torch.device("cpu"), precision, batch)
    result = predictor.predict_block(VOLUME, whole, whole, tiling, Standardization((127.0,), (50.0,)), 1, fallbacks)
    return result, fallbacks


OUT_OF_MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    MemoryError(),
    RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory: you tried"),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    RuntimeError("GET was unable to find an engine to execute this computation"),
]


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=["cuda", "python", "host", "handle", "workspace"])
@pytest.mark.parametrize(("batch", "most", "halved"), [(8, 8, 0), (8, 4, 1), (8, 3, 2), (5, 1, 2), (2, 1, 1)])
def test_a_batch_that_does_not_fit_is_halved_and_every_tile_predicted(error, batch, most, halved) -> None:
    expected, _ = predict(Mean(), 1)
    model = Hungry(most, error)
    result, fallbacks = predict(model, batch)
    np.testing.assert_array_equal(result, expected)
    assert fallbacks.halved == halved
    assert fallbacks.nonzero() == ({"halved": halved} if halved else {})
    # It is learned once a block, not anew for every batch.
    assert sum(size > most for size in model.sizes) == halved


def test_a_tile_that_never_fits_is_an_error_that_says_what_to_do() -> None:
    with pytest.raises(MemoryError, match=r"single tile of 24 x 24 voxels.*predict\.tile"):
        predict(Hungry(0, MemoryError()), 4)


def test_other_errors_are_not_taken_for_a_lack_of_memory() -> None:
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        predict(Hungry(0, RuntimeError("mat1 and mat2 shapes cannot be multiplied")), 4)


def test_an_error_that_may_be_another_is_not_hidden_by_halving() -> None:
    with pytest.raises(RuntimeError, match="CUDNN_STATUS_NOT_SUPPORTED"):
        predict(Hungry(0, RuntimeError("cuDNN error: CUDNN_STATUS_NOT_SUPPORTED")), 4)


def test_on_a_gpu_float32_is_no_tf32_and_nothing_is_left_to_chance() -> None:
    with _exact(torch.device("cuda")):
        cudnn = torch.backends.cudnn
        assert (cudnn.enabled, cudnn.allow_tf32, cudnn.deterministic, cudnn.benchmark) == (True, False, True, False)
    assert torch.backends.cudnn.allow_tf32  # PyTorch's own choice, which is nobody's business but the user's


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_on_a_gpu_one_forward_pass_is_computed_at_a_time(device: str) -> None:
    """The meta device stands in for one."""
    inside, most = [], []

    class Slow(Mean):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            inside.append(1)
            most.append(len(inside))
            time.sleep(0.05)
            inside.pop()
            return super().forward(torch.zeros(x.shape))

    predictor = Predictor(Slow(), torch.device(device))
    predictor._device = torch.device("cpu")
    tiles = np.zeros((1, 1, 24, 24), np.float32)
    with ThreadPoolExecutor(3) as threads:
        for _ in threads.map(lambda _: predictor._forward(tiles, 1, _Call(Fallbacks(), 1, None)), range(3)):
            pass
    assert (max(most) == 1) == (device == "meta")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("batch", [1, 4, 5])
def test_only_tiles_that_are_not_finite_in_bfloat16_are_computed_in_float32(value: float, batch: int) -> None:
    exact, none = predict(Rounding(), batch)
    low, _ = predict(Rounding(), batch, "bfloat16")
    result, fallbacks = predict(Overflowing(value), batch, "bfloat16")
    tiles = [result[0, z, y : y + 16, x : x + 16] for z in range(3) for y in (0, 16, 32) for x in (0, 16, 32)]
    exacts = [exact[0, z, y : y + 16, x : x + 16] for z in range(3) for y in (0, 16, 32) for x in (0, 16, 32)]
    lows = [low[0, z, y : y + 16, x : x + 16] for z in range(3) for y in (0, 16, 32) for x in (0, 16, 32)]
    assert all((t == e).all() or (t == b).all() for t, e, b in zip(tiles, exacts, lows, strict=True))
    healed = sum((t == e).all() and (t != b).any() for t, e, b in zip(tiles, exacts, lows, strict=True))
    assert 0 < healed <= fallbacks.float32 < len(tiles)
    assert fallbacks.nonzero() == {"float32_tiles": fallbacks.float32}
    assert none.nonzero() == {}


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_what_is_not_finite_in_float32_is_an_error(precision: str) -> None:
    with pytest.raises(FloatingPointError, match="not finite"):
        predict(Overflowing(float("nan"), always=True), 4, precision)


def test_filling_up_a_batch_never_counts() -> None:
    """27 tiles in batches of 4 leave one place empty, whose content must not matter."""

    class Empty(Mean):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            out = super().forward(x)
            out[(x == 0).all(dim=(1, 2, 3))] = float("nan")
            return out

    result, fallbacks = predict(Empty(), 4, "bfloat16")
    assert fallbacks.nonzero() == {}
    np.testing.assert_array_equal(result, predict(Mean(), 4, "bfloat16")[0])
