"""Voxel size and offset of HDF5 and TIFF, as their writers leave them."""

import h5py
import numpy as np
import pytest
import tifffile

from tests.support import small_config
from vimvol.errors import InputError
from vimvol.geometry import Block
from vimvol.io import open_volume
from vimvol.preflight.prepare import prepare

RAW = np.zeros((5, 16, 16), np.uint8)


def _hdf5(path, **attributes):
    with h5py.File(path, "w") as file:
        file["volumes/raw"] = RAW
        file["volumes/raw"].attrs.update(attributes)
    return open_volume(str(path))


def test_cremi_attributes(tmp_path):
    volume = _hdf5(tmp_path / "a.h5", resolution=np.array([40.0, 4.0, 4.0]), offset=(400, 0, 8))
    assert (volume.voxel_size, volume.offset, volume.voxel_size_known) == ((40, 4, 4), (400, 0, 8), True)


@pytest.mark.parametrize("value", ["forty", (0, 4, 4), (np.nan, 4, 4), ()])
def test_attributes_that_are_no_resolution(tmp_path, value):
    volume = _hdf5(tmp_path / "a.h5", resolution=value)
    assert (volume.voxel_size, volume.voxel_size_known) == ((1, 1, 1), False)


def test_the_only_dataset_is_taken(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["anything"] = RAW
        file["table"] = np.zeros(4)
    assert open_volume(str(tmp_path / "a.h5")).dataset == "anything"
    assert open_volume(str(tmp_path / "a.h5"), prefer="labels").dataset == "anything"
    with pytest.raises(InputError, match="is no volume"):
        open_volume(str(tmp_path / "a.h5:table"))


def test_a_group_of_one_dataset_and_a_soft_link(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["a/raw"], file["b/raw"] = RAW, RAW
        file["link"] = h5py.SoftLink("/a/raw")
    assert open_volume(str(tmp_path / "a.h5:b")).dataset == "b/raw"
    assert open_volume(str(tmp_path / "a.h5:link")).shape == RAW.shape


def _tiff(path, array=RAW, **kwargs):
    tifffile.imwrite(path, array, **kwargs)
    return open_volume(str(path))


@pytest.mark.parametrize(
    ("unit", "scale"), [("nm", 1), ("um", 1e-3), ("micron", 1e-3), ("\\u00B5m", 1e-3), ("nanometer", 1), ("mm", 1e-6)]
)
def test_imagej(tmp_path, unit, scale):
    metadata = {"axes": "ZYX", "spacing": 40 * scale, "unit": unit}
    volume = _tiff(tmp_path / "a.tif", imagej=True, resolution=(1 / (4 * scale), 1 / (8 * scale)), metadata=metadata)
    assert volume.voxel_size == pytest.approx((40, 8, 4), rel=1e-5)
    assert volume.voxel_size_known


def test_imagej_without_spacing_takes_z_for_y_and_says_so(tmp_path):
    volume = _tiff(tmp_path / "a.tif", imagej=True, resolution=(0.25, 0.25), metadata={"axes": "ZYX", "unit": "nm"})
    assert (volume.voxel_size, volume.voxel_size_known) == ((4, 4, 4), False)
    plane = _tiff(tmp_path / "b.tif", RAW[0], imagej=True, resolution=(0.25, 0.25), metadata={"unit": "nm"})
    assert (plane.voxel_size, plane.voxel_size_known) == ((4, 4, 4), True)


@pytest.mark.parametrize("unit", ["pixel", "", None])
def test_imagej_without_a_length(tmp_path, unit):
    metadata = {"axes": "ZYX", "spacing": 3} | ({} if unit is None else {"unit": unit})
    volume = _tiff(tmp_path / "a.tif", imagej=True, metadata=metadata)
    assert (volume.voxel_size, volume.voxel_size_known) == ((1, 1, 1), False)


def test_ome_tiff(tmp_path):
    sizes = {"PhysicalSizeX": 4, "PhysicalSizeXUnit": "nm", "PhysicalSizeY": 0.004}
    sizes |= {"PhysicalSizeZ": 400, "PhysicalSizeZUnit": "Å"}
    volume = _tiff(tmp_path / "a.ome.tif", metadata={"axes": "ZYX"} | sizes)
    assert volume.voxel_size == pytest.approx((40, 4, 4))
    assert volume.voxel_size_known


def test_resolution_of_a_printer_is_ignored(tmp_path):
    volume = _tiff(tmp_path / "a.tif", resolution=(72, 72), resolutionunit="INCH")
    assert not volume.voxel_size_known


def test_a_folder_is_sorted_by_number_and_knows_no_z(tmp_path):
    folder = tmp_path / "slices"
    folder.mkdir()
    for number in (10, 9, 100):
        plane = np.full((4, 5), number, np.uint8)
        options = {"imagej": True, "resolution": (0.25, 0.25), "metadata": {"unit": "nm"}}
        tifffile.imwrite(folder / f"s{number}.TIF", plane, **options)
    (folder / "notes.txt").write_text("x")
    volume = open_volume(str(folder))
    assert (volume.voxel_size, volume.voxel_size_known) == ((4, 4, 4), False)
    assert volume.shape == (3, 4, 5)
    assert volume.read(Block((0, 0, 0), (3, 1, 1))).ravel().tolist() == [9, 10, 100]


def test_series_of_a_file(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        file.write(RAW)
        file.write(RAW[:, :8, :8])
    with pytest.raises(InputError, match=r"2 arrays and none was chosen.*0 .5 x 16 x 16 uint8., 1 .5 x 8 x 8"):
        open_volume(str(tmp_path / "a.tif"))
    assert open_volume(f"{tmp_path}/a.tif:1").shape == (5, 8, 8)


@pytest.mark.parametrize("kind", [{"imagej": True}, {"ome": True}])
def test_channels_of_a_tiff_are_no_slices_unless_named_so(tmp_path, kind):
    path = str(tmp_path / "a.tif")
    tifffile.imwrite(path, np.zeros((3, 20, 24), np.uint8), metadata={"axes": "CYX"}, **kind)
    volume = open_volume(path)
    assert (volume.axes, volume.shape, volume.channels) == ("cyx", (1, 20, 24), 3)
    assert open_volume(path, axes="zyx").shape == (3, 20, 24)
    with pytest.raises(InputError, match=r"has 3 channels.* --set input\.axes=zyx"):
        prepare(path, str(tmp_path / "out.zarr"), small_config(input__voxel_size=[40, 4, 4]))


def test_pages_that_were_called_channels_are_not_1_nm_thick(tmp_path):
    path = str(tmp_path / "a.tif")
    tifffile.imwrite(path, RAW[:3], imagej=True, resolution=(0.25, 0.25), metadata={"unit": "nm", "axes": "CYX"})
    volume = open_volume(path)
    assert (volume.voxel_size, volume.voxel_size_known) == ((4, 4, 4), True)  # an image of one slice
    volume = open_volume(path, axes="zyx")
    assert (volume.voxel_size, volume.voxel_size_known) == ((4, 4, 4), False)
    with pytest.raises(InputError, match=r"input\.voxel_size"):
        prepare(path, str(tmp_path / "out.zarr"), small_config(input__axes="zyx"))


def test_a_resolution_is_of_the_axes_of_space_where_a_channel_is_the_last(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["raw"] = RAW[..., None]
        file["raw"].attrs.update(resolution=(40.0, 4.0, 5.0), offset=(80.0, 0.0, 8.0))
    volume = open_volume(str(tmp_path / "a.h5"), axes="zyxc")
    assert (volume.voxel_size, volume.offset, volume.voxel_size_known) == ((40, 4, 5), (80, 0, 8), True)
    volume = open_volume(str(tmp_path / "a.h5"), axes="czyx")
    assert volume.voxel_size == (40, 4, 5)


def test_of_colours_it_is_not_told_that_they_may_be_sections(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((16, 16, 3), np.uint8), photometric="rgb")
    with pytest.raises(InputError, match=r"3 channels.*where its axes are not yxc, name them with --set input.axes$"):
        prepare(str(tmp_path / "a.tif"), str(tmp_path / "out.zarr"), small_config())


@pytest.mark.parametrize(
    ("kind", "axes"),
    [
        ({"imagej": True}, "CYX"),
        ({"imagej": True}, "TYX"),
        ({"ome": True}, "CYX"),
        ({"imagej": True}, "ZYX"),
        ({}, None),
    ],
)
def test_other_pages_are_slices(tmp_path, kind, axes):
    path = str(tmp_path / "a.tif")
    tifffile.imwrite(path, np.zeros((7, 20, 24), np.uint8), metadata={"axes": axes} if axes else {}, **kind)
    assert (open_volume(path).axes, open_volume(path).shape) == ("zyx", (7, 20, 24))


def test_an_empty_dataset_is_told(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["empty"] = h5py.Empty("u1")
    with pytest.raises(InputError, match="is an empty dataset"):
        open_volume(f"{tmp_path}/a.h5:empty")
