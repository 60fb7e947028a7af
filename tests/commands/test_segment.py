import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import ome_zarr_models
import pytest
import zarr
from ome_zarr.io import parse_url
from ome_zarr.reader import Reader

from tests.support import digest, small_config
from vimvol.commands.segment import segment_volume
from vimvol.config import SegmentConfig, load_config
from vimvol.errors import InputError, OutputExistsError
from vimvol.evaluate.protocol import score_volume
from vimvol.io import open_volume
from vimvol.outputs.manifest import read_manifest


def labels_of(out: Path, level: int = 0) -> np.ndarray:
    return zarr.open_array(str(out / "labels" / "segmentation" / str(level)), mode="r")[:]


def test_labels_are_consecutive_uint64(reference: Path) -> None:
    labels = labels_of(reference)
    assert labels.dtype == np.uint64
    ids = np.unique(labels)
    ids = ids[ids > 0]
    np.testing.assert_array_equal(ids, np.arange(1, len(ids) + 1))
    assert len(ids) > 5


def test_every_level_of_the_label_pyramid_holds_only_ids_of_the_one_below(reference: Path) -> None:
    number = 0
    while (reference / "labels" / "segmentation" / str(number + 1)).is_dir():
        below, here = labels_of(reference, number), labels_of(reference, number + 1)
        assert set(np.unique(here)) <= set(np.unique(below))
        assert here.shape != below.shape
        number += 1
    assert number == 2


def test_the_output_is_valid_ome_zarr(reference: Path) -> None:
    image = ome_zarr_models.open_ome_zarr(zarr.open_group(str(reference), mode="r"))
    assert image.ome_zarr_version == "0.5"
    labels = ome_zarr_models.open_ome_zarr(zarr.open_group(str(reference / "labels" / "segmentation"), mode="r"))
    assert labels.attributes.ome.image_label is not None
    location = parse_url(str(reference))
    assert location is not None
    nodes = list(Reader(location)())
    assert {"boundaries", "segmentation"} <= {str(node.metadata.get("name", "")) for node in nodes}
    array = zarr.open_array(str(reference / "labels" / "segmentation" / "0"), mode="r")
    assert array.shards == (2, 64, 48)
    assert array.chunks == (2, 32, 48)


@pytest.mark.parametrize("block", [[4, 128, 144], [2, 128, 48]])
def test_blocks_do_not_change_a_byte(sample: Path, reference: Path, tmp_path: Path, block: list[int]) -> None:
    segment_volume(f"{sample}:raw", str(tmp_path / "out.zarr"), small_config(run__block=block))
    assert digest(tmp_path / "out.zarr") == digest(reference)


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_do_not_change_a_byte(sample: Path, reference: Path, tmp_path: Path, workers: int) -> None:
    segment_volume(f"{sample}:raw", str(tmp_path / "out.zarr"), small_config(run__workers=workers))
    assert digest(tmp_path / "out.zarr") == digest(reference)


@pytest.mark.parametrize("dimension", ["2d", "3d"])
def test_blocks_do_not_change_a_byte_in_either_dimension(sample: Path, tmp_path: Path, dimension: str) -> None:
    shared = {"fragments__dimension": dimension, "fragments__tile": [3, 48, 80], "fragments__halo": [1, 8, 8]}
    segment_volume(f"{sample}:raw", str(tmp_path / "a.zarr"), small_config(**shared))
    segment_volume(f"{sample}:raw", str(tmp_path / "b.zarr"), small_config(**shared, run__block=[4, 64, 96]))
    assert digest(tmp_path / "a.zarr") == digest(tmp_path / "b.zarr")


def test_2d_mode_keeps_slices_apart_and_ignores_tiles(sample: Path, tmp_path: Path) -> None:
    config = small_config(segment__mode="2d")
    segment_volume(f"{sample}:raw", str(tmp_path / "a.zarr"), config)
    segment_volume(f"{sample}:raw", str(tmp_path / "b.zarr"), small_config(segment__mode="2d", run__block=[4, 64, 144]))
    assert digest(tmp_path / "a.zarr") == digest(tmp_path / "b.zarr")
    slices = [set(np.unique(plane)) - {0} for plane in labels_of(tmp_path / "a.zarr")]
    assert sum(map(len, slices)) == len(set().union(*slices))


INTERRUPTED = """
import os, sys
from vimvol.engine import recorder
from tests.support import small_config
from vimvol.commands import segment
from vimvol.stages import {module}
from vimvol.stages.{module} import {task}

recorder.SECONDS_BETWEEN_SEGMENTS = 0
calls = 0
original = {task}.__call__

def stop_at_the_third(self, block):
    global calls
    calls += 1
    if calls == 3:
        os.kill(os.getpid(), 9)
    return original(self, block)

{task}.__call__ = stop_at_the_third
segment.segment_volume(sys.argv[1], sys.argv[2], small_config())
"""


@pytest.mark.parametrize(
    ("module", "task"),
    [
        ("predict", "PredictBlock"),
        ("fragments", "FragmentsBlock"),
        ("graph", "GraphBlock"),
        ("write", "WriteBlock"),
    ],
)
def test_a_killed_run_goes_on_to_the_same_bytes(
    sample: Path, reference: Path, tmp_path: Path, module: str, task: str
) -> None:
    out = tmp_path / "out.zarr"
    script = INTERRUPTED.format(module=module, task=task)
    killed = subprocess.run(
        [sys.executable, "-c", script, f"{sample}:raw", str(out)], cwd=Path(__file__).parents[2], check=False
    )
    assert killed.returncode == -signal.SIGKILL
    assert (read_manifest(str(out)) or {})["state"] == "running"
    done = sorted((out / "vimvol" / "ledger" / module).glob("*/*.records"))
    assert len(done) == 2
    before = {path: path.stat().st_mtime_ns for path in done}
    segment_volume(f"{sample}:raw", str(out), small_config())
    assert {path: path.stat().st_mtime_ns for path in done} == before
    assert digest(out) == digest(reference)
    assert (read_manifest(str(out)) or {})["state"] == "complete"


def test_a_finished_run_is_not_done_again(sample: Path, reference: Path) -> None:
    before = (reference / "vimvol" / "run.json").read_bytes()
    start = time.perf_counter()
    segment_volume(f"{sample}:raw", str(reference), small_config())
    assert (reference / "vimvol" / "run.json").read_bytes() == before
    assert time.perf_counter() - start < 60


def test_other_settings_need_overwrite_and_recompute_only_what_depends_on_them(
    sample: Path, reference: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.zarr"
    shutil.copytree(reference, out)
    changed = small_config(agglomerate__beta=0.8)
    with pytest.raises(OutputExistsError, match=r"agglomerate.beta: 0.25 -> 0.8.*--overwrite"):
        segment_volume(f"{sample}:raw", str(out), changed)
    assert digest(out) == digest(reference)
    predicted = {path: path.stat().st_mtime_ns for path in (out / "0" / "c").rglob("*") if path.is_file()}
    segment_volume(f"{sample}:raw", str(out), changed, overwrite=True)
    assert {path: path.stat().st_mtime_ns for path in predicted} == predicted
    fresh = tmp_path / "fresh.zarr"
    segment_volume(f"{sample}:raw", str(fresh), changed)
    assert digest(out) == digest(fresh)
    assert digest(out) != digest(reference)


def test_going_back_to_earlier_settings_does_not_trust_what_was_overwritten(
    sample: Path, reference: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.zarr"
    shutil.copytree(reference, out)
    segment_volume(f"{sample}:raw", str(out), small_config(fragments__min_size=300), overwrite=True)
    segment_volume(f"{sample}:raw", str(out), small_config(), overwrite=True)
    assert digest(out) == digest(reference)


def test_another_layout_starts_anew(sample: Path, reference: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.zarr"
    shutil.copytree(reference, out)
    segment_volume(f"{sample}:raw", str(out), small_config(output__shard=[2, 32, 48]), overwrite=True)
    np.testing.assert_array_equal(labels_of(out), labels_of(reference))
    assert zarr.open_array(str(out / "labels" / "segmentation" / "0"), mode="r").shards == (2, 32, 48)


TILED = {"output.chunk": [8, 32, 32], "predict.halo": [16, 16], "run.workers": 0}
"""Settings whose default shard follows the tile."""


def with_tile(edge: int, **more: object) -> SegmentConfig:
    return load_config(SegmentConfig, None, {**TILED, "predict.tile": [edge, edge], **more})


@pytest.fixture(scope="module")
def tiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A volume, and what large and small tiles make of it; not to be changed."""
    folder = tmp_path_factory.mktemp("tiled")
    raw = np.random.default_rng(0).integers(0, 255, (16, 104, 104)).astype(np.uint8)
    zarr.create_array(str(folder / "raw.zarr"), data=raw).attrs["resolution"] = [8.0, 8.0, 8.0]
    for name, edge in (("large", 80), ("small", 32)):
        segment_volume(str(folder / "raw.zarr"), str(folder / f"{name}.zarr"), with_tile(edge))
    return folder


@pytest.mark.parametrize("workers", [0, 2])
def test_shards_that_follow_another_setting_are_laid_out_anew(tiled: Path, tmp_path: Path, workers: int) -> None:
    """The default shard depends on the tile: old arrays under a new plan would be written by two tasks at once."""
    out = Path(shutil.copytree(tiled / "large.zarr", tmp_path / "changed.zarr"))
    before = zarr.open_array(str(out / "0"), mode="r").shards
    segment_volume(str(tiled / "raw.zarr"), str(out), with_tile(32, **{"run.workers": workers}), overwrite=True)
    assert zarr.open_array(str(out / "0"), mode="r").shards != before
    assert digest(out) == digest(tiled / "small.zarr") != digest(tiled / "large.zarr")


def test_a_corrected_voxel_size_reaches_the_metadata(sample: Path, tmp_path: Path) -> None:
    segment_volume(f"{sample}:raw", str(tmp_path / "a.zarr"), small_config())
    corrected = small_config(input__voxel_size=[40.0, 8.0, 8.0])
    segment_volume(f"{sample}:raw", str(tmp_path / "a.zarr"), corrected, overwrite=True)
    segment_volume(f"{sample}:raw", str(tmp_path / "b.zarr"), corrected)
    assert digest(tmp_path / "a.zarr") == digest(tmp_path / "b.zarr")


@pytest.mark.parametrize(
    ("lost", "made"),
    [
        ("labels/segmentation/0", {"write"}),
        ("labels/segmentation/1", {"label-pyramid 1"}),
        ("1", {"pyramid 1"}),
        ("vimvol/fragments", {"fragments"}),
        ("labels/segmentation/zarr.json", set()),
        ("zarr.json", set()),
    ],
)
def test_of_a_complete_output_only_what_was_lost_is_made_again(
    sample: Path, reference: Path, tmp_path: Path, lost: str, made: set[str]
) -> None:
    out = Path(shutil.copytree(reference, tmp_path / "out.zarr"))
    remove = shutil.rmtree if (out / lost).is_dir() else Path.unlink
    remove(out / lost)
    segment_volume(f"{sample}:raw", str(out), small_config())
    assert digest(out) == digest(reference)
    runs = (read_manifest(str(out)) or {})["runs"]
    assert len(runs) == 2
    assert {stage["name"] for stage in runs[1]["stages"] if stage["blocks"]} == made


def test_fewer_levels_and_more_leave_the_rest_as_it_is(sample: Path, reference: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(reference, tmp_path / "out.zarr"))
    for levels in (2, None):
        config = small_config() if levels is None else small_config(output__levels=levels)
        segment_volume(f"{sample}:raw", str(out), config, overwrite=True)
        segment_volume(f"{sample}:raw", str(tmp_path / f"{levels}.zarr"), config)
        assert digest(out) == digest(tmp_path / f"{levels}.zarr")
        stages = (read_manifest(str(out)) or {})["runs"][-1]["stages"]
        assert {s["name"].rstrip("012") for s in stages if s["blocks"]} == {"pyramid ", "label-pyramid "}


def test_labels_of_others_are_never_removed(sample: Path, reference: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.zarr"
    shutil.copytree(reference, out)
    zarr.open_group(str(out / "labels" / "proofread"), mode="w")
    with pytest.raises(OutputExistsError, match="labels/proofread"):
        segment_volume(f"{sample}:raw", str(out), small_config(output__shard=[2, 32, 48]), overwrite=True)
    segment_volume(f"{sample}:raw", str(out), small_config(agglomerate__beta=0.8), overwrite=True)
    assert (out / "labels" / "proofread").is_dir()


def test_a_change_of_layout_that_was_interrupted_is_finished(
    sample: Path, reference: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vimvol.outputs import output

    out = tmp_path / "out.zarr"
    shutil.copytree(reference, out)
    changed = small_config(output__shard=[2, 32, 48])
    with monkeypatch.context() as patch:
        patch.setattr(output, "create_arrays", lambda job: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            segment_volume(f"{sample}:raw", str(out), changed, overwrite=True)
    segment_volume(f"{sample}:raw", str(out), changed)
    np.testing.assert_array_equal(labels_of(out), labels_of(reference))


def test_an_output_that_is_not_ours_is_never_touched(sample: Path, tmp_path: Path) -> None:
    out = tmp_path / "precious.zarr"
    out.mkdir()
    (out / "data").write_text("mine")
    for overwrite in (False, True):
        with pytest.raises(OutputExistsError, match="no output of vimvol"):
            segment_volume(f"{sample}:raw", str(out), small_config(), overwrite=overwrite)
    assert [path.name for path in out.iterdir()] == ["data"]


def test_the_input_is_never_the_output(sample: Path) -> None:
    with pytest.raises(InputError, match="would overwrite the input"):
        segment_volume(f"{sample}:raw", str(sample), small_config(), overwrite=True)


def test_the_manifest_tells_what_made_the_output(sample: Path, reference: Path) -> None:
    manifest = json.loads((reference / "vimvol" / "run.json").read_text())
    assert manifest["state"] == "complete"
    assert manifest["input"]["path"] == str(sample)
    assert len(manifest["model"]["sha256"]) == 64
    assert manifest["versions"]["torch"]
    assert manifest["config"]["predict"]["tile"] == [64, 64]
    assert manifest["segments"] == int(labels_of(reference).max())


def test_a_lost_section_is_background_and_merges_nothing(sample: Path, tmp_path: Path) -> None:
    raw = zarr.open_array(str(sample / "raw"), mode="r")[:]
    truth = zarr.open_array(str(sample / "labels"), mode="r")[:]
    raw[2] = 0
    raw[:, :, 100:] = 0
    for name, data in (("raw", raw), ("truth", truth)):
        zarr.create_array(str(tmp_path / name), data=data).attrs["resolution"] = [50.0, 4.6, 4.6]
    outs = [tmp_path / "a.zarr", tmp_path / "b.zarr"]
    segment_volume(str(tmp_path / "raw"), str(outs[0]), small_config())
    segment_volume(str(tmp_path / "raw"), str(outs[1]), small_config(run__block=[4, 128, 144]))
    assert digest(outs[0]) == digest(outs[1])
    labels = labels_of(outs[0])
    assert not labels[2].any()
    assert not labels[:, :, 100:].any()
    kept = [0, 1, 3]
    assert score_volume(labels[kept][:, :, :100], truth[kept][:, :, :100], band=2)["voi_merge"] < 0.3


def test_a_volume_without_data_has_no_segments(tmp_path: Path) -> None:
    array = zarr.create_array(str(tmp_path / "raw"), data=np.zeros((4, 64, 64), np.uint8))
    array.attrs["resolution"] = [50.0, 4.6, 4.6]
    result = segment_volume(str(tmp_path / "raw"), str(tmp_path / "out.zarr"), small_config())
    assert (result.segments, result.fragments) == (0, 0)
    assert not labels_of(tmp_path / "out.zarr").any()


def test_an_unknown_voxel_size_is_not_made_up(sample: Path, tmp_path: Path) -> None:
    slices = zarr.open_array(str(sample), path="raw", mode="r")[:2]
    zarr.create_array(str(tmp_path / "raw.zarr" / "raw"), data=slices, dimension_names=("z", "y", "x"))
    out = tmp_path / "out.zarr"
    segment_volume(f"{tmp_path}/raw.zarr/raw", str(out), small_config(segment__mode="2d"))
    for image in (out, out / "labels" / "segmentation"):
        axes = zarr.open_group(str(image), mode="r").attrs["ome"]["multiscales"][0]["axes"]
        assert not any("unit" in axis for axis in axes)
        assert not open_volume(str(image), prefer="labels" if image != out else "image").voxel_size_known
