"""Boundaries that are there already, in place of those of a network."""

from pathlib import Path

import numpy as np
import pytest
import zarr

from tests.support import digest, small_config
from vimvol.commands.segment import segment_volume
from vimvol.errors import InputError


def stored(path: Path, data: np.ndarray) -> str:
    zarr.create_array(str(path), data=data, chunks=(1, 2, 64, 64)[-data.ndim :])
    return str(path)


@pytest.fixture(scope="module")
def boundaries(reference: Path) -> np.ndarray:
    """What the network predicted, (z, y, x) uint8."""
    return zarr.open_array(str(reference / "0"), mode="r")[0]


@pytest.mark.parametrize(("dtype", "block"), [("uint8", None), ("uint16", None), ("float32", [4, 128, 144])])
def test_they_give_the_segmentation_of_the_network_they_are_of(sample, reference, boundaries, tmp_path, dtype, block):
    scaled = {"uint8": boundaries, "uint16": boundaries * np.uint16(257), "float32": boundaries / np.float32(255)}
    given = stored(tmp_path / "given.zarr", scaled[dtype])
    out = tmp_path / "out.zarr"
    segment_volume(f"{sample}:raw", str(out), small_config(predict__boundaries=given, run__block=block))
    assert digest(out) == digest(reference)


def test_the_output_of_a_run_can_be_given_and_what_is_missing_stays_background(sample, reference, tmp_path):
    config = small_config(predict__boundaries=str(reference), input__roi=[[0, 0, 0], [4, 64, 120]])
    segment_volume(f"{sample}:raw", str(tmp_path / "out.zarr"), config)
    found = zarr.open_array(str(tmp_path / "out.zarr" / "0"), mode="r")[:]
    assert not found[:, :, 64:].any()
    np.testing.assert_array_equal(found[:, :, :64], zarr.open_array(str(reference / "0"), mode="r")[:, :, :64])


def test_several_channels_are_named_and_make_cells(sample, boundaries, tmp_path):
    given = stored(tmp_path / "given.zarr", np.stack([255 - boundaries, boundaries]))
    settings = {"predict__boundaries": given, "segment__mode": "2d"}
    with pytest.raises(InputError, match=r"has 2 channels, and predict\.classes names 1 \(boundary\)"):
        segment_volume(f"{sample}:raw", str(tmp_path / "out.zarr"), small_config(**settings))
    settings["predict__classes"] = ["foreground", "boundary"]
    result = segment_volume(f"{sample}:raw", str(tmp_path / "out.zarr"), small_config(**settings))
    assert result.segments > 10


def test_a_run_goes_on_only_with_the_same_boundaries(sample, boundaries, tmp_path):
    given = stored(tmp_path / "given.zarr", boundaries)
    out = tmp_path / "out.zarr"
    segment_volume(f"{sample}:raw", str(out), small_config(predict__boundaries=given))
    other = stored(tmp_path / "other.zarr", 255 - boundaries)
    with pytest.raises(InputError, match="other settings"):
        segment_volume(f"{sample}:raw", str(out), small_config(predict__boundaries=other))


def test_what_does_not_fit_is_told(sample, boundaries, tmp_path):
    out = tmp_path / "out.zarr"
    cut = stored(tmp_path / "cut.zarr", boundaries[:, :100])
    with pytest.raises(InputError, match=r"shape \(4, 100, 120\).*\(4, 128, 120\)"):
        segment_volume(f"{sample}:raw", str(out), small_config(predict__boundaries=cut))
    wrong = boundaries / np.float32(255)
    wrong[1, 2, 3] = -1
    logits = stored(tmp_path / "logits.zarr", wrong)
    with pytest.raises(InputError, match=r"holds -1 in .*a probability is 0 to 1"):
        segment_volume(f"{sample}:raw", str(out), small_config(predict__boundaries=logits))
    whole = stored(tmp_path / "whole.zarr", boundaries)
    with pytest.raises(InputError, match="would overwrite the input"):
        segment_volume(f"{sample}:raw", whole, small_config(predict__boundaries=whole))
