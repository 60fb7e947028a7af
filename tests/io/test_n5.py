"""Geometry, groups and mistakes of N5, as its writers leave them."""

import json

import numpy as np
import pytest
import tifffile
import zarr

from tests.io.tensors import GZIP, RAW, change, write_group, write_n5
from vimvol.errors import InputError
from vimvol.geometry import Block
from vimvol.io import describe, open_volume

IMAGE = np.random.default_rng(0).integers(0, 256, (6, 20, 24), dtype=np.uint8)
NM, UM = ["nm"] * 3, ["um"] * 3
SIZE = (40, 8, 4)
"""nm (z, y, x), of the image."""


def _cosem(axes, scale, translate=(0, 0, 0), units=NM, **more):
    return {"transform": {"axes": list(axes), "scale": scale, "translate": translate, "units": units, **more}}


@pytest.mark.parametrize(
    ("attributes", "offset"),
    [
        ({"resolution": [4, 8, 40], "units": NM}, (0, 0, 0)),
        ({"resolution": [0.004, 0.008, 0.04], "units": UM}, (0, 0, 0)),
        ({"resolution": [4, 8, 40]}, (0, 0, 0)),  # nm, as neuroglancer takes it
        ({"resolution": [4, 8, 40], "offset": [8, 16, 400]}, (400, 16, 8)),
        ({"pixelResolution": {"dimensions": [4, 8, 40], "unit": "nm"}}, (0, 0, 0)),
        ({"pixelResolution": {"dimensions": [0.004, 0.008, 0.04], "unit": "µm"}}, (0, 0, 0)),
        ({"pixelResolution": {"dimensions": [4, 8, 40], "unit": "nm"}, "resolution": [1, 1, 1]}, (0, 0, 0)),
        (_cosem("zyx", [40, 8, 4], [400, 16, 8]), (400, 16, 8)),
        (_cosem("zyx", [40, 8, 4], [400, 16, 8], order="C"), (400, 16, 8)),
        (_cosem("xyz", [4, 8, 40], [8, 16, 400], order="F"), (400, 16, 8)),
        (_cosem("xyz", [4, 8, 40], [8, 16, 400]), (400, 16, 8)),
        (_cosem("zyx", [0.04, 0.008, 0.004], [0.4, 0.016, 0.008], UM), (400, 16, 8)),
        (_cosem("zyx", [40, 8, 4], [1, 2]) | {"pixelResolution": {"dimensions": [1, 1, 1], "unit": "m"}}, (0, 0, 0)),
    ],
)
def test_geometry_of_an_array(tmp_path, attributes, offset):
    volume = open_volume(write_n5(tmp_path / "a.n5", IMAGE, **attributes))
    assert volume.voxel_size == pytest.approx(SIZE)
    assert volume.offset == pytest.approx(offset)
    assert volume.voxel_size_known
    assert (volume.axes, volume.shape) == ("xyz", IMAGE.shape)


def test_a_transform_tells_the_stored_axes(tmp_path):
    for order, axes in (("C", "xyz"), ("F", "zyx")):
        attributes = _cosem(axes, [4, 8, 40] if order == "C" else [40, 8, 4], order=order)
        volume = open_volume(write_n5(tmp_path / f"{order}.n5", IMAGE.T, **attributes))
        assert (volume.axes, volume.shape, volume.voxel_size) == ("zyx", IMAGE.shape, SIZE)
        np.testing.assert_array_equal(volume.read(Block.whole(volume.shape)), IMAGE)


@pytest.mark.parametrize(
    ("attributes", "size"),
    [
        ({}, (1, 1, 1)),
        ({"resolution": "444"}, (1, 1, 1)),
        ({"resolution": [4, 8]}, (1, 1, 1)),
        ({"resolution": [4, 8, 0]}, (1, 1, 1)),
        ({"resolution": [4, 8, float("nan")]}, (1, 1, 1)),
        ({"resolution": [4, 8, 40], "units": "nm"}, SIZE),
        ({"resolution": [4, 8, 40], "units": ["nm", "nm", "furlong"]}, SIZE),
        ({"resolution": [4, 8, 40], "units": ["nm", 3, {}]}, SIZE),
        ({"pixelResolution": [4, 8, 40]}, SIZE),
        ({"pixelResolution": {"dimensions": [4, 8, 40], "unit": "pixel"}}, SIZE),
        ({"pixelResolution": {"dimensions": {"x": 4}}}, (1, 1, 1)),
        ({"transform": "identity", "axes": 3, "offset": {}}, (1, 1, 1)),
        (_cosem("zyx", [40, 8, 4], units=None), SIZE),
        (_cosem("zyx", [40, 8, -4]), (1, 1, 1)),
        (_cosem("zyq", [40, 8, 4]), (1, 1, 1)),
        ({"transform": {"axes": [1, 2, 3], "scale": [40, 8, 4]}}, (1, 1, 1)),
        ({"axes": ["x", "x", "z"], "downsamplingFactors": "two"}, (1, 1, 1)),
        ({"resolution": [4, 8, 40], "downsamplingFactors": [0, 1, 1], "units": []}, SIZE),
    ],
)
def test_what_is_malformed_is_unknown(tmp_path, attributes, size):
    volume = open_volume(write_n5(tmp_path / "a.n5", IMAGE, **attributes))
    assert (volume.voxel_size, volume.voxel_size_known) == (size, False)
    assert (volume.offset, volume.axes) == ((0, 0, 0), "xyz")
    np.testing.assert_array_equal(volume.read(Block.whole(volume.shape)), IMAGE)


def _levels(path, group, first=None, second=None):
    write_group(path, n5="2.5.1", resolution=[7, 7, 7])
    write_group(path / "em", **group)
    write_n5(path / "em" / "s0", IMAGE, **(first or {}))
    write_n5(path / "em" / "s1", IMAGE[:, ::2, ::2], **(second or {}))
    return str(path)


N5_VIEWER = {"pixelResolution": {"dimensions": [4, 8, 40], "unit": "nm"}}
COARSE = _cosem("zyx", [40, 16, 8], [0, 4, 2])


@pytest.mark.parametrize(
    "arguments",
    [
        ({**N5_VIEWER, "scales": [[1, 1, 1], [2, 2, 1]]},),
        ({**N5_VIEWER, "downsamplingFactors": [[1, 1, 1], [2, 2, 1]]},),
        (N5_VIEWER, {}, {"downsamplingFactors": [2, 2, 1]}),
        ({}, N5_VIEWER, {**N5_VIEWER, "downsamplingFactors": [2, 2, 1]}),
        ({"resolution": [4, 8, 40], "units": NM}, {}, {"downsamplingFactors": [2, 2, 1]}),  # Paintera
        ({}, _cosem("zyx", [40, 8, 4]), COARSE),
        (
            {
                "multiscales": [{"datasets": [{"path": "s0", **_cosem("zyx", [40, 8, 4])}, {"path": "s1", **COARSE}]}],
                **N5_VIEWER,
                "scales": [[1, 1, 1], [3, 3, 3]],
            },
        ),
    ],
)
def test_levels_of_a_group(tmp_path, arguments):
    path = _levels(tmp_path / "a.n5", *arguments)
    finest = open_volume(f"{path}:em")
    assert (finest.dataset, finest.voxel_size, finest.offset) == ("em/s0", SIZE, (0, 0, 0))
    for address in (f"{path}:em/s1", f"{path}/em:s1", f"{path}/em/s1", f"n5://{path}/em:s1"):
        coarse = open_volume(address)
        assert (coarse.voxel_size, coarse.offset, coarse.voxel_size_known) == ((40, 16, 8), (0, 4, 2), True)
        assert coarse.shape == (6, 10, 12)
    assert [a.dataset for a in describe(path)] == ["em/s0", "em/s1"]
    assert [a.dataset for a in describe(f"{path}:em/s1")] == ["em/s1"]


def test_the_size_of_an_array_itself_is_not_multiplied_by_the_group(tmp_path):
    own = {"pixelResolution": {"dimensions": [8, 16, 40], "unit": "nm"}}
    path = _levels(tmp_path / "a.n5", {**N5_VIEWER, "scales": [[1, 1, 1], [2, 2, 1]]}, N5_VIEWER, own)
    assert open_volume(f"{path}:em/s1").voxel_size == (40, 16, 8)


def test_a_container_is_found_by_name_or_attributes(tmp_path):
    for path in (tmp_path / "a.n5", write_group(tmp_path / "b", n5="2.5.1")):
        write_n5(path / "c" / "s0", IMAGE)
        write_n5(path / "c" / "s1", IMAGE)
        assert open_volume(str(path)).dataset == "c/s0"  # the only image
    write_n5(tmp_path / "b" / "d", IMAGE)
    with pytest.raises(InputError, match=r"2 arrays and none was chosen.*c/s0.*, d"):
        open_volume(str(tmp_path / "b"))
    write_group(tmp_path / "notes", author="x")
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / "attributes.json").write_text("{")
    for name in ("notes", "torn"):
        with pytest.raises(InputError, match="no known format"):
            open_volume(str(tmp_path / name))
    with pytest.raises(InputError, match=r"notes is not of the format n5; leave 'n5://' away"):
        open_volume(f"n5://{tmp_path / 'notes'}")
    with pytest.raises(InputError, match="does not exist; "):
        open_volume(f"n5://{tmp_path / 'missing.n5'}")


def test_other_formats_may_lie_in_a_folder_of_that_name(tmp_path):
    zarr.create_array(str(tmp_path / "a.n5" / "b.zarr"), shape=IMAGE.shape, dtype="u1")
    zarr.create_array(str(tmp_path / "a.n5" / "b"), shape=IMAGE.shape, dtype="u1")
    tifffile.imwrite(tmp_path / "a.n5" / "c.tif", IMAGE)
    found = [open_volume(f"{tmp_path}/a.n5/{name}").format for name in ("b.zarr", "b", "c.tif")]
    assert found == ["zarr", "zarr", "tiff"]


def test_the_name_of_the_format_changes_nothing(tmp_path, monkeypatch):
    path = write_n5(tmp_path / "a.n5", IMAGE)
    monkeypatch.chdir(tmp_path)
    for address in (path, f"n5://{path}", "n5://a.n5", f"n5://file://{path}"):
        volume = open_volume(address)
        assert volume.url == path
        assert volume.identity() == open_volume(path).identity()


@pytest.mark.parametrize("compression", [{"type": "xz", "preset": 1}, {"type": "bzip2"}, {"type": "zstd", "level": 3}])
def test_compressions(tmp_path, compression):
    volume = open_volume(write_n5(tmp_path / "a.n5", IMAGE, compression))
    np.testing.assert_array_equal(volume.read(Block.whole(volume.shape)), IMAGE)


def test_what_other_writers_tell_of_a_compression(tmp_path):
    blosc = {"type": "blosc", "cname": "lz4", "clevel": 6, "shuffle": 0, "blocksize": 0}
    path = write_n5(tmp_path / "a.n5", IMAGE, blosc)
    change(tmp_path / "a.n5" / "attributes.json", compression=blosc | {"nthreads": 1})
    zlib = write_n5(tmp_path / "b.n5", IMAGE, {"type": "gzip", "useZlib": True, "level": 5})
    old = write_n5(tmp_path / "c.n5", IMAGE, GZIP)
    change(tmp_path / "c.n5" / "attributes.json", compression=None, compressionType="gzip")
    for written in (path, zlib, old):
        np.testing.assert_array_equal(open_volume(written).read(Block.whole(IMAGE.shape)), IMAGE)


@pytest.mark.parametrize("kind", ["i1", "i2", "i4", "i8", "u4", "f4", "f8"])
def test_dtypes(tmp_path, kind):
    values = IMAGE.astype(kind)
    volume = open_volume(write_n5(tmp_path / "a.n5", values), prefer="mask")
    assert volume.dtype == str(values.dtype)
    np.testing.assert_array_equal(volume.read(Block.whole(volume.shape)), values)


def test_chunks_that_were_never_written_are_0(tmp_path):
    path = write_n5(tmp_path / "a.n5", IMAGE)
    (tmp_path / "a.n5" / "0" / "0" / "0").unlink()
    found = open_volume(path).read(Block.whole(IMAGE.shape))
    assert not found[:4, :16, :16].any()
    np.testing.assert_array_equal(found[4:], IMAGE[4:])


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"compression": {"type": "lz4"}}, r"a\.n5 is compressed by 'lz4', which is none of raw, gzip,"),
        ({"compression": None}, "is compressed by None"),
        ({"compression": {"type": ["gzip"]}}, "is compressed by .'gzip'."),
        ({"dimensions": "large"}, r"damaged attributes .dimensions 'large'.; restore its attributes.json"),
        ({"dimensions": [24, 20, 6.5]}, r"damaged attributes .dimensions"),
        ({"dimensions": [24, 20]}, r"damaged attributes .*blockSize \[16, 16, 4\]"),
        ({"blockSize": [16, 16, 0]}, r"a\.n5 cannot be read"),
        ({"dimensions": [24, 20, 10**20]}, r"a\.n5 cannot be read .int too big"),
        ({"blockSize": None}, r"damaged attributes .blockSize None"),
        ({"dataType": "uint1"}, "damaged attributes .dataType 'uint1'"),
        ({"dataType": {}}, "damaged attributes .dataType"),
        ({"isLabelMultiset": True}, "several labels a voxel"),
    ],
)
def test_mistakes_are_one_line(tmp_path, attributes, message):
    path = tmp_path / "a.n5"
    write_n5(path, IMAGE, RAW)
    written = json.loads((path / "attributes.json").read_text()) | attributes
    (path / "attributes.json").write_text(json.dumps(written))
    with pytest.raises(InputError, match=message) as caught:
        open_volume(str(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["{", "[1]", "\xff", "[" * 100000])
def test_damaged_attributes(tmp_path, text):
    path = write_n5(tmp_path / "a.n5" / "s0", IMAGE)
    (tmp_path / "a.n5" / "s0" / "attributes.json").write_bytes(text.encode("latin1"))
    with pytest.raises(InputError, match=r"s0/attributes\.json (is no intact JSON|holds no attributes).*; restore it"):
        open_volume(path)
    write_group(tmp_path / "b.n5")
    write_n5(tmp_path / "b.n5" / "s0", IMAGE)
    (tmp_path / "b.n5" / "attributes.json").write_bytes(text.encode("latin1"))
    assert open_volume(f"{tmp_path}/b.n5:s0").shape == IMAGE.shape  # it could but tell the size of voxels


def test_a_missing_dataset(tmp_path):
    path = write_n5(tmp_path / "a.n5" / "em" / "s0", IMAGE)[: -len("/em/s0")]
    with pytest.raises(InputError, match=r"has no dataset 'raw'; choose one of em/s0 .24 x 20 x 6 uint8."):
        open_volume(f"{path}:raw")
    write_group(tmp_path / "empty.n5")
    with pytest.raises(InputError, match="holds no array"):
        open_volume(str(tmp_path / "empty.n5"))
