import json
import re

import h5py
import numpy as np
import pytest
import tifffile
import torch
from pydantic import ValidationError

from vimvol.config import TrainConfig, TrainImages
from vimvol.errors import InputError
from vimvol.io import open_volume
from vimvol.preflight.survey import survey
from vimvol.train.dataset import CropDataset, SliceDataset, check_patch
from vimvol.train.sources import load_data, load_test_data
from vimvol.train.targets import TARGETS

SQUARE = (10, 10, 40, 10, 40, 40, 10, 40)
"""An outline, x and y in turn."""


def with_volume(config: TrainConfig, **changes: object) -> TrainConfig:
    volume = config.volumes[0].model_copy(update=changes)
    return config.model_copy(update={"volumes": (volume,)})


def test_planes_and_validation_slices_are_cut_from_their_ranges(config):
    data = load_data(config)
    assert [s.raw.shape for s in data.train] == [(6, 60, 70), (60, 6, 70)]
    assert [s.raw.shape for s in data.validate] == [(2, 60, 70)]
    assert data.shares == (0.5, 0.5)
    assert data.voxel_sizes == ((10.0, 10.0, 10.0),)


def test_no_plane_holds_a_voxel_to_validate_on(config, annotated):
    """Other data there, with the same statistics, change nothing that is trained on."""
    with h5py.File(annotated) as source, h5py.File(annotated.parent / "other.h5", "w") as target:
        for name in ("volumes/raw", "volumes/labels/neuron_ids"):
            volume = source[name][:]
            volume[6:] = volume[6:, ::-1, ::-1]
            target[name] = volume
    other = with_volume(config, raw="other.h5:volumes/raw", labels="other.h5:volumes/labels/neuron_ids")
    for before, after in zip(load_data(config).train, load_data(other).train, strict=True):
        np.testing.assert_array_equal(before.labels, after.labels)
        np.testing.assert_array_equal(before.raw, after.raw)


def test_a_volume_may_validate_alone(config):
    """A specimen that the training never sees tells what the network is worth on the next."""
    seen, unseen = config.volumes[0], config.volumes[0].model_copy(update={"train": None, "validate_": (0, 8)})
    data = load_data(config.model_copy(update={"volumes": (seen, unseen)}))
    assert len(data.train) == len(data.shares) == len(seen.planes)
    assert sum(data.shares) == pytest.approx(1)
    assert len(data.validate) == 2
    assert len(data.validate[1]) == 8
    with pytest.raises(ValidationError, match="no volume says which slices to train on"):
        TrainConfig(out="out", volumes=(unseen,))


def test_intensities_have_mean_0_and_deviation_1_over_the_volume(config):
    whole = with_volume(config, train=(0, 8), validate_=None, planes=("z",))
    sections = load_data(whole).train[0]
    values = np.stack([sections.read(i).standardised() for i in range(8)])
    assert values.mean() == pytest.approx(0, abs=1e-4)
    assert values.std() == pytest.approx(1, abs=1e-4)


def test_padding_is_no_contrast_as_when_segmenting(config, annotated):
    """A black margin changes nothing but itself: the predictor leaves it out of mean and deviation as well."""
    with h5py.File(annotated) as source, h5py.File(annotated.parent / "padded.h5", "w") as target:
        raw, labels = (source[f"volumes/{name}"][:].clip(1) for name in ("raw", "labels/neuron_ids"))
        target["raw"], target["labels"] = (np.pad(a, ((0, 0), (20, 20), (30, 30))) for a in (raw, labels))
        target["inside"] = raw
    padded = load_data(with_volume(config, raw="padded.h5:raw", labels="padded.h5:labels", planes=("z",))).train[0]
    inside = load_data(with_volume(config, raw="padded.h5:inside", planes=("z",))).train[0]
    np.testing.assert_array_equal(padded.read(0).standardised()[20:-20, 30:-30], inside.read(0).standardised())
    taken = survey(open_volume(str(annotated.parent / "padded.h5:raw")), "volume")
    assert (padded.mean, padded.std) == pytest.approx((taken.mean[0], taken.std[0]))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_intensities_that_are_no_numbers_are_refused_before_the_loss_is_none(config, annotated, bad):
    path = annotated.parent / f"bad{bad}.h5"
    with h5py.File(annotated) as source, h5py.File(path, "w") as target:
        raw = source["volumes/raw"][:].astype(np.float32)
        raw[7, 0, :2] = bad, -bad
        target["raw"] = raw
    with pytest.raises(InputError, match=r"bad.*:raw holds NaN or infinity.* store 0 there"):
        load_data(with_volume(config, raw=f"{path.name}:raw"))


def test_gaps_are_closed_for_training_and_kept_for_scoring(config):
    data = load_data(with_volume(config, train=(0, 2), validate_=(2, 3)))
    assert (data.train[0].labels > 0).all()
    data = load_data(with_volume(config, train=(2, 3), validate_=(0, 2)))
    assert (data.validate[0].labels == 0).any()


@pytest.mark.parametrize("target", TARGETS)
def test_instances_grow_into_gaps_and_never_into_a_background_that_is_learned(config, tmp_path, target):
    """Alike in training and validation, of volumes and of images."""
    outline = {"id": 1, "image_id": 0, "category_id": 1, "iscrowd": 0, "area": 800, "segmentation": [SQUARE]}
    image = {"id": 0, "file_name": "a.tif", "height": 60, "width": 70}
    (tmp_path / "a.json").write_text(json.dumps({"images": [image], "annotations": [outline]}))
    tifffile.imwrite(tmp_path / "a.tif", np.arange(60 * 70, dtype=np.uint16).reshape(60, 70))
    coco = str(tmp_path / "a.json")
    images = TrainImages(folder=str(tmp_path), train=coco, validate=coco)
    config = config.model_copy(update={"target": target, "images": (images,)})
    trained = [load_data(with_volume(config, train=(0, 1), validate_=(7, 8), planes=("z",))).train[0]]
    whole = load_data(with_volume(config, train=(6, 7), validate_=(0, 1), planes=("z",)))
    trained.append(whole.train[-1])
    for learned, judged in zip(trained, whole.validate, strict=True):
        labels, item = learned.read(0).labels, SliceDataset(judged, config)[0]
        wanted, weight = TARGETS[target].draw(labels, config.boundary_width)
        np.testing.assert_array_equal(item["target"], wanted)
        np.testing.assert_array_equal(item["weight"], weight)
        annotated = item["labels"].numpy()
        assert (annotated == 0).any()
        assert ((labels > 0).sum() > (annotated > 0).sum()) == (target == "boundary")


def test_a_crop_depends_on_seed_and_number_alone(config):
    data = load_data(config)
    first, second = CropDataset(data, config, 0, 8), CropDataset(data, config, 4, 8)
    assert len(first) == 8
    for key in ("image", "target", "weight"):
        first[1]
        torch.testing.assert_close(second[1][key], first[5][key], rtol=0, atol=0)
        assert first[5][key].shape == (1, 32, 32)
        assert first[5][key].dtype == torch.float32
    other = CropDataset(data, config.model_copy(update={"seed": 1}), 0, 8)
    assert not torch.equal(other[5]["image"], first[5]["image"])
    assert set(first[5]["target"].unique().tolist()) <= {0.0, 1.0}


def test_boundaries_are_dark(config):
    """Image and target belong to each other after all augmentation."""
    crops = CropDataset(load_data(config), config, 0, 20)
    gap = [float(c["image"][c["target"] > 0].mean() - c["image"][c["target"] == 0].mean()) for c in crops]
    assert np.mean(gap) < -0.5


def test_a_validation_slice_keeps_its_shape_and_labels(config):
    item = SliceDataset(load_data(config).validate[0], config)[0]
    assert item["image"].shape == item["target"].shape == item["weight"].shape == (1, 60, 70)
    assert item["labels"].shape == (60, 70)


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"raw": "missing.h5:volumes/raw"}, ["missing.h5", "does not exist"]),
        ({"labels": "cells.h5:volumes/labels/no"}, ["volumes/labels/no"]),
        ({"train": (0, 9)}, ["[0, 9]", "8"]),
        ({"train": (3, 3)}, ["[3, 3]"]),
        ({"train": (0, 7)}, ["[0, 7]", "[6, 8]", "share"]),
        ({"test": (5, 6)}, ["[0, 6]", "test = [5, 6]", "share"]),
        ({"raw": "sample_A_20160501.hdf:volumes/raw"}, ["vimvol download cremi", "https://cremi.org"]),
    ],
)
def test_what_does_not_fit_is_told_in_one_line(config, changes, parts):
    with pytest.raises(InputError) as error:
        load_data(with_volume(config, **changes))
    message = str(error.value)
    assert "\n" not in message
    assert all(part in message for part in parts), message


def test_devices_divide_validation_slices(config):
    source = load_data(config).validate[0]
    parts = [SliceDataset(source, config, rank, 3) for rank in range(3)]
    assert [len(part) for part in parts] == [1, 1, 0]
    assert torch.equal(parts[1][0]["image"], SliceDataset(source, config)[1]["image"])


def test_reported_are_test_slices_else_those_of_validation(config):
    apart = with_volume(config, train=(0, 5), validate_=(5, 6), test=(6, 8))
    assert [len(source) for source in load_test_data(apart)] == [2]
    assert [len(source) for source in load_test_data(with_volume(config, validate_=(7, 8)))] == [1]
    assert not load_test_data(with_volume(config, validate_=None))


def test_large_ids_are_renumbered_in_their_order(config, annotated):
    with h5py.File(annotated) as file:
        stored = file["volumes/labels/neuron_ids"][6:8]
    labels = load_data(config).validate[0].labels
    pairs = np.unique(np.stack([labels.ravel(), stored.ravel().astype(np.int64)]), axis=1)
    assert len(np.unique(pairs[0])) == len(np.unique(pairs[1])) == pairs.shape[1]
    assert (np.diff(pairs[1][np.argsort(pairs[0])]) > 0).all()
    assert labels.max() < 100
    assert ((labels == 0) == (stored == 0)).all()


def test_another_shape_of_labels_is_told(config, annotated):
    path = annotated.parent / "small.h5"
    with h5py.File(path, "w") as file:
        file["labels"] = np.ones((8, 60, 60), np.uint32)
    with pytest.raises(InputError, match=r"\(8, 60, 70\).*\(8, 60, 60\)"):
        load_data(with_volume(config, labels="small.h5:labels"))


@pytest.mark.parametrize(("what", "labelled"), [("train", slice(6, 8)), ("validate", slice(0, 6))])
def test_slices_without_a_label_are_refused(config, annotated, what, labelled):
    """Their loss would be 0, the best there is."""
    path = annotated.parent / f"empty-{what}.h5"
    with h5py.File(annotated) as source, h5py.File(path, "w") as target:
        labels = np.zeros((8, 60, 70), np.uint64)
        labels[labelled] = source["volumes/labels/neuron_ids"][labelled]
        target["labels"] = labels
    with pytest.raises(InputError, match=rf"empty-{what}.h5:labels is 0 in all . slices looked at of {what} = \["):
        load_data(with_volume(config, labels=f"{path.name}:labels"))


def test_a_crop_that_the_network_cannot_halve_is_refused():
    check_patch((64, 96), 16)
    check_patch((16, 32), 16)
    check_patch((1, 1), 1)
    for patch, good in (((60, 64), "[64, 64]"), ((16, 16), "[32, 32]"), ((20, 3), "[32, 32]")):
        with pytest.raises(InputError, match=re.escape(f"patch = {list(patch)} cannot be halved")) as caught:
            check_patch(patch, 16)
        assert str(caught.value).endswith(f"a multiple of 16, and more than one such square; take for example {good}")
