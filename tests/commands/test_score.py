import csv
import io
from pathlib import Path

import h5py
import numpy as np
import pytest
import zarr

from vimvol.commands import score as module
from vimvol.commands.score import objects_csv, score
from vimvol.errors import InputError
from vimvol.evaluate.contingency import Contingency
from vimvol.evaluate.metrics import METRICS
from vimvol.evaluate.protocol import score_slices, score_volume

SHAPE = (5, 60, 70)
CELLS = [(32, 1024, 1024), (1, 20, 70), (2, 40, 30), (5, 10, 10)]


@pytest.fixture(scope="module")
def volumes(tmp_path_factory):
    """A ground truth with gaps and a segmentation with errors and background, as arrays and as zarr."""
    rng = np.random.default_rng(0)
    gt = np.kron(rng.integers(0, 9, (5, 6, 7)), np.ones((1, 10, 10), int)).astype(np.uint64)
    seg = np.roll(gt, (0, 2, 3), axis=(0, 1, 2)) // np.uint64(2) + np.uint64(1)
    seg[:, :, 40:] += np.uint64(2**33)
    seg[:, 17:25, ::3] = 0
    seg[2] = 0
    folder = tmp_path_factory.mktemp("volumes")
    for name, array in (("seg", seg), ("gt", gt)):
        zarr.create_array(str(folder / f"{name}.zarr"), data=array, chunks=(1, 10, 10))
    return seg, gt, str(folder / "seg.zarr"), str(folder / "gt.zarr")


@pytest.mark.parametrize("cell", CELLS)
def test_blocks_score_as_the_volume_does(volumes, cell):
    seg, gt, *addresses = volumes
    found = score(*addresses, "3d", bands=(0, 1, 3), ignore=(5,), cell=cell)["scores"]
    for band, name in ((0, "volume"), (1, "volume, band 1"), (3, "volume, band 3")):
        assert found[name] == score_volume(seg, gt, band, ignore_gt=(0, 5))


@pytest.mark.parametrize("mode", ["2d", "3d"])
def test_a_label_that_the_ground_truth_cannot_hold_is_ignored_without_effect(volumes, tmp_path, mode):
    _, gt, seg, _ = volumes
    zarr.create_array(str(tmp_path / "small.zarr"), data=gt.astype(np.uint8))
    pair = seg, str(tmp_path / "small.zarr")
    assert score(*pair, mode, ignore=(300, 2**64 - 1)) == score(*pair, mode)
    assert score(*pair, mode, ignore=(300, 5)) == score(*pair, mode, ignore=(5,)) != score(*pair, mode)


@pytest.mark.parametrize("cell", CELLS)
def test_tiles_score_as_slices_do(volumes, cell):
    seg, gt, *addresses = volumes
    result = score(*addresses, "2d", cell=cell)
    assert result["scores"]["slices"] == score_slices(seg, gt)
    assert list(result["scores"]["slices"]) == list(METRICS)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("background", ["ignore", "keep"])
def test_every_slice_is_told_whatever_the_tiles(volumes, cell, background):
    seg, gt, *addresses = volumes
    result = score(*addresses, "2d", background=background, cell=cell, objects=True)
    assert result["scores"]["slices"] == score_slices(seg, gt, background=background)
    for z, one in enumerate(result["slices"]):
        assert one == {"slice": z} | score_slices(seg[z : z + 1], gt[z : z + 1], background=background)
    assert len(result["slices"]) == len(gt)
    total = sum(row["bits"] for row in result["objects"] if row["kind"] == "merge")
    assert total == pytest.approx(result["scores"]["slices"]["voi_merge"])
    ids = {row["id"] for row in result["objects"] if row["kind"] == "split"}
    assert (0 in ids) == (background == "keep")


@pytest.mark.parametrize("mode", ["2d", "3d"])
def test_neither_tiles_nor_chunks_change_where_errors_are(volumes, tmp_path, monkeypatch, mode):
    monkeypatch.setattr(module, "CELL", (32, 1024, 32))  # or nothing of the volume would be cut along x
    seg, _, *addresses = volumes
    wanted = score(*addresses, mode, objects=True, cell=CELLS[0])
    for cell in CELLS[1:]:
        assert score(*addresses, mode, objects=True, cell=cell) == wanted
    other = str(tmp_path / "seg.zarr")
    zarr.create_array(other, data=seg, chunks=(2, 7, 23))
    assert score(other, addresses[1], mode, objects=True)["objects"] == wanted["objects"]


def test_a_background_that_is_kept_is_one_of_slices(volumes):
    seg, gt, *addresses = volumes
    result = score(*addresses, background="keep", ignore=(5,))
    assert (result["mode"], result["background"]) == ("2d", "keep")
    dropped = gt != 5
    table = [Contingency.from_arrays(s[d], g[d], ()) for s, g, d in zip(seg, gt, dropped, strict=True)]
    assert [one["sa50"] for one in result["slices"]] == [METRICS["sa50"](t) for t in table]


@pytest.mark.parametrize("mode", ["2d", "3d"])
def test_workers_do_not_change_a_number(volumes, mode):
    *_, seg, gt = volumes
    serial = score(seg, gt, mode, objects=True, workers=0, cell=(2, 30, 30))
    assert score(seg, gt, mode, objects=True, workers=2, cell=(2, 30, 30)) == serial
    total = sum(row["bits"] for row in serial["objects"] if row["kind"] == "split")
    name = "slices" if mode == "2d" else "volume, band 2"
    assert total == pytest.approx(serial["scores"][name]["voi_split"])


def test_errors_are_a_table_of_their_own(volumes):
    seg, gt, *addresses = volumes
    rows = score(*addresses, "2d", objects=True, cell=(1, 20, 30))["objects"]
    read = list(csv.DictReader(io.StringIO(objects_csv(rows))))
    assert len(read) == len(rows) > 0
    for row in read:
        at = int(row["z"]), int(row["y"]), int(row["x"])
        first, second = (gt, seg) if row["kind"] == "split" else (seg, gt)
        assert (first[at], second[at]) == (int(row["id"]), int(row["second"]))


def test_the_users_mistakes_are_told(volumes, tmp_path: Path):
    _, gt, *addresses = volumes
    zarr.create_array(str(tmp_path / "float.zarr"), data=gt.astype(np.float32))
    zarr.create_array(str(tmp_path / "zero.zarr"), data=np.zeros_like(gt))
    with pytest.raises(InputError, match="mode '4d' is not known"):
        score(*addresses, "4d")
    with pytest.raises(InputError, match="background 'white' is not known"):
        score(*addresses, background="white")
    with pytest.raises(InputError, match="background = keep scores the cells of slices"):
        score(*addresses, "3d", background="keep")
    with pytest.raises(InputError, match="ignore = 0 leaves that out"):
        score(*addresses, background="keep", ignore=(0,))
    for label in (-1, 2**64):
        with pytest.raises(InputError, match=f"ignore = .{label}. are no labels"):
            score(*addresses, ignore=(label,))
    zarr.create_array(str(tmp_path / "negative.zarr"), data=gt.astype(np.int32) - 1)
    for pair in ((addresses[0], str(tmp_path / "negative.zarr")), (str(tmp_path / "negative.zarr"), addresses[1])):
        with pytest.raises(InputError, match=r"holds label -1 in .*, and labels are 0 or more"):
            score(*pair)
    with pytest.raises(InputError, match="do not name distances"):
        score(*addresses, bands=(-1,))
    with pytest.raises(InputError, match="is float32, but labels are integers"):
        score(addresses[0], str(tmp_path / "float.zarr"))
    for mode in ("2d", "3d"):
        with pytest.raises(InputError, match="nothing can be scored"):
            score(addresses[0], str(tmp_path / "zero.zarr"), mode)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"bands": (99,)}, "is 0 or lies nearer than 99 voxels to a boundary, its band, so .*or a narrower band"),
        ({"ignore": range(1, 9), "bands": (0,)}, "is 0 or has label 1, 2, .* 8, which is ignored, so"),
        ({"ignore": range(1, 9), "mode": "2d"}, "is 0 or has label 1, 2, .* 8, which is ignored, so"),
    ],
)
def test_what_left_nothing_to_judge_is_told(volumes, given, told):
    """Not that the ground truth were empty, which has labels."""
    with pytest.raises(InputError, match=f"every voxel of ground truth .*gt.zarr {told}"):
        score(*volumes[2:], **{"mode": "3d", **given})


@pytest.mark.parametrize("given", [{"mode": "2d"}, {"background": "keep"}])
def test_a_band_that_would_leave_out_nothing_is_refused(volumes, given):
    with pytest.raises(InputError, match=r"bands = \[3\] would leave out nothing, as this is scored in 2d mode"):
        score(*volumes[2:], bands=(3,), **given)


@pytest.mark.parametrize(
    ("size", "offset", "apart"),
    [
        ((40.0, 4.0, 4.0), (0.0, 0.0, 0.0), False),
        ((40.1, 4.0, 4.0), (0.0, 1.5, 0.0), False),
        ((40.0, 8.0, 8.0), (0.0, 0.0, 0.0), True),
        ((40.0, 4.0, 4.0), (40.0, 0.0, 0.0), True),
    ],
)
def test_volumes_that_lie_apart_are_told(volumes, tmp_path, size, offset, apart):
    seg, gt, *_ = volumes
    paths = [str(tmp_path / f"{name}.h5") for name in ("seg", "gt")]
    places = [((40.0, 4.0, 4.0), (0.0, 0.0, 0.0)), (size, offset)]
    for path, array, (resolution, start) in zip(paths, (seg, gt), places, strict=True):
        with h5py.File(path, "w") as file:
            file["labels"] = array
            file["labels"].attrs.update(resolution=resolution, offset=start)
    result = score(*paths, "2d")
    assert ("not the same place" in result.get("warning", "")) == apart
    if apart:
        assert "gt.h5:labels of" in result["warning"]
        assert f"{size[1]:g} x {size[2]:g} nm from {offset[0]:g}, 0, 0" in result["warning"]
