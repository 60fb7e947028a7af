from pathlib import Path

import numpy as np
import pytest
import zarr

from vimvol.errors import InputError
from vimvol.geometry import Block
from vimvol.io import open_volume
from vimvol.io.mask import open_mask
from vimvol.preflight.survey import survey


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


@pytest.mark.parametrize(("missing", "left_out"), [(255.0, 255), (None, None)])
def test_it_is_the_missing_value_that_is_left_out(tmp_path: Path, missing: float | None, left_out: int | None) -> None:
    data = np.random.default_rng(0).integers(0, 200, (4, 60, 60)).astype(np.uint8)
    data[:, :30] = 255
    found = survey(volume(tmp_path, data), "volume", missing=missing)
    assert found.mean == pytest.approx((data[data != left_out].mean(),))


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A volume of which almost nothing is stored, with a mask of that at a 16th of its resolution, and an empty one."""
    group = zarr.create_group(str(tmp_path_factory.mktemp("large") / "a.zarr"))
    shape, spot = (600, 4096, 4096), np.s_[300:304, 1024:1536, 2048:2304]
    raw = group.create_array("raw", shape=shape, chunks=(4, 256, 256), dtype="uint8", fill_value=130)
    raw[spot] = np.random.default_rng(0).integers(60, 100, (4, 512, 256)).astype(np.uint8)
    for name in ("mask", "empty"):
        group.create_array(name, shape=(600, 256, 256), chunks=(100, 64, 64), dtype="uint8")
    group["mask"][301:303, 70:90, 130:140] = 1
    return Path(str(group.store_path).removeprefix("file://"))


@pytest.mark.parametrize("scope", ["volume", "slice"])
@pytest.mark.parametrize("roi", [None, Block((299, 100, 70), (304, 4000, 4096))])
def test_windows_are_where_a_small_mask_is(
    large: Path, scope: str, roi: Block | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if roi is not None and scope == "slice":
        monkeypatch.setattr("vimvol.preflight.survey.WALKED", 0)
    whole = open_volume(f"{large}:raw")
    mask = open_mask(f"{large}:mask", whole)
    inside = whole.read(Block((301, 1120, 2080), (303, 1440, 2240)))
    if scope == "slice":
        roi = roi or Block((298, 0, 0), (305, 4096, 4096))
        found = survey(whole, scope, roi, mask)
        assert found.mean[301:303] == pytest.approx(inside.mean((1, 2)))
        assert set(found.mean[:301] + found.mean[303:]) == {0.0}
    else:
        found = survey(whole, scope, roi, mask)
        assert (found.mean, found.std) == (pytest.approx((inside.mean(),)), pytest.approx((inside.std(),)))


def test_a_mask_of_nothing_is_refused(large: Path) -> None:
    whole = open_volume(f"{large}:raw")
    with pytest.raises(InputError, match=r"mask .*:empty is 0 wherever .*, so nothing would be"):
        survey(whole, "volume", None, open_mask(f"{large}:empty", whole))
    with pytest.raises(InputError, match="is 0 wherever"):
        survey(whole, "slice", Block((0, 0, 0), (3, 999, 999)), open_mask(f"{large}:mask", whole))
