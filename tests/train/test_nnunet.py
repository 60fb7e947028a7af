"""The data of a training as nnU-Net reads them."""

import json
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile
from skimage import io

from tests.train.test_configs import CONFIGS, small, write_data
from vimvol.errors import InputError, OutputExistsError
from vimvol.train.dataset import SliceDataset
from vimvol.train.nnunet import CLASSES, export_dataset
from vimvol.train.sources import load_data
from vimvol.train.targets import TARGETS


def test_cases_are_the_slices_and_targets_of_the_training(config, annotated, tmp_path_factory, tmp_path):
    data = tmp_path_factory.mktemp("data") / annotated.name
    shutil.copy(annotated, data)
    with h5py.File(data, "r+") as file:
        file["volumes/labels/neuron_ids"][7, :30, :30] = 0  # nobody annotated it, so nobody learns from it
    config = config.model_copy(update={"root": str(data.parent)})
    done = export_dataset(config, str(tmp_path), 7, "Cells")
    assert done.folder == tmp_path / "Dataset007_Cells"
    assert {p.name for p in tmp_path.iterdir()} == {done.folder.name}
    about = json.loads((done.folder / "dataset.json").read_text())
    assert about["labels"] == {"background": 0, "boundary": 1, "ignore": 2}
    assert about["overwrite_image_reader_writer"] == "NaturalImage2DIO"
    assert about["licence"] == "none of your concern"
    images = sorted((done.folder / "imagesTr").iterdir())
    labels = sorted((done.folder / "labelsTr").iterdir())
    assert len(images) == len(labels) == about["numTraining"] == done.train + done.validate
    assert (done.train, done.validate, done.test) == (6 + 60, 2, 2)
    assert [p.name for p in images] == [p.name.replace(".tif", "_0000.tif") for p in labels]
    (split,) = json.loads((done.folder / "splits_final.json").read_text())
    assert sorted(split["train"] + split["val"]) == [p.stem for p in labels]
    with h5py.File(annotated) as file:
        raw = file["volumes/raw"][:]
    by_name = {p.stem: io.imread(p) for p in (*images, *labels)}
    np.testing.assert_array_equal(by_name["train0-0-cells-z-00003_0000"], raw[3])
    np.testing.assert_array_equal(by_name["train1-0-cells-y-00010_0000"], raw[:6, 10])
    np.testing.assert_array_equal(by_name["val0-0-cells-00001_0000"], raw[7])
    for index, crop in enumerate(SliceDataset(load_data(config).validate[0], config)):
        label = by_name[f"val0-0-cells-{index:05d}"]
        np.testing.assert_array_equal(label == 2, crop["weight"][0] == 0)
        np.testing.assert_array_equal(label == 1, (crop["target"][0] == 1) & (crop["weight"][0] == 1))


def test_overlapping_classes_become_regions(config, tmp_path):
    config = config.model_copy(update={"target": "foreground-boundary", "fill": 0.0})
    folder = export_dataset(config, str(tmp_path), 501, "Cells").folder
    about = json.loads((folder / "dataset.json").read_text())
    assert "ignore" not in about["labels"]
    assert len(about["regions_class_order"]) == len(about["labels"]) - 1
    target, _ = TARGETS[config.target].draw(load_data(config).train[0].read(0).labels, 2)
    label = io.imread(folder / "labelsTr" / "train0-0-cells-z-00000.tif")
    assert set(np.unique(label)) == {0, 1, 2, 3}
    for channel, name in zip(target, TARGETS[config.target].classes, strict=True):
        np.testing.assert_array_equal(np.isin(label, about["labels"][name]), channel == 1)


@pytest.mark.parametrize("name", CLASSES)
def test_every_combination_of_classes_has_a_value_of_its_own(name):
    """And a class is the values that nnU-Net is told, without gaps."""
    classes, channels = CLASSES[name], len(TARGETS[name].classes)
    assert sorted(classes.values) == list(range(2**channels))
    assert list(classes.labels)[1:] == list(TARGETS[name].classes)
    for bits, value in enumerate(classes.values):
        target = np.array([[[bits >> c & 1]] for c in range(channels)], np.float32)
        assert classes.draw(target, np.ones_like(target)) == value
        assert classes.draw(target, np.zeros_like(target)) == classes.ignore
        for c, told in enumerate(list(classes.labels.values())[1:]):
            assert (value in np.atleast_1d(told)) == bool(bits >> c & 1)


def test_volumes_are_cases_with_the_size_of_their_voxels(config, annotated, tmp_path):
    folder = export_dataset(config, str(tmp_path), 2, "Cells", volumes=True).folder
    assert [p.name for p in sorted((folder / "imagesTr").glob("*.tif"))] == [
        "train0-0-cells-z_0000.tif",
        "val0-0-cells_0000.tif",
    ]
    with h5py.File(annotated) as file:
        raw = file["volumes/raw"][:]
    np.testing.assert_array_equal(tifffile.imread(folder / "imagesTr" / "train0-0-cells-z_0000.tif"), raw[:6])
    np.testing.assert_array_equal(tifffile.imread(folder / "imagesTs" / "test0-0-cells_0000.tif"), raw[6:])
    label = tifffile.imread(folder / "labelsTr" / "val0-0-cells.tif")
    assert label.shape == (2, 60, 70)
    assert label.dtype == np.uint8
    for part, case in (("imagesTr", "val0-0-cells"), ("labelsTr", "train0-0-cells-z"), ("imagesTs", "test0-0-cells")):
        assert json.loads((folder / part / f"{case}.json").read_text()) == {"spacing": [10.0, 10.0, 10.0]}
    assert json.loads((folder / "dataset.json").read_text())["overwrite_image_reader_writer"] == "Tiff3DIO"


def test_images_in_files_are_cases_too(tmp_path):
    config = small(next(p for p in CONFIGS if p.stem == "livecell_boundaries_nnunet"), tmp_path)
    write_data(config, tmp_path / "data")
    done = export_dataset(config, str(tmp_path / "raw"), 3, "LIVECell")
    assert (done.train, done.validate, done.test) == (2, 1, 2)
    assert io.imread(next((done.folder / "imagesTs").iterdir())).shape == (52, 70)
    with pytest.raises(InputError, match="no volumes"):
        export_dataset(config, str(tmp_path / "raw"), 4, "LIVECell", volumes=True)


def test_what_cannot_be_exported_is_told_and_nothing_is_written(config, tmp_path):
    root = str(tmp_path / "raw")
    for changes, arguments, says in (
        ({"target": "distances"}, (1, "Cells"), "target = distances is no set of classes"),
        ({}, (1000, "Cells"), "data set 1000 'Cells'"),
        ({}, (1, "a/b"), "letters, digits"),
        ({"root": "/nowhere"}, (1, "Cells"), "does not exist"),
    ):
        with pytest.raises(InputError, match=says):
            export_dataset(config.model_copy(update=changes), root, *arguments)
        assert not list(Path(root).glob("*"))
    export_dataset(config, root, 1, "Cells")
    with pytest.raises(OutputExistsError, match="has the number 1 already"):
        export_dataset(config, root, 1, "Others")
