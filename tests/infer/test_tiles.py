import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from vimvol.engine.plan import plan_stage
from vimvol.errors import InputError
from vimvol.geometry import Block
from vimvol.infer.predictor import Predictor, Standardization, region_for, resolve_device
from vimvol.infer.tiles import make_tiling


class LocalMean(nn.Module):
    """A network whose output at a voxel depends on the 9 x 9 voxels around it."""

    divisor = 4

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.avg_pool2d(nn.functional.pad(x, (4, 4, 4, 4), mode="reflect"), 9, 1)


def predict(volume: np.ndarray, shard, tile, halo, block=None, batch=3) -> np.ndarray:
    tiling = make_tiling(volume.shape, tile, halo, 4)
    predictor = Predictor(LocalMean(), torch.device("cpu"), batch=batch)
    result = np.zeros((1, *volume.shape), np.uint8)
    for box in plan_stage("predict", volume.shape, shard, block):
        origin = region_for(box, tiling)
        part = predictor.predict_block(
            volume[origin.slices], origin, box, tiling, Standardization((100.0,), (50.0,)), 1
        )
        result[(slice(None), *box.slices)] = part
    return result


@settings(max_examples=25, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 3), st.integers(9, 40), st.integers(9, 40)),
    shard=st.tuples(st.integers(1, 3), st.integers(5, 24), st.integers(5, 24)),
    tile=st.tuples(st.integers(3, 20), st.integers(3, 20)),
)
def test_predictions_do_not_depend_on_the_blocks(shape, shard, tile) -> None:
    volume = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    whole = predict(volume, shape, tile, (4, 4))
    np.testing.assert_array_equal(predict(volume, shard, tile, (4, 4)), whole)


def test_tiles_with_enough_halo_leave_no_seam() -> None:
    volume = np.random.default_rng(1).integers(0, 256, (2, 50, 44), np.uint8)
    seamless = predict(volume, volume.shape, (64, 64), (4, 4))
    tiled = predict(volume, volume.shape, (16, 12), (4, 4))
    np.testing.assert_array_equal(tiled[:, :, 4:-4, 4:-4], seamless[:, :, 4:-4, 4:-4])


def test_a_slice_that_fits_one_window_is_one_tile() -> None:
    tiling = make_tiling((5, 250, 1000), (192, 192), (32, 32), 16)
    assert tiling.grid.counts == (5, 1, 6)
    assert tiling.window == (256, 256)
    assert tiling.window_of((0, 0, 1)) == Block((0, -3, 160), (1, 253, 416))


def test_a_slice_below_the_divisor_is_refused() -> None:
    with pytest.raises(InputError, match="8 voxels along y"):
        make_tiling((5, 8, 100), (192, 192), (32, 32), 16)


def test_slices_are_standardised_by_their_own_numbers() -> None:
    raw = np.full((1, 4, 4), 10, np.uint8)
    standardization = Standardization((0.0, 10.0), (1.0, 2.0))
    assert standardization.apply(raw, Block((0, 0, 0), (1, 4, 4))).max() == 10
    assert standardization.apply(raw, Block((1, 0, 0), (2, 4, 4))).max() == 0


def test_a_device_that_is_not_there_is_refused() -> None:
    with pytest.raises(InputError, match="no device of PyTorch"):
        resolve_device("gpu0")
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match="not there on this machine"):
            resolve_device("cuda")
