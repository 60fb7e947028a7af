"""Every opener reads every file of its format the same: whole, by blocks, and in another process."""

import multiprocessing
import os
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile
import zarr

from tests.io.tensors import BLOSC, GZIP, SHARDING, write_group, write_n5, write_precomputed
from tests.io.tensors import RAW as UNCOMPRESSED
from vimvol.address import parse_address
from vimvol.errors import InputError, StorageError
from vimvol.geometry import Block, Grid
from vimvol.io import Volume, describe, open_volume
from vimvol.io.formats import OPENERS
from vimvol.io.omezarr import create_image

RAW = np.random.default_rng(0).integers(0, 2**16, (7, 45, 52), dtype=np.uint16)


def _zarr(path, **kwargs):
    array = zarr.create_array(path, shape=RAW.shape, dtype=RAW.dtype, **kwargs)
    array[:] = RAW
    return str(path)


def _ome(path):
    storage = {"chunk": (4, 16, 16), "shard": (4, 32, 32)}
    create_image(str(path), shape=RAW.shape, dtype="uint16", voxel_size=(8, 4, 4), name="raw", **storage)
    zarr.open_array(path / "0")[:] = RAW
    return str(path)


def _hdf5(path, **kwargs):
    with h5py.File(path, "w") as file:
        file.create_dataset("volumes/raw", data=RAW, **kwargs)
        file.create_dataset("volumes/labels/neuron_ids", data=RAW.astype(np.uint64))
    return str(path)


def _tiff(path, array=RAW, **kwargs):
    tifffile.imwrite(path, array, **kwargs)
    return str(path)


def _folder(path):
    path.mkdir()
    for z, plane in enumerate(RAW):
        tifffile.imwrite(path / f"slice_{z + 5}.tif", plane, compression="zlib" if z % 2 else None)
    return str(path)


def _xyz(path):
    array = zarr.create_array(
        path, shape=RAW.T.shape, dtype="uint16", chunks=(16, 16, 4), dimension_names=("x", "y", "z")
    )
    array[:] = RAW.T
    return str(path)


def _channels_last(path):
    tifffile.imwrite(
        path, np.stack([RAW, RAW + 1, RAW + 2], axis=-1), photometric="rgb", compression="zlib", tile=(16, 32)
    )
    return str(path)


SAMPLES = {
    "zarr v2": lambda p: _zarr(p / "a.zarr", zarr_format=2, chunks=(3, 20, 20)),
    "zarr v2 big-endian": lambda p: _zarr_big_endian(p / "a.zarr"),
    "zarr v3": lambda p: _zarr(p / "a.zarr", zarr_format=3, chunks=(3, 20, 20)),
    "zarr v3 sharded": lambda p: _zarr(p / "a.zarr", zarr_format=3, chunks=(2, 16, 16), shards=(4, 32, 32)),
    "zarr v3 without suffix": lambda p: _zarr(p / "a", zarr_format=3, chunks=(7, 45, 52)),
    "zarr v3 x, y, z": lambda p: _xyz(p / "a.zarr"),
    "OME-Zarr": lambda p: _ome(p / "a.ome.zarr"),
    "HDF5": lambda p: _hdf5(p / "a.h5"),
    "HDF5 gzip": lambda p: _hdf5(p / "a.hdf", chunks=(2, 16, 16), compression="gzip"),
    "HDF5 without suffix": lambda p: _hdf5(p / "a"),
    "TIFF": lambda p: _tiff(p / "a.tif"),
    "TIFF big-endian": lambda p: _tiff(p / "a.tif", byteorder=">"),
    "TIFF zlib strips": lambda p: _tiff(p / "a.tiff", compression="zlib", rowsperstrip=7),
    "TIFF zlib tiles": lambda p: _tiff(p / "a.tif", compression="zlib", tile=(16, 32), byteorder=">"),
    "TIFF raw tiles": lambda p: _tiff(p / "a.tif", tile=(16, 32)),
    "TIFF ImageJ": lambda p: _tiff(p / "a.tif", imagej=True, metadata={"axes": "ZYX"}),
    "TIFF colours": lambda p: _channels_last(p / "a.tif"),
    "OME-TIFF": lambda p: _tiff(p / "a.ome.tif", compression="zlib", metadata={"axes": "ZYX"}),
    "TIFF folder": lambda p: _folder(p / "slices"),
    "N5": lambda p: write_n5(p / "a.n5", RAW, UNCOMPRESSED),
    "N5 gzip": lambda p: write_n5(p / "a.n5", RAW, GZIP),
    "N5 blosc": lambda p: write_n5(p / "a.n5", RAW, BLOSC),
    "N5 without suffix": lambda p: write_n5(p / "a", RAW, {"type": "zstd"}),
    "N5 z, y, x": lambda p: write_n5(p / "a.n5", RAW.T, block=(4, 16, 16), axes=["z", "y", "x"]),
    "N5 scales": lambda p: _scales(p / "a.n5"),
    "precomputed": lambda p: write_precomputed(p / "a", RAW),
    "precomputed with an offset": lambda p: write_precomputed(p / "a", RAW, offset=(10, -20, 30)),
    "precomputed sharded": lambda p: write_precomputed(p / "a", RAW, sharding=SHARDING),
    "precomputed png": lambda p: write_precomputed(p / "a", RAW, encoding="png"),
}
FORMATS = ["zarr"] * 7 + ["hdf5"] * 3 + ["tiff"] * 8 + ["tiff folder"] + ["n5"] * 6 + ["precomputed"] * 4


def _zarr_big_endian(path):
    array = zarr.create_array(path, shape=RAW.shape, dtype=">u2", chunks=(3, 20, 20), zarr_format=2)
    array[:] = RAW
    return str(path)


def _scales(path):
    write_group(path, n5="2.5.1")
    write_n5(path / "em" / "s0", RAW, GZIP)
    write_n5(path / "em" / "s1", RAW[:1, :2, :2], GZIP)
    return f"{path}:em"


def _read_in_spawned(payload):
    volume, block = pickle.loads(payload)
    return os.getpid(), volume.read(block)


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    return {name: open_volume(write(tmp_path_factory.mktemp("sample"))) for name, write in SAMPLES.items()}


def test_every_opener_has_a_sample(opened):
    assert [v.format for v in opened.values()] == FORMATS
    assert set(FORMATS) == set(OPENERS)


@pytest.mark.parametrize("name", SAMPLES)
def test_whole_and_blocks_are_the_array(opened, name):
    volume = opened[name]
    assert (volume.shape, volume.dtype) == (RAW.shape, "uint16")
    whole = volume.read(Block.whole(volume.shape))
    np.testing.assert_array_equal(whole, RAW)
    assert whole.dtype == np.uint16
    assert whole.dtype.isnative
    assert whole.flags.c_contiguous
    grid = Grid(volume.shape, (3, 17, 19))
    for index in grid:
        block = grid.block(index)
        np.testing.assert_array_equal(volume.read(block), RAW[block.slices])


@pytest.mark.parametrize("name", SAMPLES)
def test_identity_is_stable_and_sees_a_change(opened, name, tmp_path):
    volume = opened[name]
    assert volume.identity() == open_volume(volume.address).identity() == pickle.loads(pickle.dumps(volume)).identity()
    changed = open_volume(SAMPLES[name](tmp_path))
    before = changed.identity()
    stored = max((p for p in tmp_path.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    if name.startswith("HDF5"):
        with h5py.File(stored, "r+") as file:
            file["volumes/raw"][3, 4, 5] += 1
    else:
        os.utime(stored, ns=(1, 1))
    assert changed.identity() != before
    assert before != volume.identity()  # another path


@pytest.mark.parametrize("name", SAMPLES)
def test_threads_may_share_a_handle(opened, name):
    volume = opened[name]
    grid = Grid(volume.shape, (2, 20, 20))
    blocks = [grid.block(index) for index in grid]
    with ThreadPoolExecutor(4) as pool:
        for block, array in zip(blocks, pool.map(volume.read, blocks), strict=True):
            np.testing.assert_array_equal(array, RAW[block.slices])


def test_handles_read_in_another_process(opened):
    block = Block((1, 3, 5), (6, 40, 52))
    payloads = [pickle.dumps((volume, block)) for volume in opened.values()]
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        for process, array in pool.map(_read_in_spawned, payloads):
            assert process != os.getpid()
            np.testing.assert_array_equal(array, RAW[block.slices])


def test_a_block_outside_is_refused(opened):
    volume = opened["zarr v3"]
    for block in (Block((0, 0, 0), (8, 45, 52)), Block((-1, 0, 0), (3, 3, 3)), Block((0, 0), (3, 3))):
        with pytest.raises(ValueError, match="does not lie inside"):
            volume.read(block)


def test_an_empty_block_is_empty(opened):
    assert opened["zarr v3"].read(Block((2, 3, 4), (2, 9, 9))).shape == (0, 6, 5)


def test_channels(opened, tmp_path):
    block = Block((1, 2, 3), (5, 30, 50))
    colours = opened["TIFF colours"]
    assert (colours.axes, colours.channels) == ("zyxc", 3)
    expected = np.stack([RAW, RAW + 1, RAW + 2])[(slice(None), *block.slices)]
    np.testing.assert_array_equal(colours.read_channels(block), expected)
    assert opened["zarr v3"].read_channels(block).shape == (1, *block.shape)
    five = zarr.create_array(tmp_path / "b.zarr", shape=(1, 2, *RAW.shape), dtype="uint16")
    five[0, 1] = RAW
    volume = open_volume(str(tmp_path / "b.zarr"))
    assert (volume.axes, volume.channels, volume.shape) == ("tczyx", 2, RAW.shape)
    np.testing.assert_array_equal(volume.read_channels(block)[1], RAW[block.slices])
    assert not volume.read(block).any()


def test_channels_that_are_stored_last(tmp_path):
    block, two = Block((1, 2, 3), (5, 30, 50)), np.stack([RAW, RAW + 1])
    for address in (write_n5(tmp_path / "a.n5", two, block=(16, 16, 4, 1)), write_precomputed(tmp_path / "a", two)):
        volume = open_volume(address)
        assert (volume.axes, volume.channels, volume.shape) == ("xyzc", 2, RAW.shape)
        np.testing.assert_array_equal(volume.read_channels(block), two[(slice(None), *block.slices)])
        assert open_volume(address, axes="XYZC").chunks == volume.chunks == (4, 16, 16)


def test_a_plane_is_one_slice(tmp_path):
    volume = open_volume(_tiff(tmp_path / "plane.tif", RAW[0]))
    assert (volume.shape, volume.axes) == ((1, 45, 52), "yx")
    np.testing.assert_array_equal(volume.read(Block.whole(volume.shape)), RAW[:1])


def test_given_axes_and_voxel_size_win(tmp_path):
    path = _zarr(tmp_path / "a.zarr")
    volume = open_volume(path, axes="XYZ", voxel_size=(30, 5, 4))
    assert (volume.shape, volume.axes) == ((52, 45, 7), "xyz")
    assert (volume.voxel_size, volume.voxel_size_known) == ((30.0, 5.0, 4.0), True)
    np.testing.assert_array_equal(volume.read(Block.whole(volume.shape)), RAW.T)
    assert open_volume(path).voxel_size == (1.0, 1.0, 1.0)
    assert not open_volume(path).voxel_size_known


def test_relative_paths_become_absolute(tmp_path, monkeypatch):
    _zarr(tmp_path / "a.zarr")
    monkeypatch.chdir(tmp_path)
    volume = open_volume("a.zarr")
    monkeypatch.chdir("/")
    assert volume.url == str(tmp_path / "a.zarr")
    np.testing.assert_array_equal(volume.read(Block.whole(volume.shape)), RAW)


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("a.h5", ("a.h5", "")),
        ("a.h5:volumes/raw", ("a.h5", "volumes/raw")),
        ("a.h5:/volumes/raw/", ("a.h5", "volumes/raw")),
        ("a.h5:", ("a.h5", "")),
        ("s3://bucket/a.zarr", ("s3://bucket/a.zarr", "")),
        ("s3://bucket/a.zarr:0", ("s3://bucket/a.zarr", "0")),
        ("http://host:8080/a.zarr", ("http://host:8080/a.zarr", "")),
        ("http://host:8080/a.zarr:labels/x", ("http://host:8080/a.zarr", "labels/x")),
        ("https://host:8080", ("https://host:8080", "")),
        ("n5://s3://bucket/a.n5:em/s0", ("n5://s3://bucket/a.n5", "em/s0")),
        ("precomputed://gs://bucket/a", ("precomputed://gs://bucket/a", "")),
        ("precomputed://gs://bucket/a:8_8_8", ("precomputed://gs://bucket/a", "8_8_8")),
        ("precomputed://https://host:8080/a", ("precomputed://https://host:8080/a", "")),
        ("precomputed://https://host:8080/a:4_4_8", ("precomputed://https://host:8080/a", "4_4_8")),
        ("precomputed://gs://bucket", ("precomputed://gs://bucket", "")),
        ("precomputed:///data/a:8_8_8", ("precomputed:///data/a", "8_8_8")),
        ("n5://data/a.n5:em", ("n5://data/a.n5", "em")),
        ("C:\\data\\a.h5", ("C:\\data\\a.h5", "")),
        ("C:/data/a.h5:raw", ("C:/data/a.h5", "raw")),
        (":memory", (":memory", "")),
    ],
)
def test_addresses(address, expected):
    assert parse_address(address) == expected


def test_an_existing_path_wins_over_a_dataset(tmp_path):
    both = tmp_path / "a:b"
    assert parse_address(f"{both}:c:d") == (f"{both}:c", "d")
    (tmp_path / "a").touch()
    assert parse_address(f"{both}:c") == (str(tmp_path / "a"), "b:c")
    both.touch()
    assert parse_address(str(both)) == (str(both), "")
    assert parse_address(f"{both}:c") == (str(both), "c")


def _damaged_zarr(path):
    path.mkdir()
    (path / "zarr.json").write_text("{")
    return str(path)


def _write(path, data):
    path.write_bytes(data)
    return str(path)


def _cut(path):
    _half(Path(path))
    return path


def _slices_of_two_sizes(path):
    _folder(path)
    tifffile.imwrite(path / "slice_99.tif", RAW[0, :-1])
    return str(path)


def _stacks_in_folder(path, stacks, slices):
    path.mkdir()
    for i in range(slices):
        tifffile.imwrite(path / f"s{i}.tif", RAW[i])
    for i in range(stacks):
        tifffile.imwrite(path / f"t{i}.tif", RAW)
    return str(path)


def _two_arrays(path):
    group = zarr.create_group(path)
    for name in ("b", "a10", "a9"):
        group.create_array(name, shape=RAW.shape, dtype="uint8")
    return str(path)


def _many_arrays(path):
    with h5py.File(path, "w") as file:
        for i in range(13):
            file[f"x{i:02}"] = np.zeros((2, 2), np.uint8)
    return str(path)


def _empty(path, shape):
    zarr.create_array(path / "a.zarr", shape=shape, dtype="uint8")
    return str(path / "a.zarr")


MISTAKES = {
    "missing, near another": (lambda p: _hdf5(p / "sample.h5")[:-4] + "a.h5", {}, "sample.h5: did you mean that"),
    "missing folder": (lambda p: str(p / "x" / "y" / "a.zarr"), {}, "does not exist; .* has no 'x'"),
    "missing file with dataset": (lambda p: str(p / "a.h5:raw"), {}, r"a\.h5 does not exist"),
    "missing zarr array": (lambda p: _two_arrays(p / "a.zarr") + ":c", {}, "'c'; choose one of a9 .*, a10 .*, b"),
    "missing HDF5 dataset": (lambda p: _hdf5(p / "a.h5") + ":raw", {}, "'raw'; .*volumes/raw .7 x 45 x 52 uint16."),
    "missing TIFF series": (lambda p: _tiff(p / "a.tif") + ":3", {}, "is one array and .*leave ':3' away"),
    "dataset of a folder": (lambda p: _folder(p / "f") + ":3", {}, "leave ':3' away"),
    "none chosen in zarr": (lambda p: _two_arrays(p / "a.zarr"), {}, "3 arrays and none was chosen.*a9"),
    "none chosen in HDF5": (lambda p: _many_arrays(p / "a.h5"), {}, "13 arrays and none.*x09 .2 x 2 uint8. and 3 more"),
    "no array": (lambda p: str(zarr.create_group(p / "a.zarr").store.root), {}, "holds no array"),
    "empty folder named zarr": (lambda p: str((p / "a.zarr").mkdir() or p / "a.zarr"), {}, "no zarr array or group"),
    "unknown format": (lambda p: _write(p / "a.nii", b"n+1\0"), {}, "no known format; give one of: n5, .*, hdf5"),
    "empty folder": (lambda p: str(p), {}, "is an empty folder, so there is nothing to open; give one of: n5, "),
    "rank 1": (lambda p: _empty(p, (9,)), {}, "shape 9 and is no volume"),
    "time": (lambda p: _empty(p, (2, 1, 3, 4, 5)), {}, "2 time points"),
    "no voxel": (lambda p: _empty(p, (0, 4, 5)), {}, "holds no voxel"),
    "too few axes": (lambda p: _zarr(p / "a.zarr"), {"axes": "yx"}, "name 2 axes, but .* has 3 .7 x 45 x 52."),
    "axes without x": (lambda p: _zarr(p / "a.zarr"), {"axes": "czy"}, "axes 'czy' of .* do not fit"),
    "axes twice": (lambda p: _zarr(p / "a.zarr"), {"axes": "yyx"}, "axes 'yyx' of .* do not fit"),
    "unknown axes": (lambda p: _zarr(p / "a.zarr"), {"axes": "qyx"}, "axes 'qyx' of .* do not fit"),
    "voxel size 0": (lambda p: _zarr(p / "a.zarr"), {"voxel_size": (0, 4, 4)}, "three positive numbers"),
    "voxel size of 2": (lambda p: _zarr(p / "a.zarr"), {"voxel_size": (4, 4)}, "three positive numbers"),
    "image of uint64": (lambda p: _hdf5(p / "a.h5") + ":volumes/labels/neuron_ids", {}, "labels, give the raw data"),
    "image of float64": (lambda p: _tiff(p / "a.tif", np.zeros((4, 4))), {}, "float64, but .*convert it to float32"),
    "labels of floats": (lambda p: _tiff(p / "a.tif", np.zeros((4, 4), "f4")), {"prefer": "labels"}, "are integers"),
    "damaged zarr": (lambda p: _damaged_zarr(p / "a.zarr"), {}, "damaged zarr metadata"),
    "no HDF5": (lambda p: _write(p / "a.h5", b"hello"), {}, "no intact HDF5"),
    "truncated HDF5": (lambda p: _cut(_hdf5(p / "a.h5")), {}, "no intact HDF5"),
    "no TIFF": (lambda p: _write(p / "a.tif", b"hello, world"), {}, "no intact TIFF"),
    "truncated TIFF": (lambda p: _cut(_tiff(p / "a.tif")), {}, "shorter than|no intact TIFF"),
    "slices of two sizes": (lambda p: _slices_of_two_sizes(p / "f"), {}, "slice_99.tif is 44 x 52 uint16 but slice_5"),
    "a stack in a folder": (lambda p: _stacks_in_folder(p / "f", 1, 0), {}, r"^t0.tif in .*/f holds .*as .*f/t0.tif$"),
    "stacks in a folder": (lambda p: _stacks_in_folder(p / "f", 3, 0), {}, r"^t0.tif and 2 more in .* hold .*t0.tif$"),
    "a stack beside slices": (
        lambda p: _stacks_in_folder(p / "f", 1, 3), {}, "t0.tif, or, to segment the 3 files that .*, move the other e"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_one_line(name, tmp_path):
    write, arguments, message = MISTAKES[name]
    with pytest.raises(InputError, match=message) as caught:
        open_volume(write(tmp_path), **arguments)
    assert "\n" not in str(caught.value)
    assert type(caught.value) is InputError


def _zeros(path, begin=None):
    data = path.read_bytes()
    begin = len(data) // 2 if begin is None else begin
    path.write_bytes(data[:begin] + bytes(400) + data[begin + 400 :])


def _zeros_in_chunk(path):
    with h5py.File(path) as file:
        begin = file["volumes/raw"].id.get_chunk_info(3).byte_offset
    _zeros(path, begin + 100)


def _half(path):
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("zarr v3", _half),
        ("zarr v3 sharded", _half),
        ("OME-Zarr", _zeros),  # has checksums
        ("HDF5 gzip", _zeros_in_chunk),
        ("TIFF zlib tiles", _zeros),
        ("TIFF folder", _half),
        ("N5", _half),
        ("N5 gzip", _zeros),
        ("N5 blosc", _half),
        ("precomputed", _half),
        ("precomputed sharded", _half),
        ("precomputed png", _half),
    ],
)
def test_damaged_data_are_one_line(name, damage, tmp_path):
    volume = open_volume(SAMPLES[name](tmp_path))
    stored = max((p for p in tmp_path.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    damage(stored)
    with pytest.raises((StorageError, InputError), match=r"^reading \[0:7|is no intact TIFF|is shorter than") as caught:
        volume.read(Block.whole(volume.shape))
    assert "\n" not in str(caught.value)


def test_of_a_folder_that_is_no_volume_it_is_told_which_lie_in_it(tmp_path):
    _write(tmp_path / "notes.txt", b"mine")
    with pytest.raises(InputError, match="no known format, nor is anything that lies in it; give one of: n5"):
        describe(str(tmp_path))
    _zarr(tmp_path / "image.zarr")
    with pytest.raises(InputError, match=rf"; in it lies image\.zarr; give {tmp_path}/image\.zarr$"):
        describe(str(tmp_path))
    _folder(tmp_path / "c9")
    with h5py.File(tmp_path / "c10.h5", "w"):
        pass
    inside = rf"in it lie c9, c10\.h5, image\.zarr; give the path of one, as {tmp_path}/c9$"
    with pytest.raises(InputError, match=inside):
        open_volume(f"{tmp_path}:raw")


def test_a_file_that_went_away(tmp_path):
    volume = open_volume(_hdf5(tmp_path / "a.h5"))
    (tmp_path / "a.h5").unlink()
    with pytest.raises(StorageError, match=r"reading \[0:7.*a\.h5:volumes/raw: .*[Nn]o such file.*blocks are kept"):
        volume.read(Block.whole(volume.shape))


def test_another_array_in_its_place(tmp_path):
    volume = open_volume(_zarr(tmp_path / "a.zarr"))
    zarr.create_array(tmp_path / "a.zarr", shape=(3, 4, 5), dtype="uint16", overwrite=True)
    with pytest.raises(StorageError, match="has changed"):
        volume.read(Block.whole(volume.shape))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_no_right_to_read(tmp_path):
    path = _hdf5(tmp_path / "a.h5")
    Path(path).chmod(0)
    with pytest.raises(InputError, match="ask for the right"):
        open_volume(path)


def test_labels_are_preferred(tmp_path):
    labels = open_volume(_hdf5(tmp_path / "a.h5"), prefer="labels")
    assert (labels.dataset, labels.dtype) == ("volumes/labels/neuron_ids", "uint64")
    path = _two_arrays(tmp_path / "b.zarr")
    zarr.open_group(path).create_array("volumes/labels/neuron_ids", shape=(3, 4, 5), dtype="uint64")
    assert open_volume(path, prefer="labels").dataset == "volumes/labels/neuron_ids"


def test_ids_above_2_to_53_survive(tmp_path):
    ids = np.array([[[2**53 + 1, 2**64 - 1], [2**63 + 1, 2**53 - 1]]], dtype=np.uint64)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["ids"] = ids
    zarr.create_array(tmp_path / "a.zarr", shape=ids.shape, dtype="uint64")[:] = ids
    tifffile.imwrite(tmp_path / "a.tif", ids)
    write_n5(tmp_path / "a.n5", ids, GZIP)
    compressed = {"encoding": "compressed_segmentation", "compressed_segmentation_block_size": (8, 8, 8)}
    write_precomputed(tmp_path / "a", ids, **compressed)
    for name in ("a.h5", "a.zarr", "a.tif", "a.n5", "a"):
        volume = open_volume(str(tmp_path / name), prefer="labels")
        np.testing.assert_array_equal(volume.read(Block.whole(volume.shape)), ids)


def test_describe_lists_all(tmp_path):
    rows = describe(_hdf5(tmp_path / "a.h5", chunks=(2, 16, 16)))
    assert [(r.dataset, r.dtype, r.nbytes) for r in rows] == [
        ("volumes/labels/neuron_ids", "uint64", RAW.size * 8),
        ("volumes/raw", "uint16", RAW.size * 2),
    ]
    assert rows[1].chunks == (2, 16, 16)
    assert [r.dataset for r in describe(str(tmp_path / "a.h5:volumes/labels"))] == ["volumes/labels/neuron_ids"]
    rows = describe(_two_arrays(tmp_path / "a.zarr"))
    assert [r.dataset for r in rows] == ["a9", "a10", "b"]
    assert [r.axes for r in describe(_tiff(tmp_path / "a.tif"))] == ["zyx"]
    with pytest.raises(InputError, match="no dataset 'c'"):
        describe(str(tmp_path / "a.zarr:c"))


def test_a_handle_is_small(opened):
    assert all(isinstance(v, Volume) and len(pickle.dumps(v)) < 600 for v in opened.values())
