"""N5 and precomputed behind URLs, without tensorstore, and in processes of any kind."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.io.tensors import GZIP, SHARDING, write_group, write_n5, write_precomputed
from vimvol.commands.listing import volume_rows
from vimvol.commands.score import score
from vimvol.errors import InputError, MissingExtraError, StorageError
from vimvol.geometry import Block
from vimvol.io import describe, open_volume
from vimvol.io.formats import stores
from vimvol.io.objects import open_objects
from vimvol.io.volume import forget_open

IMAGE = np.random.default_rng(0).integers(1, 256, (6, 5, 6), dtype=np.uint8).repeat(4, 1).repeat(4, 2)
"""Also fit for labels."""
WHOLE = Block.whole(IMAGE.shape)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An N5 container of scales, and a precomputed volume in shards."""
    found = tmp_path_factory.mktemp("stores")
    size = {"pixelResolution": {"dimensions": [4, 8, 40], "unit": "nm"}, "scales": [[1, 1, 1], [2, 2, 1]]}
    write_group(found / "a.n5" / "em", **size)
    write_n5(found / "a.n5" / "em" / "s0", IMAGE, GZIP)
    write_n5(found / "a.n5" / "em" / "s1", IMAGE[:, ::2, ::2], GZIP)
    write_precomputed(found / "b", IMAGE, resolution=(4, 8, 40), sharding=SHARDING)
    return found


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[str]:
    """An S3 of one bucket that everybody may read, and of one that nobody may."""
    moto, boto3 = pytest.importorskip("moto.server"), pytest.importorskip("boto3")
    running = moto.ThreadedMotoServer("127.0.0.1", 0)
    running.start()
    host, port = running.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("HOME", str(folder))  # nobody's credentials are there
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
            patch.delenv(name, raising=False)
        client = boto3.client("s3", aws_access_key_id="test", aws_secret_access_key="test")
        for bucket, acl in (("public", "public-read"), ("private", "private")):
            client.create_bucket(Bucket=bucket)
            for file in filter(Path.is_file, folder.rglob("*")):
                client.put_object(Bucket=bucket, Key=str(file.relative_to(folder)), Body=file.read_bytes(), ACL=acl)
        client.close()
        yield f"http://{host}:{port}"
    running.stop()


ADDRESSES = ["n5://{}/a.n5:em", "{}/a.n5:em/s0", "{}/a.n5/em", "precomputed://{}/b", "precomputed://{}/b:4_8_40"]


@pytest.mark.parametrize("address", ADDRESSES)
@pytest.mark.parametrize("place", ["s3://public", "{}/public"])
def test_a_url_is_read_as_the_folder(server: str, folder: Path, place: str, address: str) -> None:
    volume = open_volume(address.format(place.format(server)))
    local = open_volume(address.removeprefix("n5://").removeprefix("precomputed://").format(folder))
    np.testing.assert_array_equal(volume.read(WHOLE), IMAGE)
    told = ("dataset", "format", "axes", "shape", "dtype", "voxel_size", "offset", "chunks", "shards")
    assert [getattr(volume, each) for each in told] == [getattr(local, each) for each in told]
    again = open_volume(volume.address)
    assert (again, again.identity()) == (volume, volume.identity())
    assert open_objects(volume.url).get("vimvol.json") is None  # no output, and looked for without another package


def test_arrays_behind_a_url(server: str) -> None:
    assert [a.dataset for a in describe("n5://s3://public/a.n5/em")] == ["s0", "s1"]
    assert [a.dataset for a in describe("s3://public/a.n5:em/s1")] == ["em/s1"]
    assert [a.dataset for a in describe("precomputed://s3://public/b")] == ["4_8_40"]
    coarse = open_volume("s3://public/a.n5:em/s1")
    assert (coarse.voxel_size, coarse.offset) == ((40, 16, 8), (0, 4, 2))
    with pytest.raises(InputError, match=r"a\.n5 is no array, and what is below cannot be listed; append ':DATASET'"):
        describe("s3://public/a.n5")


def test_what_is_behind_a_url_is_scored_as_it_is(server: str) -> None:
    result = score("precomputed://s3://public/b", "s3://public/a.n5:em", bands=(0,), workers=0)
    assert [scores["cremi"] for scores in result["scores"].values()] == [0]


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("n5://s3://public/none.n5", "is no N5 array, and what is below a URL is not listed; append ':DATASET'"),
        ("n5://s3://public/a.n5:em/s7", "em/s7 is no N5 array"),
        ("precomputed://s3://public/none", "has no 'info', so it is no precomputed volume"),
        ("precomputed://s3://public/b:1_1_1", "no dataset '1_1_1'; choose one of 4_8_40"),
        ("precomputed://ftp://host/b", "cannot be opened .*unsupported URL scheme.*; use a path, gs://, s3://"),
    ],
)
def test_mistakes_are_one_line(server: str, address: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        open_volume(address)
    assert "\n" not in str(caught.value)


def test_what_opening_found_is_told_where_no_manifest_can_be_read(server: str) -> None:
    with pytest.raises(InputError, match=r"^listing s3://private/a\.n5:em: permission denied"):
        volume_rows("s3://private/a.n5:em")


def test_what_may_not_be_read(server: str) -> None:
    for address in ("s3://private/a.n5:em", "precomputed://s3://private/b", f"{server}/private/a.n5:em/s0"):
        with pytest.raises(InputError, match=r"^opening .*: permission denied .*; ask for the right") as caught:
            open_volume(address)
        assert "\n" not in str(caught.value)


def test_a_key_in_the_environment_is_used(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    np.testing.assert_array_equal(open_volume("s3://private/a.n5:em").read(WHOLE), IMAGE)


def test_a_store_that_breaks_off_is_an_error_and_no_zeros(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stores, "_RETRIES", {"max_retries": 1})
    stores._made_context.cache_clear()
    volume = open_volume(f"{server}/public/a.n5:em")
    elsewhere = volume.url.rpartition("127.0.0.1")[0] + "127.0.0.1:9/public/a.n5"
    with pytest.raises(StorageError, match=r"^reading \[0:6.*127.0.0.1:9.*; check the storage, then run again"):
        type(volume)(**{**volume.__dict__, "url": elsewhere}).read(WHOLE)
    stores._made_context.cache_clear()


def test_without_tensorstore(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorstore", None)
    assert [a.dataset for a in describe(str(folder / "a.n5"))] == ["em/s0", "em/s1"]
    assert [(a.dataset, a.shards) for a in describe(str(folder / "b"))] == [("4_8_40", None)]
    for address in (f"{folder}/a.n5:em", f"{folder}/b", "precomputed://gs://bucket/b", "s3://bucket/a.n5"):
        with pytest.raises(
            MissingExtraError,
            match=r"tensorstore, which .*; run pip install -c constraints.txt '\.\[tensorstore\]' in the folder of",
        ):
            open_volume(address)


def _python(code: str, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, *map(str, arguments)],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


FORK = """
import os, sys
from vimvol.errors import StorageError
from vimvol.geometry import Block
from vimvol.io import open_volume
if sys.argv[2] == "used":
    open_volume(sys.argv[1]).read(Block((0, 0, 0), (1, 1, 1)))
child = os.fork()
if child == 0:
    try:
        open_volume(sys.argv[1]).read(Block((0, 0, 0), (1, 1, 1)))
    except StorageError as error:
        print(error, flush=True)
        os._exit(4)
    os._exit(0)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_process_reads_or_says_why_not(folder: Path) -> None:
    assert _python(FORK, f"{folder}/a.n5:em", "unused").returncode == 0
    done = _python(FORK, f"{folder}/a.n5:em", "used")
    assert done.returncode == 4, done.stderr  # tensorstore itself would abort
    assert "cannot be read in a process forked from one that read with tensorstore" in done.stdout


def test_importing_and_other_formats_load_no_tensorstore(tmp_path: Path) -> None:
    import zarr

    zarr.create_array(str(tmp_path / "a.zarr"), shape=(3, 4, 5), dtype="u1")
    code = (
        "import sys; from vimvol.io import open_volume; open_volume(sys.argv[1]); print('tensorstore' in sys.modules)"
    )
    assert _python(code, tmp_path / "a.zarr").stdout == "False\n"


@pytest.fixture
def context(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], dict]]:
    """What tensorstore is told for a value of the variable that bounds threads of a worker."""

    def told(limit: str) -> dict:
        monkeypatch.setenv("ZARR_THREADING__MAX_WORKERS", limit)
        return stores._context().spec.to_json(include_defaults=True)

    yield told
    forget_open()


def test_threads_are_bounded_in_a_worker_and_nothing_is_cached(context: Callable[[str], dict]) -> None:
    free = context("")
    assert "data_copy_concurrency" not in free
    bound = context("1")
    assert (bound["data_copy_concurrency"]["limit"], bound["file_io_concurrency"]["limit"]) == (1, 4)
    for each in (free, bound):
        assert each["cache_pool"].get("total_bytes_limit", 0) == 0
