"""Images that are written: valid for others, complete or not there, and the same when created twice."""

import itertools
import json
import logging
from pathlib import Path

import numpy as np
import ome_zarr_models
import pytest
import zarr
from ome_zarr_models.v05.image import Image
from ome_zarr_models.v05.image_label import ImageLabel

from vimvol.errors import InputError, OutputExistsError
from vimvol.geometry import Block, Grid
from vimvol.io import describe, omezarr, open_volume, pyramid
from vimvol.io.downsample import mean_downsample, mode_downsample
from vimvol.io.omezarr import create_image, create_labels

SHAPE = (20, 150, 131)
GEOMETRY = {"shape": SHAPE, "voxel_size": (40.0, 4.0, 4.0), "offset": (400.0, 0.0, 8.0)}
STORAGE = {"chunk": (8, 32, 32), "shard": (16, 64, 64)}
RAW = np.random.default_rng(0).integers(1, 255, SHAPE, dtype=np.uint8)
IDS = np.random.default_rng(1).integers(1, 9, SHAPE, dtype=np.uint64) + np.uint64(2**53)


def _fill(url, data, kernel):
    """Write all levels shard by shard, as the stages do."""
    factors = [level.factor for level in pyramid(SHAPE, GEOMETRY["voxel_size"], 3)]
    for number in range(3):
        array = zarr.open_array(f"{url}/{number}", mode="r+")
        if number:
            data = kernel(data, [b // a for a, b in zip(*factors[number - 1 : number + 1], strict=True)])
        assert array.shape == data.shape
        grid = Grid(data.shape, array.shards)
        for index in grid:
            array[grid.block(index).slices] = data[grid.block(index).slices]


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    url = str(tmp_path_factory.mktemp("written") / "a.zarr")
    create_image(url, dtype="uint8", levels=3, name="raw", **GEOMETRY, **STORAGE)
    create_labels(url, "segmentation", **STORAGE)
    create_labels(url, "nuclei", dtype="uint32", **STORAGE)
    _fill(url, RAW, mean_downsample)
    _fill(f"{url}/labels/segmentation", IDS, mode_downsample)
    return url


def test_what_is_written_is_read(written):
    image, labels = open_volume(written), open_volume(written, prefer="labels")
    for volume in (image, labels):
        assert (volume.voxel_size, volume.offset) == (GEOMETRY["voxel_size"], GEOMETRY["offset"])
        assert volume.voxel_size_known
        assert (volume.chunks, volume.shards) == (STORAGE["chunk"], STORAGE["shard"])
    np.testing.assert_array_equal(image.read(Block.whole(SHAPE)), RAW)
    np.testing.assert_array_equal(labels.read(Block.whole(SHAPE)), IDS)
    assert (labels.dataset, labels.dtype) == ("labels/segmentation/0", "uint64")


def test_ids_of_every_level_are_ids_of_the_first(written):
    for level in (1, 2):
        volume = open_volume(f"{written}:labels/segmentation/{level}", prefer="labels")
        assert set(np.unique(volume.read(Block.whole(volume.shape))).tolist()) <= set(np.unique(IDS).tolist())


def test_levels_of_labels_and_image_agree(written):
    rows = {row.dataset: row for row in describe(written)}
    plan = pyramid(SHAPE, GEOMETRY["voxel_size"], 3)
    for number, level in enumerate(plan):
        expected = tuple(t + o for t, o in zip(level.translation, GEOMETRY["offset"], strict=True))
        for name, dtype in ((f"{number}", "uint8"), (f"labels/segmentation/{number}", "uint64")):
            row = rows[name]
            assert (row.shape, row.scale, row.translation, row.dtype) == (level.shape, level.scale, expected, dtype)
            assert row.axes == "zyx"
    assert rows["labels/nuclei/2"].dtype == "uint32"


def test_ome_zarr_models_accepts_image_and_labels(written):
    image = ome_zarr_models.open_ome_zarr(written)
    assert isinstance(image, Image)
    assert image.labels.label_paths == ["segmentation", "nuclei"]
    assert image.ome_attributes.version == "0.5"
    labels = ome_zarr_models.open_ome_zarr(f"{written}/labels/segmentation")
    assert isinstance(labels, ImageLabel)
    assert labels.ome_attributes.image_label.source.image == "../../"
    assert labels.ome_attributes.image_label.version == "0.5"


def test_ome_zarr_py_reads_image_and_labels(written):
    pytest.importorskip("ome_zarr")
    from ome_zarr.io import parse_url
    from ome_zarr.reader import Reader

    nodes = {node.zarr.basename(): node for node in Reader(parse_url(written))()}
    image, labels = nodes["a.zarr"], nodes["segmentation"]
    np.testing.assert_array_equal(image.data[0].compute(), RAW)
    np.testing.assert_array_equal(labels.data[0].compute(), IDS)
    assert [d.shape for d in image.data] == [d.shape for d in labels.data]


def test_arrays_are_sharded_and_not_shuffled(written):
    metadata = json.loads(Path(written, "labels", "segmentation", "0", "zarr.json").read_text())
    assert metadata["dimension_names"] == ["z", "y", "x"]
    assert metadata["fill_value"] == 0
    [sharding] = metadata["codecs"]
    assert sharding["name"] == "sharding_indexed"
    assert [c["name"] for c in sharding["configuration"]["codecs"]] == ["bytes", "zstd"]
    assert sharding["configuration"]["codecs"][1]["configuration"]["level"] == 1


def test_channels_come_first(tmp_path):
    url = str(tmp_path / "a.zarr")
    create_image(url, dtype="uint8", name="boundaries", channels=2, levels=2, **GEOMETRY, **STORAGE)
    create_labels(url, "segmentation", **STORAGE)
    rows = {row.dataset: row for row in describe(url)}
    assert (rows["0"].axes, rows["0"].shape) == ("czyx", (2, *SHAPE))
    assert (rows["0"].chunks, rows["0"].shards) == ((1, 8, 32, 32), (2, 16, 64, 64))
    assert (rows["1"].scale, rows["1"].translation) == ((1, 40, 8, 8), (0, 400, 2, 10))
    assert (rows["labels/segmentation/1"].scale, rows["labels/segmentation/1"].shape) == ((40, 8, 8), (20, 75, 66))
    assert open_volume(url).channels == 2
    ome_zarr_models.open_ome_zarr(url)


def test_a_small_image_is_stored_in_one_shard(tmp_path):
    create_image(str(tmp_path / "a.zarr"), shape=(3, 40, 50), dtype="uint8", voxel_size=(1, 1, 1), name="x")
    volume = open_volume(str(tmp_path / "a.zarr"))
    assert (volume.chunks, volume.shards) == ((3, 40, 50), (3, 40, 50))


def test_creating_again_keeps_data(written):
    create_image(written, dtype="uint8", levels=3, name="raw", **GEOMETRY, **STORAGE)
    create_labels(written, "segmentation", **STORAGE)
    np.testing.assert_array_equal(open_volume(written).read(Block.whole(SHAPE)), RAW)
    np.testing.assert_array_equal(open_volume(written, prefer="labels").read(Block.whole(SHAPE)), IDS)


@pytest.mark.parametrize(
    "change",
    [
        {"shape": (20, 150, 132)},
        {"voxel_size": (41.0, 4.0, 4.0)},
        {"offset": (0.0, 0.0, 0.0)},
        {"levels": 2},
        {"dtype": "uint16"},
        {"chunk": (16, 32, 32)},
        {"shard": (16, 64, 32)},
        {"channels": 1},
        {"name": "other"},
    ],
)
def test_another_image_is_never_overwritten(written, change):
    arguments = {"dtype": "uint8", "levels": 3, "name": "raw"} | GEOMETRY | STORAGE | change
    with pytest.raises(OutputExistsError, match="holds another image"):
        create_image(written, **arguments)
    np.testing.assert_array_equal(open_volume(written).read(Block.whole(SHAPE)), RAW)


def test_a_foreign_array_is_never_overwritten(tmp_path):
    array = zarr.create_array(tmp_path / "a.zarr" / "0", shape=(3,), dtype="uint8")
    array[:] = 7
    zarr.open_group(tmp_path / "a.zarr")
    zarr.create_array(tmp_path / "b.zarr", shape=(3,), dtype="uint8")
    zarr.create_group(tmp_path / "c.zarr", zarr_format=2)
    for name in ("a.zarr", "b.zarr", "c.zarr"):
        with pytest.raises(OutputExistsError, match="or choose another path"):
            create_image(str(tmp_path / name), dtype="uint8", name="x", **GEOMETRY)
    assert array[:].tolist() == [7, 7, 7]


class Interrupted(BaseException):
    pass


def _stop_after(monkeypatch, steps):
    """Let the n-th write of the creation never happen."""
    count = itertools.count()
    for name in ("create_array", "create_group"):
        original = getattr(zarr, name)

        def limited(*args, _original=original, **kwargs):
            if next(count) >= steps:
                raise Interrupted
            return _original(*args, **kwargs)

        monkeypatch.setattr(omezarr.zarr, name, limited)
    original_finish = omezarr._finish

    def finish(*args):
        if next(count) >= steps:
            raise Interrupted
        original_finish(*args)

    monkeypatch.setattr(omezarr, "_finish", finish)


@pytest.mark.parametrize("steps", range(8))
def test_an_interrupted_creation_is_no_image_and_can_be_repeated(tmp_path, monkeypatch, steps):
    url = str(tmp_path / "a.zarr")

    def create():
        create_image(url, dtype="uint8", levels=2, name="raw", **GEOMETRY, **STORAGE)
        create_labels(url, "segmentation", **STORAGE)

    with monkeypatch.context() as patch:
        _stop_after(patch, steps)
        with pytest.raises(Interrupted):
            create()
    if steps < 4:  # mark, two arrays, metadata of the image, then the same of the labels
        with pytest.raises(InputError, match="does not exist" if steps == 0 else "was begun and never completed"):
            open_volume(url)
    else:
        assert ome_zarr_models.open_ome_zarr(url).labels is None
        assert open_volume(url, prefer="labels").dataset == "0"
    create()
    assert ome_zarr_models.open_ome_zarr(url).labels.label_paths == ["segmentation"]
    assert zarr.open_group(url, mode="r").attrs.asdict().keys() == {"ome"}


def test_labels_need_an_image_and_integers(tmp_path):
    with pytest.raises(InputError, match="is no OME-Zarr image"):
        create_labels(str(tmp_path / "a.zarr"), "x")
    create_image(str(tmp_path / "a.zarr"), shape=(3, 4, 5), dtype="uint8", voxel_size=(1, 1, 1), name="x")
    with pytest.raises(InputError, match="labels are integers"):
        create_labels(str(tmp_path / "a.zarr"), "x", dtype="float32")
    with pytest.raises(InputError, match="no multiple of the chunk"):
        create_labels(str(tmp_path / "a.zarr"), "x", chunk=(2, 2, 2), shard=(3, 3, 3))
    assert not (tmp_path / "a.zarr" / "labels").exists()


def test_a_run_may_keep_its_own_things_inside(written, caplog):
    zarr.create_array(f"{written}/vimvol/fragments", shape=(2, 2), dtype="uint32")
    with caplog.at_level(logging.WARNING):
        assert "vimvol/fragments" not in [row.dataset for row in describe(written)]
        ome_zarr_models.open_ome_zarr(written)
    assert not caplog.records
