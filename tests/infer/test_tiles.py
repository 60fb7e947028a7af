import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from vimvol.engine.plan import plan_stage
from vimvol.errors import InputError
from vimvol.geometry import Block
from vimvol.infer.device import resolve_device
from vimvol.infer.predictor import Predictor
from vimvol.infer.standardization import Standardization
from vimvol.infer.tiles import make_tiling, region_for


class LocalMean(nn.Module):
    """A network whose output at a voxel depends on the 9 x 9 voxels around it."""

    divisor = 4

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.avg_pool2d(nn.functional.pad(x, (4, 4, 4, 4), mode="reflect"), 9, 1)


def predict(volume: np.ndarray, shard, tile, halo, block=None, batch=3, scale=(1.0, 1.0)) -> np.ndarray:
    tiling = make_tiling(volume.shape, tile, halo, 4, scale=scale)
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
    scale=st.just((1.0, 1.0)) | st.tuples(st.floats(0.4, 2.5), st.floats(0.4, 2.5)),
)
def test_predictions_do_not_depend_on_the_blocks(shape, shard, tile, scale) -> None:
    volume = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    whole = predict(volume, shape, tile, (4, 4), scale=scale)
    np.testing.assert_array_equal(predict(volume, shard, tile, (4, 4), scale=scale), whole)


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


class Seen(nn.Module):
    """A network that keeps what it saw, and finds boundaries in proportion to the intensities."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen.append(x)
        return torch.logit(x.clamp(0.001, 0.999))


@pytest.mark.parametrize("augment", ["none", "all"])
@pytest.mark.parametrize(("scale", "shown"), [((0.5, 2.0), (40, 112)), ((1.5, 0.75), (96, 48))])
def test_the_network_sees_voxels_of_its_size_and_boundaries_stay_in_place(scale, shown, augment) -> None:
    """A ramp looks the same at every scale, and tells by how much anything is shifted."""
    shape = (1, 130, 150)
    y, x = np.mgrid[: shape[1], : shape[2]]
    volume = (0.4 + 0.2 * np.sin(x / 40) + 0.002 * (y - 65))[None].astype(np.float32)
    tiling, model = make_tiling(shape, (48, 40), (8, 8), 4, scale=scale), Seen()
    assert tiling.shown == shown
    # the halo is 8 voxels at least as they are shown, too
    assert all(before * min(s, 1) >= 8 for before, s in zip(tiling.before, scale, strict=True))
    predictor, whole = Predictor(model, torch.device("cpu"), batch=2, augment=augment), Block.whole(shape)
    found = predictor.predict_block(volume, whole, whole, tiling, Standardization((0.0,), (1.0,)), 1)[0]
    assert {tuple(sorted(each.shape[-2:])) for each in model.seen} == {tuple(sorted(shown))}
    inside = (slice(None), slice(6, -6), slice(6, -6))
    assert np.abs(found[inside] - volume[inside] * 255).max() < 1


@given(st.integers(4, 3000), st.integers(1, 700), st.integers(0, 64), st.floats(0.4, 2.5), st.sampled_from([4, 16, 32]))
def test_what_is_shown_is_as_near_to_the_scale_as_the_divisor_allows(extent, tile, halo, scale, divisor) -> None:
    extent = max(extent, divisor)
    tiling = make_tiling((1, extent, extent), (tile, tile), (halo, halo), divisor, scale=(scale, scale))
    for window, shown in zip(tiling.window, tiling.shown or tiling.window, strict=True):  # at scale 1, as it is
        assert shown % divisor == 0
        assert abs(shown - window * scale) <= divisor / 2 or shown == 2 * divisor
    plain = make_tiling((1, extent, extent), (tile, tile), (halo, halo), divisor)
    assert plain.shown is None
    if scale >= 1:
        assert (plain.grid, plain.window, plain.before) == (tiling.grid, tiling.window, tiling.before)


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
