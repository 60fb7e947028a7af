"""OME-Zarr of others is read with its axes, voxel size, offset and labels."""

import warnings

import numpy as np
import pytest
import zarr

from vimvol.errors import InputError
from vimvol.geometry import Block
from vimvol.io import describe, open_volume
from vimvol.io.formats.ngff import levels, nanometers

RAW = np.random.default_rng(1).integers(0, 255, (6, 20, 24), dtype=np.uint8)


def _axes(names="zyx", unit="nanometer"):
    kinds = {"c": "channel", "t": "time"}
    axes = [{"name": n, "type": kinds.get(n, "space")} for n in names]
    return [a | ({"unit": unit} if a["type"] == "space" and unit else {}) for a in axes]


def _multiscale(axes="zyx", scale=(40, 4, 4), translation=None, unit="nanometer", outer=None, version=None):
    datasets = []
    for level, path in enumerate(("0", "1")):
        factors = [2**level if a in "yx" else 1 for a in axes]
        steps = [{"type": "scale", "scale": [s * f for s, f in zip(scale, factors, strict=True)]}]
        if translation:
            steps.append({"type": "translation", "translation": list(translation)})
        datasets.append({"path": path, "coordinateTransformations": steps})
    image = {"axes": _axes(axes, unit), "datasets": datasets, "name": "test"}
    return image | ({"coordinateTransformations": outer} if outer else {}) | ({"version": version} if version else {})


def _image(where, version, array=RAW, **metadata):
    """Write an image with hand-made metadata: arrays 0 and 1."""
    old = version == "0.4"
    group = zarr.open_group(where, mode="a", zarr_format=2 if old else 3)
    names = metadata.get("axes", "zyx")
    separator = {"name": "v2" if old else "default", "separator": "/"}
    for level, part in enumerate((array, array[..., ::2, ::2])):
        extra = {} if old else {"dimension_names": list(names)}
        stored = group.create_array(
            str(level), shape=part.shape, dtype=part.dtype, chunks=part.shape, chunk_key_encoding=separator, **extra
        )
        stored[:] = part
    if old:
        group.attrs["multiscales"] = [_multiscale(version="0.4", **metadata)]
    else:
        group.attrs["ome"] = {"version": "0.5", "multiscales": [_multiscale(**metadata)]}
    return group


def _labels(image, version, names):
    group = image.create_group("labels")
    for i, name in enumerate(names):
        ids = RAW.astype(np.uint64) + 2**53 + 1 + i
        _image(group.create_group(name).store_path, version, ids)
    attributes = {"labels": list(names)}
    group.attrs.update(attributes if version == "0.4" else {"ome": {"version": "0.5"} | attributes})


both = pytest.mark.parametrize("version", ["0.4", "0.5"])


@both
def test_the_finest_level_is_opened(tmp_path, version):
    path = tmp_path / "a.zarr"
    _image(path, version, translation=(400, 0, 8))
    volume = open_volume(str(path))
    assert (volume.dataset, volume.axes, volume.shape) == ("0", "zyx", RAW.shape)
    assert (volume.voxel_size, volume.offset, volume.voxel_size_known) == ((40, 4, 4), (400, 0, 8), True)
    np.testing.assert_array_equal(volume.read(Block.whole(volume.shape)), RAW)


@both
@pytest.mark.parametrize("address", ["a.zarr:1", "a.zarr/1"])
def test_a_level_knows_its_voxel_size(tmp_path, version, address):
    _image(tmp_path / "a.zarr", version)
    volume = open_volume(f"{tmp_path}/{address}")
    assert (volume.voxel_size, volume.shape) == ((40, 8, 8), (6, 10, 12))
    assert [r.voxel_size for r in describe(f"{tmp_path}/a.zarr")] == [(40, 4, 4), (40, 8, 8)]


@both
@pytest.mark.parametrize(
    ("unit", "scale"),
    [
        ("nanometer", (40, 4, 4)),
        ("micrometer", (0.04, 0.004, 0.004)),
        ("angstrom", (400, 40, 40)),
        ("meter", (4e-8, 4e-9, 4e-9)),
    ],
)
def test_units_become_nanometers(tmp_path, version, unit, scale):
    _image(tmp_path / "a.zarr", version, unit=unit, scale=scale)
    volume = open_volume(str(tmp_path / "a.zarr"))
    assert volume.voxel_size == pytest.approx((40, 4, 4), rel=1e-12)
    assert volume.voxel_size_known


@both
def test_a_scale_without_unit_is_not_trusted(tmp_path, version):
    _image(tmp_path / "a.zarr", version, unit=None)
    volume = open_volume(str(tmp_path / "a.zarr"))
    assert (volume.voxel_size, volume.voxel_size_known) == ((40, 4, 4), False)


@both
def test_transformations_of_the_image_come_after_those_of_the_level(tmp_path, version):
    outer = [{"type": "scale", "scale": [10, 1, 2]}, {"type": "translation", "translation": [5, 6, 7]}]
    _image(tmp_path / "a.zarr", version, scale=(4, 4, 2), translation=(1, 2, 3), outer=outer)
    volume = open_volume(str(tmp_path / "a.zarr"))
    assert (volume.voxel_size, volume.offset) == ((40, 4, 4), (15, 8, 13))


@both
def test_time_and_channels(tmp_path, version):
    array = np.stack([RAW, 255 - RAW])[np.newaxis]
    _image(tmp_path / "a.zarr", version, array, axes="tczyx", scale=(1, 1, 40, 4, 4))
    volume = open_volume(str(tmp_path / "a.zarr"))
    assert (volume.axes, volume.channels, volume.shape, volume.voxel_size) == ("tczyx", 2, RAW.shape, (40, 4, 4))
    assert volume.voxel_size_known
    block = Block((1, 2, 3), (5, 9, 20))
    np.testing.assert_array_equal(volume.read_channels(block)[1], 255 - RAW[block.slices])


@both
def test_labels(tmp_path, version):
    path = str(tmp_path / "a.zarr")
    image = _image(path, version)
    assert open_volume(path, prefer="labels").dataset == "0"
    _labels(image, version, ["cells"])
    assert open_volume(path).dataset == "0"
    labels = open_volume(path, prefer="labels")
    assert (labels.dataset, labels.dtype, labels.voxel_size) == ("labels/cells/0", "uint64", (40, 4, 4))
    np.testing.assert_array_equal(labels.read(Block.whole(labels.shape)), RAW.astype(np.uint64) + 2**53 + 1)
    for address in (f"{path}:labels", f"{path}:labels/cells", f"{path}/labels/cells", f"{path}:labels/cells/0"):
        assert open_volume(address, prefer="labels").address.replace(":", "/") == f"{path}/labels/cells/0"
    assert [r.dataset for r in describe(path)] == ["0", "1", "labels/cells/0", "labels/cells/1"]


@both
def test_several_labels(tmp_path, version):
    image = _image(tmp_path / "a.zarr", version)
    _labels(image, version, ["cells", "nuclei"])
    with pytest.raises(InputError, match=r"2 labels and none was chosen; .*labels/cells, labels/nuclei"):
        open_volume(str(tmp_path / "a.zarr"), prefer="labels")
    image = _image(tmp_path / "b.zarr", version)
    _labels(image, version, ["cells", "segmentation"])
    assert open_volume(str(tmp_path / "b.zarr"), prefer="labels").dataset == "labels/segmentation/0"


def test_an_image_below_a_plain_group_is_found(tmp_path):
    _image(zarr.open_group(tmp_path / "a.zarr").create_group("0").store_path, "0.5")
    assert open_volume(str(tmp_path / "a.zarr")).dataset == "0/0"
    _image(zarr.open_group(tmp_path / "a.zarr").create_group("1").store_path, "0.5")
    with pytest.raises(InputError, match=r"2 arrays and none was chosen; .*0/0 .*1/0"):
        open_volume(str(tmp_path / "a.zarr"))


def test_an_image_without_its_array_is_incomplete(tmp_path):
    group = _image(tmp_path / "a.zarr", "0.5")
    del group["0"]
    with pytest.raises(InputError, match="'0' that is not there, so the image is incomplete"):
        open_volume(str(tmp_path / "a.zarr"))


@pytest.mark.parametrize("ome_zarr_format", [2, 3])
def test_images_of_ome_zarr_py(tmp_path, ome_zarr_format):
    writer = pytest.importorskip("ome_zarr.writer")
    formats = pytest.importorskip("ome_zarr.format")
    fmt = formats.FormatV04() if ome_zarr_format == 2 else formats.FormatV05()
    path = tmp_path / "a.zarr"
    group = zarr.open_group(path, mode="w", zarr_format=ome_zarr_format)
    geometry = {"scale": {"z": 0.04, "y": 0.004, "x": 0.004}, "axes_units": dict.fromkeys("zyx", "micrometer")}
    options = {"axes": "zyx", "fmt": fmt, "scale_factors": [2]}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its own defaults are deprecated
        writer.write_image(RAW, group, **options, **geometry)
        writer.write_labels(RAW, group, "cells", **options, **geometry)
    for kind in ("image", "labels"):
        volume = open_volume(str(path), prefer=kind)
        assert volume.voxel_size == pytest.approx((40, 4, 4))
        np.testing.assert_array_equal(volume.read(Block.whole(volume.shape)), RAW)
    assert "labels/cells" in volume.dataset


@pytest.mark.parametrize(
    ("unit", "expected"),
    [
        *[
            ("nanometer", 1),
            ("nanometers", 1),
            ("micrometre", 1e3),
            ("um", 1e3),
            ("µm", 1e3),
            ("μm", 1e3),
            ("micron", 1e3),
        ],
        *[("millimeter", 1e6), ("Å", 0.1), ("angstrom", 0.1), ("m", 1e9), ("kilometer", 1e12), ("inch", 2.54e7)],
        *[("pixel", None), (None, None), (3, None), ("", None), ("second", None), ("parsec", None)],
    ],
)
def test_nanometers(unit, expected):
    assert nanometers(unit) == expected


@pytest.mark.parametrize(
    "attributes",
    [
        {},
        {"multiscales": None},
        {"multiscales": []},
        {"multiscales": ["x"]},
        {"multiscales": [{}]},
        {"multiscales": [{"datasets": [3, {"path": 4}]}]},
        {"ome": 3},
    ],
)
def test_metadata_that_are_no_image(attributes):
    assert levels(attributes) == []


def test_old_versions_have_no_axes_or_plain_names():
    dataset = {"path": "0"}
    assert levels({"multiscales": [{"datasets": [dataset]}]})[0].axes == "tczyx"
    level = levels({"multiscales": [{"axes": ["z", "y", "x"], "datasets": [dataset]}]})[0]
    assert (level.axes, level.scale, level.known) == ("zyx", (1, 1, 1), False)


def test_attributes_of_plain_arrays(tmp_path):
    group = zarr.open_group(tmp_path / "a.zarr")
    array = group.create_array("volumes/raw", shape=RAW.shape, dtype="uint8")
    array.attrs.update({"resolution": [40, 4, 4], "offset": [80, 0, 8]})
    volume = open_volume(str(tmp_path / "a.zarr"))
    assert (volume.dataset, volume.voxel_size, volume.offset) == ("volumes/raw", (40, 4, 4), (80, 0, 8))
    assert volume.voxel_size_known


NM = _axes()


@pytest.mark.parametrize(
    ("axes", "scale"),
    [
        (NM, ["a", 1, 1]),
        (NM, [1e400, 1, 1]),
        (NM, [10**400, 1, 1]),
        (NM, [None, 1, 1]),
        (NM, 3),
        (NM, [float("nan"), 4, 4]),
    ]
    + [(axes, [4, 4, 4]) for axes in (3, [None, "y", "x"], [{"name": "z", "type": ["space"]}, 3, "x"], {})],
)
def test_what_is_no_scale_or_axes_is_not_known(tmp_path, axes, scale):
    where = tmp_path / "a.zarr"
    group = _image(where, "0.4")
    steps = [{"type": "scale", "scale": scale}, {"type": "translation", "translation": ["b", 0, 0]}]
    datasets = [{"path": path, "coordinateTransformations": steps} for path in ("0", "1")]
    group.attrs["multiscales"] = [{"axes": axes, "datasets": datasets}]
    volume = open_volume(str(where))
    assert (volume.axes, volume.voxel_size, volume.voxel_size_known) == ("zyx", (1, 1, 1), False)
    assert volume.offset == (0, 0, 0)


def test_scales_whose_product_is_no_number_are_not_known():
    huge = [{"type": "scale", "scale": [1e300] * 3}]
    dataset = {"path": "0", "coordinateTransformations": huge}
    (level,) = levels({"multiscales": [{"axes": NM, "datasets": [dataset], "coordinateTransformations": huge}]})
    assert (level.scale, level.known) == ((1, 1, 1), False)


@pytest.mark.parametrize("datasets", [3, None, [3, {"path": 4}]])
def test_without_datasets_it_is_no_image(tmp_path, datasets):
    group = _image(tmp_path / "a.zarr", "0.4")
    group.attrs["multiscales"] = [{"axes": NM, "datasets": datasets}]
    with pytest.raises(InputError, match="none was chosen"):
        open_volume(str(tmp_path / "a.zarr"))
