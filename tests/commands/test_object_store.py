"""A whole run whose output lies in an object store, S3 as moto serves it, equals one in a folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from zarr.core.sync import sync

from tests.support import digest, small_config
from vimvol.commands.agglomerate import agglomerate
from vimvol.commands.export import export
from vimvol.commands.picture import draw_overview
from vimvol.commands.qa import check_seams
from vimvol.commands.segment import segment_volume
from vimvol.commands.status import status
from vimvol.errors import InputError, OutputBusyError, OutputExistsError
from vimvol.geometry import Block
from vimvol.io import open_volume
from vimvol.io.arrays import read_box
from vimvol.io.objects import open_objects
from vimvol.outputs.ownership import owned

COARSE = {"output__shard": [4, 128, 96], "output__levels": 2}
"""Blocks not too small: every request to an object store takes its time."""


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    """The URL of an empty bucket that worker processes see, too."""
    server = pytest.importorskip("moto.server").ThreadedMotoServer("127.0.0.1", 0)
    boto3, s3fs = pytest.importorskip("boto3"), pytest.importorskip("s3fs")
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "test")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        boto3.client("s3").create_bucket(Bucket="specimens")
        yield "s3://specimens"
        for files in s3fs.S3FileSystem._cache.values():
            sync(files.s3.close())
    server.stop()


@pytest.fixture(scope="module")
def stored(bucket: str, sample: Path) -> str:
    """The output of a run with two workers."""
    out = f"{bucket}/out.zarr"
    segment_volume(f"{sample}:raw", out, small_config(run__workers=2, **COARSE))
    return out


@pytest.fixture(scope="module")
def plain(sample: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The same in a folder, made in this process."""
    out = str(tmp_path_factory.mktemp("plain") / "out.zarr")
    segment_volume(f"{sample}:raw", out, small_config(**COARSE))
    return out


def test_the_output_equals_that_in_a_folder(stored: str, plain: str) -> None:
    assert digest(stored) == digest(plain)


def test_a_finished_run_is_known(stored: str, sample: Path) -> None:
    assert status(stored).complete
    assert segment_volume(f"{sample}:raw", stored, small_config(**COARSE)).segments > 5
    with pytest.raises(OutputExistsError, match="other settings"):
        segment_volume(f"{sample}:raw", stored, small_config(agglomerate__beta=0.4, **COARSE))


def test_one_run_at_a_time_writes(stored: str, sample: Path) -> None:
    with owned(stored), pytest.raises(OutputBusyError):
        segment_volume(f"{sample}:raw", stored, small_config(agglomerate__beta=0.4, **COARSE), overwrite=True)


def test_pictures_checks_and_other_segmentations_lie_beside_it(stored: str, sample: Path) -> None:
    draw_overview(f"{sample}:raw", stored, small_config(**COARSE))
    check_seams(stored)
    agglomerate(stored, ["agglomerate.beta=0.4"], name="other", workers=0)
    work = open_objects(f"{stored}/vimvol")
    assert {"overview.png", "qa.json"} <= set(work.names(""))
    whole = Block.whole((4, 128, 120))
    assert np.unique(read_box(f"{stored}/labels/other/0", whole)).size > 2


def test_a_copy_in_version_0_4_lies_in_an_object_store_too(bucket: str, stored: str, plain: str) -> None:
    copy = f"{bucket}/copy.zarr"
    for workers in (2, 0):  # the second time there is nothing to do
        export(stored, copy, workers=workers)
    for dataset in ("0", "1", "labels/segmentation/0"):
        one, other = (open_volume(f"{place}:{dataset}", prefer="mask") for place in (copy, plain))
        np.testing.assert_array_equal(one.read(Block.whole(one.shape)), other.read(Block.whole(other.shape)))
    assert open_objects(copy).get(".zgroup") is not None


def test_another_layout_replaces_the_old_one(bucket: str, sample: Path, plain: str) -> None:
    out, ready = f"{bucket}/changed.zarr", {**COARSE, "predict__boundaries": f"{plain}:0"}
    segment_volume(f"{sample}:raw", out, small_config(**ready))
    before = digest(out)
    segment_volume(f"{sample}:raw", out, small_config(**{**ready, "output__shard": [4, 128, 48]}), overwrite=True)
    assert digest(out) == before == digest(plain)
    assert open_volume(f"{out}:labels/segmentation/0", prefer="labels").shards == (4, 128, 48)


def test_what_is_not_ours_is_left_alone(bucket: str, sample: Path) -> None:
    open_objects(f"{bucket}/foreign.zarr").put("notes.txt", b"mine")
    with pytest.raises(OutputExistsError, match="no output of vimvol"):
        segment_volume(f"{sample}:raw", f"{bucket}/foreign.zarr", small_config(**COARSE))


def test_a_store_that_refuses_is_told_before_the_network_is_looked_for(bucket: str, sample: Path) -> None:
    config = small_config(predict__model="nowhere.pt", **COARSE)
    with pytest.raises(InputError, match=r"output s3://elsewhere/out\.zarr cannot be written: .*bucket does not exist"):
        segment_volume(f"{sample}:raw", "s3://elsewhere/out.zarr", config)
    with pytest.raises(InputError, match=r"nowhere\.pt"):
        segment_volume(f"{sample}:raw", f"{bucket}/other.zarr", config)
    assert "other.zarr" not in open_objects(bucket).names("")
