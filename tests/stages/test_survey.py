from pathlib import Path

import numpy as np
import pytest
import zarr

from vimvol.errors import InputError
from vimvol.io import open_volume
from vimvol.stages.survey import survey


def volume(folder: Path, data: np.ndarray):
    zarr.save_array(str(folder / "a.zarr"), data)
    return open_volume(str(folder / "a.zarr"))


def test_padding_of_zeros_is_left_out(tmp_path: Path) -> None:
    data = np.random.default_rng(0).integers(50, 200, (4, 60, 60)).astype(np.uint8)
    data[:, :30] = 0
    found = survey(volume(tmp_path, data), "volume")
    assert found.mean == pytest.approx((data[:, 30:].mean(),))
    assert found.std == pytest.approx((data[:, 30:].std(),))


def test_slices_have_numbers_of_their_own(tmp_path: Path) -> None:
    data = np.random.default_rng(0).normal(0, 1, (3, 40, 40)).astype(np.float32)
    data += np.arange(3, dtype=np.float32)[:, None, None] * 10
    found = survey(volume(tmp_path, data), "slice")
    assert found.mean == pytest.approx(data.mean((1, 2)), abs=1e-5)


def test_a_constant_volume_does_not_divide_by_zero(tmp_path: Path) -> None:
    found = survey(volume(tmp_path, np.zeros((2, 40, 40), np.uint8)), "volume")
    assert (found.mean, found.std) == ((0.0,), (1.0,))


@pytest.mark.parametrize("scope", ["volume", "slice"])
def test_values_that_are_not_finite_are_left_out_unless_there_is_nothing_else(tmp_path: Path, scope: str) -> None:
    data = np.random.default_rng(0).random((3, 40, 40)).astype(np.float32)
    data[0], data[1, 3, 4], data[1, 5, 6] = np.nan, -np.inf, np.inf
    finite = [slice(1, 3)] if scope == "volume" else [1, 2]
    expected = [float(np.mean(data[z], where=np.isfinite(data[z]))) for z in finite]
    found = survey(volume(tmp_path, data), scope)
    assert found.mean == pytest.approx([0.0] * (scope == "slice") + expected)
    (tmp_path / "other").mkdir()
    with pytest.raises(InputError, match="holds no finite value"):
        survey(volume(tmp_path / "other", np.full_like(data, np.nan)), scope)
