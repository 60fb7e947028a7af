"""Workers that outlive a run: what they have read of an input must not reach the next run."""

import shutil
from collections.abc import Callable
from pathlib import Path

import distributed
import h5py
import numpy as np
import pytest
import tifffile

from tests.support import digest, small_config
from vimvol.commands.agglomerate import agglomerate
from vimvol.commands.export import export
from vimvol.commands.segment import segment_volume
from vimvol.commands.workers import workers_of
from vimvol.config.cluster import AddressCluster
from vimvol.engine.cluster import open_cluster
from vimvol.io.objects import open_objects
from vimvol.outputs.manifest import parse_note, read_manifest
from vimvol.report.progress import silent
from vimvol.sample import SampleSpec, generate
from vimvol.stages.names import NOTE

RAW = generate(SampleSpec(shape=(2, 64, 60)))[0]
VOXEL = [50.0, 4.6, 4.6]


def _hdf5(path: Path, data: np.ndarray) -> None:
    with h5py.File(path, "w") as file:
        file["raw"] = data


def _tiff(path: Path, data: np.ndarray) -> None:
    tifffile.imwrite(path, data, compression="zlib", metadata={"axes": "ZYX"})


@pytest.fixture(scope="module")
def cluster():
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=1, host="127.0.0.1", dashboard_address="127.0.0.1:0"
    ) as started:
        yield AddressCluster(address=started.scheduler_address)


def _put(write: Callable[[Path, np.ndarray], None], path: Path, data: np.ndarray) -> str:
    write(path.with_suffix(".new"), np.ascontiguousarray(data))
    path.with_suffix(".new").replace(path)
    return str(path)


@pytest.mark.parametrize("write", [_hdf5, _tiff])
def test_a_replaced_input_is_read_anew(write, cluster, tmp_path: Path) -> None:
    config = small_config(input__voxel_size=VOXEL)
    source = _put(write, tmp_path / "a.volume", RAW)
    segment_volume(source, str(tmp_path / "old.zarr"), config, cluster=cluster)
    _put(write, tmp_path / "a.volume", RAW[:, ::-1, ::-1])
    segment_volume(source, str(tmp_path / "new.zarr"), config, cluster=cluster)
    segment_volume(source, str(tmp_path / "here.zarr"), config)
    assert digest(tmp_path / "new.zarr")["0"] == digest(tmp_path / "here.zarr")["0"]


@pytest.mark.parametrize("what", ["mask", "boundaries"])
def test_so_are_a_mask_and_given_boundaries(what, cluster, tmp_path: Path) -> None:
    source = _put(_hdf5, tmp_path / "a.volume", RAW)
    other = np.where(np.median(RAW) < RAW, 255, 0).astype(np.uint8)
    config = small_config(
        input__voxel_size=VOXEL,
        **{"input__mask" if what == "mask" else "predict__boundaries": str(tmp_path / "b.volume")},
    )
    _put(_hdf5, tmp_path / "b.volume", other)
    segment_volume(source, str(tmp_path / "old.zarr"), config, cluster=cluster)
    _put(_hdf5, tmp_path / "b.volume", other[:, ::-1])
    segment_volume(source, str(tmp_path / "new.zarr"), config, cluster=cluster)
    segment_volume(source, str(tmp_path / "here.zarr"), config)
    assert digest(tmp_path / "new.zarr")["0"] == digest(tmp_path / "here.zarr")["0"]


def _open_files(name: str) -> int:
    folder = Path("/proc/self/fd")
    return sum(link.readlink().name == name for link in folder.iterdir() if link.is_symlink())


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="counts the open files of a process under Linux")
def test_workers_keep_no_input_open(cluster, tmp_path: Path) -> None:
    source = _put(_hdf5, tmp_path / "kept.volume", RAW)
    segment_volume(source, str(tmp_path / "a.zarr"), small_config(input__voxel_size=VOXEL), cluster=cluster)
    with open_cluster(cluster) as pool:
        pool.submit(_open_files, "kept.volume")
        assert pool.next_done()[1] == 0


def test_what_ends_a_run_is_what_is_told(cluster) -> None:
    with pytest.raises(KeyError, match="this"), workers_of(cluster, None, calls={"CPU": 1, "GPU": 1}):
        raise KeyError("this")


def test_a_run_starts_no_more_processes_than_it_has_blocks_left(tmp_path: Path) -> None:
    told: list[str] = []
    progress = silent()
    progress.note = told.append
    source, out = _put(_hdf5, tmp_path / "a.volume", RAW), str(tmp_path / "out.zarr")
    config = small_config(input__voxel_size=VOXEL, output__chunk=[2, 64, 60], output__shard=[2, 64, 60], run__workers=3)
    segment_volume(source, out, config, progress=progress)
    assert "workers: starting 1 process of 3, as no stage has more blocks left" in told
    assert [run["workers"] for run in (read_manifest(out) or {})["runs"]] == [1]
    agglomerate(out, ["agglomerate.beta=0.3"], name="finer", workers=3)
    note = parse_note(open_objects(f"{out}/vimvol/agglomerated/finer").get(NOTE))
    assert [run["workers"] for run in note["runs"]] == [1]
    told.clear()
    export(out, str(tmp_path / "copy.zarr"), workers=3, progress=progress)
    assert "workers: starting 1 process of 3, as no stage has more blocks left" in told


def test_what_is_lost_is_left_whatever_the_records_tell(tmp_path: Path) -> None:
    source, out = _put(_hdf5, tmp_path / "a.volume", RAW), str(tmp_path / "out.zarr")
    config = small_config(input__voxel_size=VOXEL)
    segment_volume(source, out, config)
    shutil.rmtree(Path(out) / "labels" / "segmentation")
    segment_volume(source, out, small_config(input__voxel_size=VOXEL, run__workers=2))
    assert [run["workers"] for run in (read_manifest(out) or {})["runs"]] == [1, 2]
