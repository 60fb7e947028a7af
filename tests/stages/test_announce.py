"""What is told before a run begins; `tests/test_cli.py` has it from the command line."""

import shutil
from pathlib import Path

import pytest

from vimvol.config.cluster import AddressCluster, LocalCluster, read_cluster
from vimvol.io import open_volume
from vimvol.stages.announce import input_text, workers_text


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
