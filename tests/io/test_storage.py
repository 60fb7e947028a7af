"""Stores behind URLs, threads, and failures of storage as one line."""

import errno
import http.server
import multiprocessing
import os
import sys
import threading
from pathlib import Path

import h5py
import numpy as np
import pytest
import zarr

from vimvol.address import absolute, is_url
from vimvol.errors import InputError, MissingExtraError, StorageError
from vimvol.geometry import Block
from vimvol.io import describe, open_volume
from vimvol.io.errors import storage_errors
from vimvol.io.objects import open_objects
from vimvol.io.omezarr import create_image, create_labels
from vimvol.io.storage import join, open_store
from vimvol.io.tables import read_table, write_table

RAW = np.random.default_rng(0).integers(1, 255, (5, 40, 50), dtype=np.uint8)


def _create(url):
    create_image(url, shape=RAW.shape, dtype="uint8", voxel_size=(40, 4, 4), name="raw", levels=2)
    create_labels(url, "segmentation")
    zarr.open_array(open_store(f"{url}/0", read_only=False))[:] = RAW


def test_a_store_in_memory_by_url():
    pytest.importorskip("fsspec")
    url = "memory://test_storage/a.zarr"
    _create(url)
    _create(url)
    volume = open_volume(url)
    np.testing.assert_array_equal(volume.read(Block.whole(RAW.shape)), RAW)
    assert volume.identity() == open_volume(url).identity()
    assert open_volume(f"{url}:1").voxel_size == open_volume(f"{url}/1").voxel_size == (40, 8, 8)
    assert open_volume(url, prefer="labels").dataset == "labels/segmentation/0"
    assert len(describe(url)) == 4
    write_table(f"{url}/tables", "x", {"a": np.arange(3)})
    assert read_table(f"{url}/tables", "x")["a"].tolist() == [0, 1, 2]
    with pytest.raises(InputError, match="holds no zarr array or group"):
        open_volume("memory://test_storage/b.zarr")


def test_file_urls(tmp_path):
    _create(str(tmp_path / "a.zarr"))
    np.testing.assert_array_equal(open_volume(f"file://{tmp_path}/a.zarr").read(Block.whole(RAW.shape)), RAW)


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass

    def list_directory(self, path):
        self.send_error(404)


def test_a_server_that_cannot_list(tmp_path):
    pytest.importorskip("aiohttp")
    # without shards: this server knows no ranges
    array = zarr.create_array(tmp_path / "a.zarr" / "0", shape=RAW.shape, dtype="uint8", chunks=(5, 20, 50))
    array[:] = RAW
    steps = [{"type": "scale", "scale": [40.0, 4.0, 4.0]}]
    axes = [{"name": n, "type": "space", "unit": "nanometer"} for n in "zyx"]
    image = {"axes": axes, "datasets": [{"path": "0", "coordinateTransformations": steps}]}
    zarr.create_group(tmp_path / "a.zarr", attributes={"ome": {"version": "0.5", "multiscales": [image]}})
    handler = lambda *args: _Quiet(*args, directory=str(tmp_path))  # noqa: E731
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        host = f"http://127.0.0.1:{server.server_port}"
        volume = open_volume(f"{host}/a.zarr")
        assert (volume.url, volume.voxel_size) == (f"{host}/a.zarr", (40, 4, 4))
        np.testing.assert_array_equal(volume.read(Block.whole(RAW.shape)), RAW)
        assert open_volume(f"{host}/a.zarr:0").voxel_size == (40, 4, 4)
        server.shutdown()


def test_an_unknown_scheme():
    with pytest.raises((InputError, MissingExtraError), match="nosuch://x cannot be opened") as caught:
        open_store("nosuch://x")
    assert "\n" not in str(caught.value)


def test_a_scheme_whose_package_is_missing(monkeypatch):
    pytest.importorskip("fsspec")
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(MissingExtraError, match=r"gs://x cannot be opened .*install"):
        open_store("gs://x")


def test_paths_and_urls(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert absolute("a/b") == str(tmp_path / "a" / "b")
    assert absolute("s3://a/b/") == "s3://a/b"
    assert absolute("file:///a/b/") == "/a/b"
    assert is_url("s3://a")
    assert not is_url("C:/a")
    assert not is_url("a:b/c")
    assert join("a/", "/b/", "", "c") == "a/b/c"
    assert join("/", "b") == "/b"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_full_disk_is_one_line():
    with (
        pytest.raises(StorageError, match=r"^writing x: No space left on device; free space") as caught,
        storage_errors("writing x"),
        Path("/dev/full").open("wb", buffering=0) as file,
    ):
        file.write(b"1")
    assert isinstance(caught.value.__cause__, OSError)
    assert caught.value.__cause__.errno == errno.ENOSPC


def test_other_errors_pass_unless_decoding():
    with pytest.raises(ValueError, match="mine"), storage_errors("x"):
        raise ValueError("mine")
    with pytest.raises(InputError, match="mine"), storage_errors("x", decoding=True):
        raise InputError("mine")
    with pytest.raises(MemoryError), storage_errors("x", decoding=True):
        raise MemoryError
    with pytest.raises(StorageError, match=r"^x: two lines; .*damaged"), storage_errors("x", decoding=True):
        raise RuntimeError("two\nlines")


@pytest.mark.parametrize("kind", [type("HttpResponseError", (Exception,), {"__module__": "azure.core"}), RuntimeError])
def test_whatever_a_remote_file_system_raises_is_one_line(monkeypatch, kind):
    """Errors of any package, and of types that elsewhere mean damage or a mistake."""
    fsspec = pytest.importorskip("fsspec")
    memory = pytest.importorskip("fsspec.implementations.memory").MemoryFileSystem

    def fail(*args, **kwargs):
        raise kind("503\nbusy")

    flaky = type("Flaky", (memory,), {"protocol": "flaky", "cachable": False, "pipe_file": fail, "cat_file": fail})
    fsspec.register_implementation("flaky", flaky, clobber=True)
    objects = open_objects("flaky://somewhere")
    for step in (lambda: objects.put("lock", b"1"), lambda: objects.get("lock"), lambda: read_table(objects.url, "x")):
        with pytest.raises(StorageError, match=r": 503 busy; check address, network and credentials$") as caught:
            step()
        assert type(caught.value.__cause__) is kind


def _write_beyond_limit(folder):
    import resource

    resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))
    noise = np.random.default_rng(0).integers(0, 2**63, 10**5)
    messages = []
    for step in (lambda: write_table(folder, "x", {"a": noise}), lambda: _create_long(f"{folder}/a.zarr")):
        try:
            step()
        except StorageError as error:
            messages.append(str(error))
    return messages, [p.name for p in Path(folder).rglob("*") if p.name.endswith(("table", "partial"))]


def _create_long(url):
    create_image(url, shape=(4, 4, 4), dtype="uint8", voxel_size=(1, 1, 1), name="n" * 30000)


@pytest.mark.skipif(sys.platform == "win32", reason="no limits of a process")
def test_a_write_that_fails_leaves_nothing_and_is_one_line(tmp_path):
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        messages, left = pool.apply(_write_beyond_limit, (str(tmp_path),))
    assert [m.split(":")[0].split("/")[0] for m in messages] == ["writing ", "creating "]
    assert all("File too large" in m and "\n" not in m for m in messages)
    assert left == []
    with pytest.raises(InputError, match="never completed"):
        open_volume(str(tmp_path / "a.zarr"))
    with pytest.raises(StorageError, match="does not exist"):
        read_table(str(tmp_path), "x")


def _threads_after_reading(path):
    volume = open_volume(path)
    volume.read(Block.whole(volume.shape))
    return sum(t.name.startswith(("zarr_pool", "asyncio")) for t in threading.enumerate())


def test_the_environment_of_a_worker_bounds_the_threads_of_zarr(tmp_path, monkeypatch):
    array = zarr.create_array(tmp_path / "a.zarr", shape=(64, 64, 64), chunks=(8, 8, 64), dtype="uint8")
    array[:] = 1
    monkeypatch.setenv("ZARR_THREADING__MAX_WORKERS", "1")
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(_threads_after_reading, (str(tmp_path / "a.zarr"),)) == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded")
def test_a_forked_process_reads_what_its_parent_has_open(tmp_path):
    _create(str(tmp_path / "a.zarr"))
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["raw"] = RAW
    volumes = [open_volume(str(tmp_path / name)) for name in ("a.zarr", "a.h5")]
    whole = Block.whole(RAW.shape)
    assert all((v.read(whole) == RAW).all() for v in volumes)
    with multiprocessing.get_context("fork").Pool(1) as pool:
        for array in pool.starmap_async(_read, [(v, whole) for v in volumes]).get(timeout=60):
            np.testing.assert_array_equal(array, RAW)


def _read(volume, block):
    return volume.read(block)
