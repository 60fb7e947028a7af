from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st

from vimvol.errors import InputError
from vimvol.geometry import Block, Grid
from vimvol.io import open_volume
from vimvol.io.mask import Mask, open_mask
from vimvol.io.omezarr import create_image


def stored(path: Path, data: np.ndarray, size=None, offset=None):
    array = zarr.create_array(str(path), data=data)
    if size is not None:
        array.attrs["resolution"] = size
    if offset is not None:
        array.attrs["offset"] = offset
    return str(path)


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    return open_volume(stored(tmp_path_factory.mktemp("raw") / "raw", np.zeros((10, 37, 50), np.uint8), [40.0, 4, 4]))


@pytest.mark.parametrize("dtype", ["bool", "uint8", "uint64", "float32", "int16"])
def test_a_mask_of_any_type_by_whole_factors_of_the_shapes(tmp_path: Path, raw, dtype: str) -> None:
    data = np.random.default_rng(0).integers(0, 2, (10, 10, 12)).astype(dtype)  # y rounded up, x rounded down
    mask = open_mask(stored(tmp_path / "mask", data), raw)
    assert mask.factor == (1, 4, 4)
    expected = np.zeros(raw.shape, bool)
    grown = np.repeat(np.repeat(data != 0, 4, 1), 4, 2)
    expected[:, :, :48] = grown[:, :37]
    np.testing.assert_array_equal(mask.read(Block.whole(raw.shape)), expected)


@pytest.mark.parametrize("level", [1, 2])
def test_a_level_of_a_pyramid_lies_where_its_metadata_say(tmp_path: Path, level: int) -> None:
    for name in ("raw", "mask"):
        create_image(str(tmp_path / name), shape=(8, 33, 40), dtype="uint8", voxel_size=(8, 8, 8), levels=3, name=name)
    mask = open_mask(f"{tmp_path}/mask:{level}", open_volume(f"{tmp_path}/raw"))
    assert mask.factor == (2**level,) * 3
    assert mask.begin == (0, 0, 0)


def test_offset_and_uneven_scale_count_by_the_centres_of_voxels(tmp_path: Path) -> None:
    raw = open_volume(stored(tmp_path / "raw", np.zeros((4, 10, 20), np.uint8), [10.0, 8, 8]))
    # voxels of 20 nm along x: from 80 nm after the corner of the volume, 2.5 voxels each
    path = stored(tmp_path / "mask", np.array([[[1, 0, 1]]], np.uint8), [40.0, 80, 20], [15.0, 36, 80 - 4 + 10])
    mask = open_mask(path, raw)
    assert (mask.factor, mask.begin) == ((4, 10, 2.5), (0, 0, 10))
    row = mask.read(Block.whole(raw.shape))[0, 0]
    assert np.flatnonzero(row).tolist() == [10, 11, 15, 16]


def test_what_a_mask_covers_is_where_it_can_want_a_voxel(tmp_path: Path) -> None:
    raw = open_volume(stored(tmp_path / "raw", np.zeros((4, 10, 20), np.uint8), [10.0, 8, 8]))
    path = stored(tmp_path / "mask", np.ones((1, 1, 3), np.uint8), [40.0, 40, 20], [15.0, 16, 80 - 4 + 10])
    mask = open_mask(path, raw)
    wanted = np.zeros(raw.shape, bool)
    wanted[mask.covered(raw.shape).slices] = True
    np.testing.assert_array_equal(wanted, mask.read(Block.whole(raw.shape)))
    assert 0 < wanted.sum() < wanted.size


boxes = st.tuples(*[st.tuples(st.integers(0, s), st.integers(0, s)).map(sorted) for s in (10, 37, 50)])


@given(box=boxes)
def test_the_answer_does_not_depend_on_what_is_read_together(raw, tmp_path_factory, box) -> None:
    folder = tmp_path_factory.getbasetemp() / "mask"
    if not folder.exists():
        data = np.random.default_rng(1).integers(0, 2, (3, 7, 9)).astype(np.uint8)
        stored(folder, data, [120.0, 22, 26], [40.0, 30, 33])
    mask = open_mask(str(folder), raw)
    block = Block(tuple(b for b, _ in box), tuple(e for _, e in box))
    np.testing.assert_array_equal(mask.read(block), mask.read(Block.whole(raw.shape))[block.slices])


def test_a_mask_that_does_not_fit_is_refused(tmp_path: Path, raw) -> None:
    with pytest.raises(InputError, match="by no whole factor along y"):
        open_mask(stored(tmp_path / "a", np.ones((10, 30, 50), np.uint8)), raw)
    with pytest.raises(InputError, match="lies beside"):
        open_mask(stored(tmp_path / "b", np.ones((10, 30, 50), np.uint8), [40.0, 4, 4], [0.0, 0, 900]), raw)


@pytest.mark.parametrize("factor", [(1.0, 1.0, 1.0), (1.0, 3.0, 2.5), (2.0, 0.5, 4.0), (0.3, 7.0, 1.0)])
@pytest.mark.parametrize("begin", [(0.0, 0.0, 0.0), (1.5, -3.0, 4.25)])
def test_cells_that_are_touched_are_those_with_a_wanted_voxel(tmp_path, factor, begin):
    data = np.random.default_rng(0).random((9, 20, 30)) < 0.05
    zarr.create_array(str(tmp_path / "m.zarr"), data=data, chunks=(4, 8, 8))
    mask = Mask(open_volume(str(tmp_path / "m.zarr"), prefer="mask"), factor, begin)
    region, cell = Block((2, 3, 1), (15, 50, 61)), (2, 7, 9)
    grid = Grid(region.shape, cell)
    wanted = [n for n in range(len(grid)) if mask.read(grid.block(grid.index(n)).moved(region.begin)).any()]
    touched = mask.touched(region, cell).tolist()
    assert wanted
    assert set(wanted) <= set(touched)
    assert touched == sorted(set(touched))
    if min(factor) >= 1:
        assert touched == wanted
