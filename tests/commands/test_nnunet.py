"""Volumes go to nnU-Net and come back as boundaries."""

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr

from tests.support import digest, small_config
from vimvol.commands.nnunet import export_volume, import_predictions
from vimvol.commands.segment import segment_volume
from vimvol.errors import InputError, OutputExistsError
from vimvol.io import open_volume

BOUNDARY = {"labels": {"background": 0, "boundary": 1, "ignore": 2}}
REGIONS = {"labels": {"background": 0, "foreground": [1, 2], "boundary": [2, 3]}, "regions_class_order": [1, 2]}


@pytest.fixture
def predicted(tmp_path: Path) -> Path:
    """A folder as nnU-Net leaves it, but for the predictions."""
    folder = tmp_path / "predicted"
    folder.mkdir()
    (folder / "dataset.json").write_text(json.dumps(BOUNDARY))
    (folder / "plans.json").write_text("{}")
    return folder


@pytest.fixture(scope="module")
def boundaries(reference: Path) -> np.ndarray:
    return zarr.open_array(str(reference / "0"), mode="r")[0]


def probabilities(boundaries: np.ndarray) -> np.ndarray:
    """Softmax of background and boundary, (2, ...) float32."""
    inside = boundaries / np.float32(255)
    return np.stack([1 - inside, inside])


def test_predicted_slices_make_the_segmentation_of_their_boundaries(sample, reference, boundaries, tmp_path, predicted):
    assert export_volume(f"{sample}:raw", str(tmp_path / "input")) == 4
    files = sorted((tmp_path / "input").iterdir())
    raw = zarr.open_array(str(sample / "raw"), mode="r")[:]
    for z, path in enumerate(files):
        np.testing.assert_array_equal(tifffile.imread(path), raw[z])
        case = path.name.removesuffix("_0000.tif")
        np.savez_compressed(predicted / f"{case}.npz", probabilities=probabilities(boundaries[z])[:, None])
        tifffile.imwrite(predicted / f"{case}.tif", (boundaries[z] > 127).astype(np.uint8))
        (predicted / f"{case}.pkl").write_bytes(b"never read")
    done = import_predictions(str(predicted), f"{sample}:raw", str(tmp_path / "boundaries.zarr"))
    assert done.classes == ("boundary",)
    given, source = open_volume(done.out), open_volume(f"{sample}:raw")
    assert (given.shape, given.voxel_size) == (source.shape, source.voxel_size)
    segment_volume(f"{sample}:raw", str(tmp_path / "out.zarr"), small_config(predict__boundaries=done.out))
    assert digest(tmp_path / "out.zarr") == digest(reference)
    assert {p.name for p in tmp_path.iterdir()} == {"input", "predicted", "boundaries.zarr", "out.zarr"}


def test_a_volume_that_is_one_case(sample, boundaries, tmp_path, predicted):
    assert export_volume(f"{sample}:raw", str(tmp_path / "input"), volumes=True) == 1
    assert {p.name for p in (tmp_path / "input").iterdir()} == {"sample_0000.tif", "sample.json"}
    assert json.loads((tmp_path / "input" / "sample.json").read_text()) == {"spacing": [50.0, 4.6, 4.6]}
    np.savez_compressed(predicted / "sample.npz", probabilities=probabilities(boundaries))
    done = import_predictions(str(predicted), f"{sample}:raw", str(tmp_path / "boundaries.zarr"))
    np.testing.assert_array_equal(zarr.open_array(f"{done.out}/0", mode="r")[0], boundaries)


@pytest.mark.parametrize("kind", ["npz", "tif"])
def test_regions_are_channels_by_their_names(sample, tmp_path, predicted, kind):
    (predicted / "dataset.json").write_text(json.dumps(REGIONS))
    label = np.random.default_rng(0).integers(0, 4, (4, 128, 120)).astype(np.uint8)
    regions = np.stack([np.isin(label, [1, 2]), np.isin(label, [2, 3])])
    for z in range(4):
        if kind == "npz":
            np.savez(predicted / f"sample_z{z:05d}.npz", probabilities=regions[:, z : z + 1].astype(np.float16))
        else:
            tifffile.imwrite(predicted / f"sample_z{z:05d}.tif", label[z])
    done = import_predictions(str(predicted), f"{sample}:raw", str(tmp_path / "boundaries.zarr"))
    assert done.classes == ("foreground", "boundary")
    np.testing.assert_array_equal(zarr.open_array(f"{done.out}/0", mode="r")[:], regions * np.uint8(255))


def test_what_does_not_fit_is_told_and_nothing_is_left(sample, tmp_path, predicted):
    out = tmp_path / "boundaries.zarr"

    def refused(says: str) -> None:
        with pytest.raises(InputError, match=says) as caught:
            import_predictions(str(predicted), f"{sample}:raw", str(out))
        assert "\n" not in str(caught.value)
        assert not [path for path in tmp_path.iterdir() if out.name in path.name]

    for z in (0, 1, 3):
        np.savez(predicted / f"sample_z{z:05d}.npz", probabilities=np.zeros((2, 1, 128, 120), np.float32))
    refused("the 4 slices of .*slice 2 is missing")
    last = predicted / "sample_z00002.npz"
    np.savez(last, probabilities=np.zeros((2, 1, 128, 100), np.float32))
    refused(r"shape \(2, 1, 128, 100\) and should have \(2, 1, 128, 120\)")
    np.savez(last, probabilities=np.full((2, 1, 128, 120), 3, np.float32))
    refused("no probabilities")
    last.write_bytes(b"PK nothing")
    refused("cannot be read")
    np.savez(last, softmax=np.zeros(1))
    refused("cannot be read")
    np.savez(predicted / "sample_z00004.npz", probabilities=np.zeros(1))
    refused("sample_z00004.npz is too much")
    (predicted / "dataset.json").unlink()
    refused("dataset.json is missing")
    out.mkdir()
    with pytest.raises(OutputExistsError, match="is there already"):
        import_predictions(str(predicted), f"{sample}:raw", str(out))
    with pytest.raises(OutputExistsError, match="is there already"):
        export_volume(f"{sample}:raw", str(predicted))


def test_an_output_is_not_taken_for_the_image_that_it_was_made_of(sample, reference, tmp_path):
    told = f"0 is what vimvol segment made of {sample}:raw, boundaries and no intensities"
    with pytest.raises(InputError, match=told):
        export_volume(str(reference), str(tmp_path / "cases"))
    with pytest.raises(InputError, match=told):
        segment_volume(f"{reference}:0", str(tmp_path / "out.zarr"), small_config())
    assert not list(tmp_path.iterdir())
