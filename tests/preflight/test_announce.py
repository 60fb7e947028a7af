"""What is told before a run begins; `tests/test_cli.py` has it from the command line."""

import shutil
from pathlib import Path

import pytest
import zarr

from tests.support import small_config
from vimvol.config.cluster import (
    AddressCluster,
    CudaCluster,
    JobsCluster,
    KubernetesCluster,
    LocalCluster,
    read_cluster,
)
from vimvol.io import open_volume
from vimvol.io.mask import open_mask
from vimvol.io.omezarr import create_image
from vimvol.preflight.announce import input_text, mask_text, more_memory_text, workers_text
from vimvol.preflight.prepare import prepare


def test_other_arrays_are_named_where_none_was_chosen_and_need_not_be_intact(reference: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.zarr"
    shutil.copytree(reference, out)
    volume = open_volume(str(out))
    assert volume.dataset == "0"
    chosen = input_text(str(out), volume)
    assert "chosen, since none was named, before 1 (" in chosen
    assert chosen.endswith(" more")
    assert input_text(f"{out}:0", volume) == chosen.partition(";")[0]
    (out / "labels" / "segmentation" / "1" / "zarr.json").write_text("{")
    assert input_text(str(out), volume) == chosen.partition(";")[0]


def test_that_an_array_of_a_group_was_chosen_is_told(tmp_path: Path) -> None:
    group = zarr.create_group(str(tmp_path / "in.zarr")).create_group("volumes")
    group.create_array("raw", shape=(4, 8, 8), dtype="uint8")
    address = f"{tmp_path}/in.zarr:volumes"
    told = input_text(address, open_volume(address))
    assert told.endswith(", uint8; chosen, since volumes is no array but a group")
    assert f"input: {address}/raw, " in told
    group.create_array("labels/ids", shape=(4, 8, 8), dtype="uint64")
    told = input_text(address, open_volume(address))
    assert told.endswith("since volumes is no array but a group, before volumes/labels/ids (4 x 8 x 8 uint64)")
    assert input_text(f"{address}/raw", open_volume(f"{address}/raw")).endswith(", uint8")


@pytest.mark.parametrize(
    ("cluster", "workers", "text"),
    [
        (LocalCluster(), 0, ""),
        (LocalCluster(), 1, "workers: starting 1 process"),
        (LocalCluster(), 3, "workers: starting 3 processes"),
        (AddressCluster(address="tcp://node:8786"), None, "workers: connecting to tcp://node:8786"),
        (AddressCluster(scheduler_file="dask.json"), 2, "workers: connecting to dask.json"),
        (read_cluster("cuda"), None, "workers: starting a cluster by cuda"),
    ],
)
def test_what_is_waited_for_is_told(cluster, workers, text) -> None:
    assert workers_text(cluster, workers) == text


@pytest.mark.parametrize(
    ("size", "advice"),
    [
        ((50, 4.6, 4.6), None),
        ((8, 8, 8), None),
        ((40, 4, 6), None),
        ((4.6, 4.6, 50), "if these are x, y, z, give --set input.voxel_size='[50,4.6,4.6]'"),
        ((4, 4, 8), "if these are x, y, z, give --set input.voxel_size='[8,4,4]'"),
        ((50, 4.6, 9.2), "where that is wrong, give --set input.voxel_size='[z,y,x]'"),
        ((4, 8, 8), None),
        ((5, 8, 8), None),
        ((10, 20, 20), None),
    ],
)
def test_a_voxel_size_that_em_hardly_has_is_told_in_one_line(sample: Path, tmp_path: Path, size, advice) -> None:
    def warnings(source: str, **changes: object) -> list[str]:
        lines: list[str] = []
        prepare(source, str(tmp_path / "out.zarr"), small_config(**changes), tell=lines.append)
        return [line for line in lines if line.startswith("warning: ")]

    array = zarr.create_array(str(tmp_path / "raw.zarr"), data=zarr.open_array(str(sample / "raw"), mode="r")[:])
    array.attrs["resolution"] = size
    told = warnings(str(tmp_path / "raw.zarr"))
    assert len(told) == (advice is not None), told
    assert advice is None or told[0].endswith(advice)
    # who gave it is not asked again, unless it is likely another size from back to front
    given = warnings(f"{sample}:raw", input__voxel_size=size)
    assert [line.partition(";")[2] for line in given] == [line.partition(";")[2] for line in told if "x, y, z" in line]


def test_what_a_mask_leaves_uncovered_is_told(tmp_path: Path) -> None:
    raw = open_volume(written(tmp_path / "raw.zarr", (4, 20, 20), (40, 4, 4)))
    whole, small = (open_mask(written(tmp_path / f"{n}.zarr", (4, n, n), (40, 8, 8)), raw) for n in (10, 5))
    assert mask_text(whole, raw).endswith("each of its voxels 1 x 2 x 2 (z, y, x) of the volume's")
    assert "; it covers z 0:4, y 0:10, x 0:10, 25.0% of the volume, and nothing is segmented beyond" in mask_text(
        small, raw
    )


def written(path: Path, shape: tuple[int, ...], voxel_size: tuple[float, ...]) -> str:
    create_image(str(path), shape=shape, dtype="uint8", voxel_size=voxel_size, levels=1, name=path.stem)
    return str(path)


POOLS = {"cpu": {"jobs": 8, "cores": 8, "memory": "32GB"}, "gpu": {"jobs": 4, "cores": 4, "memory": "64GB"}}
PODS = {"image": "i", "cpu": {"workers": 2}, "gpu": {"workers": 1, "memory": "32Gi"}}


@pytest.mark.parametrize(
    ("cluster", "resource", "text"),
    [
        (LocalCluster(), "GPU", "fewer of them with --workers"),
        (CudaCluster(cpu_workers=9), "GPU", "fewer cpu_workers in the settings of the cluster (now 9)"),
        (CudaCluster(), "CPU", "fewer cpu_workers in the settings of the cluster (now as many as --workers or cores)"),
        (
            JobsCluster(kind="slurm", **POOLS),
            "CPU",
            "more cpu.memory in the settings of the cluster (now 32GB), or fewer",
        ),
        (JobsCluster(kind="pbs", **POOLS), "GPU", "more gpu.memory in the settings of the cluster (now 64GB)"),
        (JobsCluster(kind="lsf", cpu=POOLS["cpu"]), "GPU", "more cpu.memory"),
        (JobsCluster(kind="sge", gpu=POOLS["gpu"]), "CPU", "more gpu.memory"),
        (KubernetesCluster(**PODS), "CPU", "more cpu.memory in the settings of the cluster (now 8Gi)"),
        (KubernetesCluster(**PODS), "GPU", "more gpu.memory in the settings of the cluster (now 32Gi)"),
        (AddressCluster(address="tcp://node:8786"), "CPU", "starting the workers"),
    ],
)
def test_the_setting_that_gives_a_worker_more_memory_is_that_of_its_cluster_and_pool(cluster, resource, text) -> None:
    assert more_memory_text(cluster, resource).startswith(text)
