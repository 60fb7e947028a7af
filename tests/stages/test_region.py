import shutil
from pathlib import Path

import numpy as np
import pytest
import zarr

from tests.support import digest, last_run, small_config
from vimvol.commands.qa import check_seams
from vimvol.commands.score import score
from vimvol.commands.segment import segment_volume
from vimvol.errors import InputError
from vimvol.evaluate.protocol import score_slices, score_volume
from vimvol.geometry import Block
from vimvol.infer.predictor import Predictor
from vimvol.io import open_volume
from vimvol.io.volume import Volume
from vimvol.preflight.prepare import prepare
from vimvol.preflight.survey import survey

ROI = [[1, 20, 30], [3, 90, 110]]
BLOCKS = [None, [2, 128, 48], [4, 64, 96], [4, 128, 144]]


def level(out: Path, name: str, number: int = 0) -> np.ndarray:
    return zarr.open_array(str(out / name / str(number)), mode="r")[:]


@pytest.fixture(scope="module")
def mask(tmp_path_factory) -> str:
    """A mask of the sample at half its resolution in y and x, uneven, empty in some blocks."""
    y, x = np.mgrid[:64, :60]
    data = np.zeros((4, 64, 60), bool)
    data[:] = (y - 30) ** 2 + (x - 20) ** 2 < 24**2
    data[3, :, 24:] = False
    path = tmp_path_factory.mktemp("mask") / "mask.zarr"
    zarr.create_array(str(path), data=data)
    return str(path)


def wanted(mask: str) -> np.ndarray:
    found = np.zeros((4, 128, 120), bool)
    box = Block(*map(tuple, ROI)).slices
    found[box] = zarr.open_array(mask, mode="r")[:].repeat(2, 1).repeat(2, 2)[box]
    return found


def test_region_and_mask_give_the_same_bytes_for_any_blocks_and_0_outside(
    sample: Path, tmp_path: Path, mask: str
) -> None:
    outs = [tmp_path / f"{i}.zarr" for i in range(len(BLOCKS))]
    for out, block in zip(outs, BLOCKS, strict=True):
        segment_volume(f"{sample}:raw", str(out), small_config(input__roi=ROI, input__mask=mask, run__block=block))
        assert digest(out) == digest(outs[0])
        stages = {stage["name"]: stage["voxels"] for stage in last_run(out)["stages"]}
        assert {name for name, voxels in stages.items() if voxels == 2 * 70 * 80} == {
            *("predict", "fragments", "graph", "costs", "solve", "sizes", "write")
        }
    outside = ~wanted(mask)
    boundaries, labels = level(outs[0], "")[0], level(outs[0], "labels/segmentation")
    assert not boundaries[outside].any()
    assert not labels[outside].any()
    assert (labels[~outside] > 0).mean() > 0.9
    assert labels.max() > 3
    checked = check_seams(str(outs[0]))
    assert checked["passed"]
    assert checked["shifted"]["region"] == str(Block(*map(tuple, ROI)))


def test_boundaries_inside_are_those_of_the_whole_volume(
    sample: Path, reference: Path, tmp_path: Path, mask: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Context is read from outside; only the statistics are those of what is wanted."""
    everything = prepare(f"{sample}:raw", str(tmp_path / "x"), small_config()).standardization
    monkeypatch.setattr("vimvol.preflight.prepare.survey", lambda *_: everything)
    segment_volume(f"{sample}:raw", str(tmp_path / "out.zarr"), small_config(input__roi=ROI, input__mask=mask))
    inside = wanted(mask)
    np.testing.assert_array_equal(level(tmp_path / "out.zarr", "")[0], np.where(inside, level(reference, "")[0], 0))


def test_blocks_outside_cost_no_reading_and_no_inference(
    sample: Path, tmp_path: Path, mask: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[Block] = []
    predicted: list[Block] = []
    read_box, predict = Volume.read, Predictor.predict_block

    def reading(self, block):
        if self.dtype == "uint8":
            read.append(block)
        return read_box(self, block)

    def predicting(self, raw, origin, block, *rest):
        predicted.append(block)
        return predict(self, raw, origin, block, *rest)

    monkeypatch.setattr(Volume, "read", reading)
    monkeypatch.setattr(Predictor, "predict_block", predicting)
    segment_volume(f"{sample}:raw", str(tmp_path / "a.zarr"), small_config(input__roi=[[0, 0, 0], [2, 50, 40]]))
    assert predicted == [Block((0, 0, 0), (2, 64, 48))]
    assert all(block.end[0] <= 2 for block in read)  # slices are predicted by themselves
    read.clear()
    predicted.clear()
    segment_volume(f"{sample}:raw", str(tmp_path / "b.zarr"), small_config(input__mask=mask))
    assert len(predicted) == 8  # of 12: there is nothing at the end of x
    assert not any(block.begin[2] >= 96 for block in predicted)


def test_a_block_without_data_costs_no_inference(sample: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = zarr.open_array(str(sample / "raw"), mode="r")[:]
    raw[2:, :, 30:] = 0
    zarr.create_array(str(tmp_path / "raw"), data=raw).attrs["resolution"] = [50.0, 4.6, 4.6]
    passes = 0
    forward = Predictor._forward

    def count(self, *args):
        nonlocal passes
        passes += 1
        return forward(self, *args)

    monkeypatch.setattr(Predictor, "_forward", count)
    segment_volume(str(tmp_path / "raw"), str(tmp_path / "out.zarr"), small_config())
    with_data = sum(raw[z, y : y + 64, x : x + 48].any() for z in range(4) for y in (0, 64) for x in (0, 48, 96))
    assert passes <= with_data * 2  # a block of 48 meets two tiles of 64
    assert not level(tmp_path / "out.zarr", "")[0, 2:, :, 30:].any()


def test_another_region_leaves_nothing_of_the_one_before(sample: Path, tmp_path: Path) -> None:
    out, other = tmp_path / "out.zarr", [[0, 0, 0], [2, 64, 60]]
    segment_volume(f"{sample}:raw", str(out), small_config(input__roi=ROI))
    segment_volume(f"{sample}:raw", str(out), small_config(input__roi=other), overwrite=True)
    segment_volume(f"{sample}:raw", str(tmp_path / "fresh.zarr"), small_config(input__roi=other))
    assert digest(out) == digest(tmp_path / "fresh.zarr")


def test_the_mask_is_part_of_the_keys_and_found_from_elsewhere(
    sample: Path, tmp_path: Path, mask: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = shutil.copytree(mask, tmp_path / "mask.zarr")
    monkeypatch.chdir(tmp_path)
    job = prepare(f"{sample}:raw", "out.zarr", small_config(input__mask="mask.zarr"))
    assert job.config.input.mask == str(own)
    zarr.open_array(str(own), mode="r+")[0] = True
    changed = prepare(f"{sample}:raw", "out.zarr", small_config(input__mask="mask.zarr"))
    assert all(job.keys[stage] != changed.keys[stage] for stage in job.keys)


def test_statistics_are_those_of_the_region_and_mask(sample: Path, mask: str) -> None:
    job = prepare(f"{sample}:raw", "out.zarr", small_config(input__roi=ROI, input__mask=mask))
    raw = zarr.open_array(str(sample / "raw"), mode="r")[:]
    for scope, values in (("volume", [raw[wanted(mask)]]), ("slice", [raw[z][wanted(mask)[z]] for z in range(4)])):
        found = survey(job.source, scope, job.roi, job.mask)
        expected = [float(v[v > 0].mean()) if v.size else 0.0 for v in values]
        assert found.mean == pytest.approx(expected)


@pytest.mark.parametrize(
    ("roi", "message"), [([[0, 0, 0], [5, 64, 64]], "is no box inside"), ([[2, 0, 0], [2, 64, 64]], "holds no voxel")]
)
def test_a_region_that_is_no_box_of_the_volume_is_refused(sample: Path, tmp_path: Path, roi, message) -> None:
    with pytest.raises(InputError, match=message):
        segment_volume(f"{sample}:raw", str(tmp_path / "out.zarr"), small_config(input__roi=roi))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("mode", ["2d", "3d"])
def test_only_the_region_is_scored(sample: Path, tmp_path: Path, mode: str) -> None:
    """What lies outside was not asked for, so it is no error; slices without a voxel of the region have no score."""
    out, truth = str(tmp_path / "out.zarr"), f"{sample}:labels"
    segment_volume(f"{sample}:raw", out, small_config(input__roi=ROI, segment__mode=mode))
    found = score(out, truth, cell=(2, 64, 48), objects=True)
    assert found["scores"] == score(out, truth)["scores"]
    box = Block(*map(tuple, ROI)).slices
    seg = level(tmp_path / "out.zarr", "labels/segmentation")
    gt = open_volume(truth, prefer="labels").read_labels(Block.whole(seg.shape))
    assert found["region"] == ROI
    if mode == "2d":
        assert found["scores"]["slices"] == score_slices(seg[box], gt[box])
        assert [one["slice"] for one in found["slices"]] == [1, 2]
    else:
        assert found["scores"]["volume"] == score_volume(seg[box], gt[box])
    inside = [all(b <= row[a] < e for a, b, e in zip("zyx", *ROI, strict=True)) for row in found["objects"]]
    assert inside
    assert all(inside)


@pytest.mark.parametrize("missing", [0, None])
def test_what_is_not_finite_is_missing_and_told(sample: Path, tmp_path: Path, missing: float | None) -> None:
    raw = zarr.open_array(str(sample / "raw"), mode="r")[:].astype(np.float32)
    lost = np.zeros(raw.shape, bool)
    lost[1, 20:60, 30:70] = lost[3, 5, 7] = True
    data = np.where(lost, np.nan, raw)
    data[3, 5, 7] = np.inf
    zarr.create_array(str(tmp_path / "raw"), data=data).attrs["resolution"] = [50.0, 4.6, 4.6]
    outs = [tmp_path / "a.zarr", tmp_path / "b.zarr"]
    for out, block in zip(outs, (None, [2, 128, 48]), strict=True):
        config = small_config(input__missing=missing, run__block=block)
        (text,) = segment_volume(str(tmp_path / "raw"), str(out), config, log=str(tmp_path / "log")).warnings
        assert text.startswith("1601 voxels of ")
        assert "are not finite (NaN or infinity), the first in [0:2, 0:" in text
    assert digest(outs[0]) == digest(outs[1])
    labels, boundaries = level(outs[0], "labels/segmentation"), level(outs[0], "")[0]
    assert not labels[lost].any()
    assert not boundaries[lost].any()
    assert (labels[~lost] > 0).mean() > 0.9
    assert '"not_finite": 1601' in (tmp_path / "log").read_text()
