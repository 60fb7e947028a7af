import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.infer.test_planes import CHANNELS, DIVISOR, STANDARDIZATION, Skewed, noise
from tests.infer.test_predictor import Hungry, Overflowing, Rounding
from vimvol.engine.plan import plan_stage
from vimvol.geometry import Block
from vimvol.infer.orientations import ORIENTATIONS
from vimvol.infer.planes import make_plane, predict_planes
from vimvol.infer.predictor import Fallbacks, Predictor
from vimvol.infer.tiles import make_tiling

CHOICES = st.sampled_from(["flips", "all"])


class Slanted(Skewed):
    """A network to which the place in a tile matters, too, and rows other than columns."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y, x_ = torch.arange(x.shape[-2])[:, None], torch.arange(x.shape[-1])[None]
        return super().forward(x) + 0.05 * y - 0.02 * x_


def predict(volume, augment, axes="z", tile=(64, 64), halo=(4, 4), block=None, model=None, batch=3) -> np.ndarray:
    planes = [make_plane(axis, volume.shape, tile, halo, DIVISOR) for axis in axes]
    predictor = Predictor(model or Slanted(), torch.device("cpu"), batch=batch, augment=augment)
    result = np.zeros((CHANNELS, *volume.shape), np.uint8)
    for box in plan_stage("predict", volume.shape, (1, 1, 1), block or volume.shape):
        origin = box
        for plane in planes:
            origin = origin.hull(plane.region_for(box))
        part = predict_planes(predictor, volume[origin.slices], origin, box, planes, STANDARDIZATION, CHANNELS)
        result[(slice(None), *box.slices)] = part
    return result


def turned(array: np.ndarray, augment: str) -> list[np.ndarray]:
    """All that a setting shows of an array (..., y, x), by NumPy."""
    flips = [array, array[..., ::-1, :], array[..., ::-1], array[..., ::-1, ::-1]]
    return {"none": flips[:1], "flips": flips, "all": flips + [each.swapaxes(-2, -1) for each in flips]}[augment]


@pytest.mark.parametrize(("augment", "count"), [("none", 1), ("flips", 4), ("all", 8)])
def test_every_orientation_is_another_one_and_is_undone_exactly(augment: str, count: int) -> None:
    image = torch.arange(2 * 3 * 5).reshape(2, 1, 3, 5)
    shown = [each.show(image) for each in ORIENTATIONS[augment]]
    assert len({(tuple(each.shape), *each.flatten().tolist()) for each in shown}) == len(shown) == count
    assert all(each.is_contiguous() for each in shown)
    for orientation, each in zip(ORIENTATIONS[augment], shown, strict=True):
        assert torch.equal(orientation.undo(each), image)
    assert sorted(map(str, shown)) == sorted(
        str(torch.from_numpy(np.ascontiguousarray(each))) for each in turned(image.numpy(), augment)
    )


@settings(max_examples=20)
@given(st.tuples(st.integers(1, 3), st.integers(2, 6), st.integers(2, 6)), CHOICES, st.integers(1, 4))
def test_a_slice_in_any_orientation_has_its_boundaries_in_that_orientation(counts, augment, batch) -> None:
    """Whole slices, with nothing mirrored around them: the mean does not know which one was stored."""
    shape = (counts[0], counts[1] * DIVISOR, counts[2] * DIVISOR)
    volume = noise(shape)
    expected = predict(volume, augment, batch=batch)
    for shown, boundaries in zip(turned(volume, augment), turned(expected, augment), strict=True):
        np.testing.assert_array_equal(predict(np.ascontiguousarray(shown), augment), boundaries)
    assert (predict(volume, "none") != expected).any()


@settings(max_examples=10)
@given(CHOICES, st.tuples(st.integers(5, 30), st.integers(5, 30)))
def test_it_is_the_rounded_mean_of_what_single_orientations_show(augment, plane) -> None:
    shape = (2, *(DIVISOR * extent for extent in plane))
    volume = noise(shape)
    single = [predict(np.ascontiguousarray(each), "none", tile=(200, 200)) for each in turned(volume, augment)]
    # a mirror image is its own inverse; transposed ones are turned back first
    back = [part.swapaxes(-2, -1) if i >= 4 else part for i, part in enumerate(single)]
    back = [part[..., :: -1 if i % 4 in (1, 3) else 1, :: -1 if i % 4 in (2, 3) else 1] for i, part in enumerate(back)]
    mean = np.rint(np.mean(back, axis=0, dtype=np.float64))
    np.testing.assert_array_equal(predict(volume, augment, tile=(200, 200)), mean)


shapes = st.tuples(*[st.integers(5, 30)] * 3)
blocks = st.tuples(*[st.integers(4, 30)] * 3)


@settings(max_examples=15)
@given(shapes, blocks, st.tuples(st.integers(3, 20), st.integers(3, 20)), CHOICES, st.sampled_from(["z", "zyx"]))
def test_blocks_do_not_change_a_byte_whether_tiles_are_square_or_not(shape, block, tile, augment, axes) -> None:
    volume = noise(shape)
    whole = predict(volume, augment, axes, tile, (4, 3))
    np.testing.assert_array_equal(predict(volume, augment, axes, tile, (4, 3), block), whole)


def test_across_three_axes_each_is_averaged_by_itself_first() -> None:
    volume = noise((16, 20, 24))
    single = []
    for order in ((0, 1, 2), (1, 2, 0), (2, 0, 1)):
        part = predict(np.ascontiguousarray(volume.transpose(order)), "all")
        single.append(part.transpose(0, *(1 + np.argsort(order))))
    expected = np.rint(np.mean(single, axis=0, dtype=np.float64))
    np.testing.assert_array_equal(predict(volume, "all", "zyx"), expected)


def predict_tiles(model, batch, augment, precision="float32") -> tuple[np.ndarray, Fallbacks]:
    volume = noise((3, 40, 40))
    whole, fallbacks = Block.whole(volume.shape), Fallbacks()
    predictor = Predictor(model, torch.device("cpu"), precision, batch, augment)
    tiling = make_tiling(volume.shape, (16, 16), (4, 4), 4)
    return predictor.predict_block(volume, whole, whole, tiling, STANDARDIZATION, 1, fallbacks), fallbacks


def test_no_pass_has_more_tiles_and_one_that_does_not_fit_is_halved() -> None:
    expected, _ = predict_tiles(Hungry(9, MemoryError()), 4, "all")
    model = Hungry(2, MemoryError())
    result, fallbacks = predict_tiles(model, 4, "all")
    np.testing.assert_array_equal(result, expected)
    assert fallbacks.halved == 1
    assert model.sizes == [4] + [2] * (8 * 14)  # 27 tiles


def test_what_is_not_finite_in_bfloat16_is_computed_in_float32_in_every_orientation() -> None:
    result, fallbacks = predict_tiles(Overflowing(float("nan")), 4, "all", "bfloat16")
    _, single = predict_tiles(Overflowing(float("nan")), 4, "none", "bfloat16")
    assert fallbacks.float32 == 8 * single.float32 > 0
    exact, _ = predict_tiles(Rounding(), 4, "all")
    assert np.abs(result.astype(int) - exact).max() <= 2
    with pytest.raises(FloatingPointError, match="not finite"):
        predict_tiles(Overflowing(float("nan"), always=True), 4, "flips")
