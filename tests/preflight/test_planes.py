"""Prediction across the three axes of a volume, in whole runs."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import zarr

from tests.support import digest, random_network
from vimvol.commands.qa import families_of
from vimvol.commands.segment import segment_volume
from vimvol.config import SegmentConfig, load_config
from vimvol.errors import InputError
from vimvol.geometry import Block
from vimvol.infer.predictor import Predictor
from vimvol.preflight.prepare import prepare
from vimvol.sample import SampleSpec, generate
from vimvol.stages.fragments import fragments_stage
from vimvol.stages.predict import PredictBlock, predict_stage

SHAPE = (20, 40, 52)
SETTINGS = {
    "predict.axes": "zyx",
    "predict.tile": [16, 16],
    "predict.halo": [4, 4],
    "output.chunk": [8, 16, 24],
    "output.shard": [8, 16, 24],
    "output.levels": 1,
    "fragments.tile": [8, 16, 24],
    "fragments.halo": [2, 8, 8],
    "run.workers": 0,
}
CLASSES = ("organelle", "boundary")


def boundaries(out: Path) -> np.ndarray:
    """Both channels (c, z, y, x)."""
    return zarr.open_array(str(out / "0"), mode="r")[:]


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., SegmentConfig]:
    """Settings with a small random network, and changes to them."""
    path = tmp_path_factory.mktemp("network") / "random.safetensors"
    model = random_network(path, gain=8, out_channels=len(CLASSES), classes=CLASSES)

    def changed(**changes: object) -> SegmentConfig:
        given = {key.replace("__", "."): value for key, value in changes.items()}
        return load_config(SegmentConfig, None, {**SETTINGS, "predict.model": model, **given})

    return changed


@pytest.fixture(scope="module")
def cube(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A synthetic volume of 8 nm voxels with a lost section and padding at the end of x."""
    raw, _ = generate(SampleSpec(shape=SHAPE, voxel_size=(8.0, 8.0, 8.0)))
    raw[10] = 0
    raw[:, :, 36:] = 0
    path = tmp_path_factory.mktemp("cube") / "raw.zarr"
    zarr.create_array(str(path), data=raw).attrs["resolution"] = [8.0, 8.0, 8.0]
    return str(path)


@pytest.fixture(scope="module")
def reference(cube: str, config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("reference") / "out.zarr"
    segment_volume(cube, str(out), config())
    return out


@pytest.mark.parametrize(
    "changes", [{"run__block": [8, 16, 24]}, {"run__block": [16, 48, 72], "run__workers": 1}], ids=str
)
def test_blocks_and_workers_do_not_change_a_byte(
    cube: str, config, reference: Path, tmp_path: Path, changes: dict
) -> None:
    segment_volume(cube, str(tmp_path / "out.zarr"), config(**changes))
    assert digest(tmp_path / "out.zarr") == digest(reference)


def test_a_run_that_stopped_goes_on_in_other_blocks_to_the_same_bytes(
    cube: str, config, reference: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, done, predict = str(tmp_path / "out.zarr"), [], PredictBlock.__call__

    def stopping(self: PredictBlock, block: Block) -> dict:
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(block)
        return predict(self, block)

    with monkeypatch.context() as patch:
        patch.setattr(PredictBlock, "__call__", stopping)
        with pytest.raises(KeyboardInterrupt):
            segment_volume(cube, out, config())
    assert len(done) == 2
    segment_volume(cube, out, config(run__block=[8, 32, 24]))
    assert digest(out) == digest(reference)


def test_what_holds_no_data_stays_background(reference: Path) -> None:
    labels = zarr.open_array(str(reference / "labels" / "segmentation" / "0"), mode="r")[:]
    for found in (*boundaries(reference), labels):
        assert not found[10].any()
        assert not found[:, :, 36:].any()
        assert found[9].any()
        assert found[:, :, 35].any()


def test_a_region_has_the_boundaries_of_the_whole_and_costs_only_its_tiles(
    cube: str, config, reference: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    roi, whole = Block((2, 4, 26), (8, 14, 36)), prepare(cube, str(tmp_path / "x"), config())
    monkeypatch.setattr("vimvol.preflight.prepare.survey", lambda *_: whole.standardization)
    tiles, forward = [], Predictor._forward

    def counting(self, inputs, used, call):
        tiles.append(used)
        return forward(self, inputs, used, call)

    monkeypatch.setattr(Predictor, "_forward", counting)
    segment_volume(cube, str(tmp_path / "out.zarr"), config(input__roi=[list(roi.begin), list(roi.end)]))
    inside = (slice(None), *roi.slices)
    expected = np.zeros((2, *SHAPE), np.uint8)
    expected[inside] = boundaries(reference)[inside]
    np.testing.assert_array_equal(boundaries(tmp_path / "out.zarr"), expected)
    # slices, tiles along rows, along columns; along z, all of it fits one window, and one block holds the region
    needed = {"z": 6 * 1 * 2, "y": 10 * 2 * 1, "x": 10 * 1 * 1}
    assert sum(tiles) == sum(needed.values())


def test_blocks_are_of_whole_tiles_and_seams_are_looked_for_at_those_of_every_plane(
    cube: str, config, tmp_path: Path
) -> None:
    job = prepare(cube, str(tmp_path / "out.zarr"), config())
    assert [plane.cell for plane in job.planes] == [(1, 16, 16), (20, 1, 16), (20, 16, 1)]
    assert predict_stage(job).plan.blocks.cell == (24, 16, 24)
    assert fragments_stage(job).plan.blocks.cell == job.shard
    job = prepare(cube, str(tmp_path / "out.zarr"), config(predict__tile=[8, 12]))
    names = {(family.axis, name): family.step for family in families_of(job, range(0)) for name in family.names}
    tiles = {key: step for key, step in names.items() if key[1].startswith("prediction")}
    assert tiles == {
        (0, "prediction tile across x"): 8,
        (1, "prediction tile"): 8,
        (1, "prediction tile across x"): 12,
        (2, "prediction tile"): 12,
        (2, "prediction tile across y"): 8,
    }


def test_the_axes_are_part_of_the_keys_of_what_follows_only_where_they_are_used(
    cube: str, config, tmp_path: Path
) -> None:
    one, three = (prepare(cube, str(tmp_path / "out.zarr"), config(predict__axes=axes)) for axes in ("z", "zyx"))
    assert all(one.keys[stage] != three.keys[stage] for stage in one.keys)
    assert len(one.planes) == 1
    assert one.planes[0] == three.planes[0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"segment__mode": "2d"}, "segment.mode = 2d wants every slice by itself"),
        ({"input__voxel_size": [40.0, 8.0, 8.0]}, "40 x 8 x 8 nm.*look stretched"),
        ({"input__voxel_size": [8.0, 8.0, 20.0], "fragments__dimension": "3d"}, "8 x 8 x 20 nm.*look stretched"),
    ],
    ids=str,
)
def test_where_it_makes_no_sense_it_is_refused_in_one_line(
    cube: str, config, tmp_path: Path, changes: dict, message: str
) -> None:
    with pytest.raises(InputError, match=message) as caught:
        segment_volume(cube, str(tmp_path / "out.zarr"), config(**changes))
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_boundaries_that_are_given_are_not_predicted_across_any_axis(cube: str, config, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"taken as they are, so predict\.axes = zyx would change nothing"):
        prepare(cube, str(tmp_path / "out.zarr"), config(predict__boundaries=cube))


def test_voxels_of_unknown_size_are_refused(config, tmp_path: Path) -> None:
    zarr.create_array(str(tmp_path / "raw.zarr"), data=np.ones((32, 32, 32), np.uint8))
    with pytest.raises(InputError, match=r"does not say its voxel size, and predict\.axes = zyx"):
        prepare(str(tmp_path / "raw.zarr"), str(tmp_path / "out.zarr"), config(fragments__dimension="3d"))
