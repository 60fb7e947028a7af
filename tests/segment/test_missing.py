import numpy as np

from vimvol.geometry import Block
from vimvol.segment.missing import MARGIN, SIDE, missing_voxels


def noisy(shape=(3, 60, 70)) -> np.ndarray:
    return np.random.default_rng(0).integers(1, 255, shape).astype(np.uint8)


def test_lost_sections_and_padding_are_missing_and_dark_specks_are_not() -> None:
    raw = noisy()
    raw[1] = 0
    raw[0, :, :20] = 0
    raw[2, 20:30, 20:30] = 0
    expected = np.zeros(raw.shape, bool)
    expected[1] = True
    expected[0, :, :20] = True
    np.testing.assert_array_equal(missing_voxels(raw), expected)


def test_a_part_with_margin_decides_as_the_whole() -> None:
    raw = noisy((2, 90, 90))
    raw[:, 10:50, 25:70] = 0
    raw[:, 70 : 70 + SIDE, 3 : 3 + SIDE] = 0
    whole = missing_voxels(raw)
    assert whole.sum() == 2 * (40 * 45 + SIDE * SIDE)
    for y in range(0, 90, 18):
        for x in range(0, 90, 18):
            box = Block((0, y, x), (2, y + 18, x + 18))
            window = box.grow(MARGIN).clip(raw.shape)
            part = missing_voxels(raw[window.slices])[box.within(window).slices]
            np.testing.assert_array_equal(part, whole[box.slices])


def test_data_without_the_value_have_none_missing() -> None:
    assert not missing_voxels(noisy()).any()
