import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from vimvol.engine.plan import plan_stage
from vimvol.errors import InputError
from vimvol.geometry import Block
from vimvol.infer.planes import ORDERS, make_plane, predict_planes
from vimvol.infer.predictor import Predictor
from vimvol.infer.standardization import Standardization

DIVISOR = 4
CHANNELS = 2
STANDARDIZATION = Standardization((100.0,), (50.0,))


class Skewed(nn.Module):
    """A network of two channels to which rows, columns and both directions of each look different."""

    def __init__(self) -> None:
        super().__init__()
        weight = torch.rand((CHANNELS, 1, 5, 5), generator=torch.Generator().manual_seed(0)) - 0.4
        self.weight = nn.Parameter(weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.conv2d(nn.functional.pad(x, (2, 2, 2, 2), mode="reflect"), self.weight)


def predict(
    volume, axes="zyx", tile=(16, 12), halo=(4, 3), block=None, wanted=None, standardization=STANDARDIZATION
) -> np.ndarray:
    """Predict a volume block by block, every block from no more than it needs to see."""
    planes = [make_plane(axis, volume.shape, tile, halo, DIVISOR) for axis in axes]
    predictor = Predictor(Skewed(), torch.device("cpu"), batch=3)
    result = np.zeros((CHANNELS, *volume.shape), np.uint8)
    for box in plan_stage("predict", volume.shape, (1, 1, 1), block or volume.shape):
        origin = box
        for plane in planes:
            origin = origin.hull(plane.region_for(box))
        here = None if wanted is None else wanted[box.slices]
        raw = volume[origin.slices]
        part = predict_planes(predictor, raw, origin, box, planes, standardization, CHANNELS, None, here)
        result[(slice(None), *box.slices)] = part
    return result


def noise(shape) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


shapes = st.tuples(*[st.integers(5, 30)] * 3)
blocks = st.tuples(*[st.integers(4, 30)] * 3)


@settings(max_examples=25)
@given(shapes, blocks, st.tuples(st.integers(3, 20), st.integers(3, 20)), st.booleans(), st.booleans())
def test_predictions_do_not_depend_on_the_blocks(shape, block, tile, masked, by_slice) -> None:
    volume = noise(shape)
    rng = np.random.default_rng(1)
    wanted = None
    if masked:
        wanted = np.zeros(shape, bool)
        wanted[tuple(slice(rng.integers(0, s), None) for s in shape)] = True
    standardization = STANDARDIZATION
    if by_slice:
        standardization = Standardization(tuple(rng.normal(100, 20, shape[0])), tuple(rng.uniform(30, 60, shape[0])))
    options = {"tile": tile, "wanted": wanted, "standardization": standardization}
    whole = predict(volume, **options)
    np.testing.assert_array_equal(predict(volume, block=block, **options), whole)
    if wanted is not None:
        everything = predict(volume, **{**options, "wanted": None})
        np.testing.assert_array_equal(whole, everything * wanted)


@settings(max_examples=15)
@given(shapes, st.sampled_from([(1, 2, 0), (2, 0, 1)]))
def test_a_volume_with_its_axes_moved_on_has_its_boundaries_moved_on(shape, order) -> None:
    """Each of the three slices through a voxel becomes another of the three, rows and columns kept."""
    volume = noise(shape)
    moved = predict(np.ascontiguousarray(volume.transpose(order)))
    np.testing.assert_array_equal(moved, predict(volume).transpose(0, *(1 + a for a in order)))
    assert (moved != predict(np.ascontiguousarray(volume.transpose(order)), "z")).any()


def test_every_channel_is_the_rounded_mean_of_what_slices_across_each_axis_show() -> None:
    volume = noise((20, 24, 28))
    single = []
    for order in ORDERS.values():
        turned = predict(np.ascontiguousarray(volume.transpose(order)), "z")
        single.append(turned.transpose(0, *(1 + np.argsort(order))))
    np.testing.assert_array_equal(predict(volume), np.rint(np.mean(single, axis=0, dtype=np.float64)))
    np.testing.assert_array_equal(predict(volume, "z"), single[0])


def test_numbers_of_slices_follow_z_whichever_way_the_volume_is_turned() -> None:
    """A volume whose slices differ in brightness and contrast alone is that of one brightness, seen from every side."""
    volume = noise((12, 20, 20)) // 5
    gain = 1 + np.arange(12, dtype=np.uint8) % 4
    shown = volume * gain[:, None, None] + 5
    measured = Standardization(tuple(5.0 + 32 * gain), tuple(8.0 * gain))
    same = predict(volume, standardization=Standardization((32.0,), (8.0,)))
    np.testing.assert_array_equal(predict(shown, standardization=measured), same)


def test_slices_that_are_too_small_are_named_by_the_axes_of_the_volume() -> None:
    with pytest.raises(InputError, match=r"3 voxels along z \(shape \(30, 20, 3\) in y, x, z\)"):
        make_plane("y", (3, 30, 20), (16, 16), (4, 4), DIVISOR)


def test_tiles_are_told_in_the_axes_of_the_volume() -> None:
    planes = [make_plane(axis, (100, 100, 100), (16, 12), (4, 4), DIVISOR) for axis in "zyx"]
    assert [plane.cell for plane in planes] == [(1, 16, 12), (12, 1, 16), (16, 12, 1)]
    assert [plane.axis for plane in planes] == ["z", "y", "x"]
    box = Block((1, 2, 3), (40, 50, 60))
    assert all(plane.region_for(box).contains(box) for plane in planes)
