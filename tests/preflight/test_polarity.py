"""Inverted intensities are noticed, and give what the others give when the run is told."""

from pathlib import Path

import h5py
import numpy as np
import pytest
import zarr

from tests.support import small_config
from vimvol.commands.segment import segment_volume
from vimvol.geometry import Block
from vimvol.infer.standardization import Standardization
from vimvol.io import open_volume
from vimvol.io.arrays import read_box
from vimvol.preflight.polarity import BRIGHT, weight_of_dark_ridges
from vimvol.preflight.prepare import prepare


@pytest.fixture(scope="module")
def inverted(sample: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The sample with bright membranes."""
    group = zarr.open_group(sample, mode="r")
    path = tmp_path_factory.mktemp("inverted") / "in.h5"
    with h5py.File(path, "w") as file:
        stored = file.create_dataset("raw", data=255 - group["raw"][:])
        stored.attrs["resolution"] = open_volume(f"{sample}:raw").voxel_size
    return f"{path}:raw"


def test_bright_membranes_weigh_less(sample: Path, inverted: str) -> None:
    dark, bright = (weight_of_dark_ridges(open_volume(address)) for address in (f"{sample}:raw", inverted))
    assert dark > 1 / BRIGHT
    assert bright == pytest.approx(1 / dark, rel=1e-3)


@pytest.mark.parametrize("name", ["vnc_stack1_z00-14", "vnc_stack2_z00-13_raw", "fib25_sample1_raw"])
def test_membranes_of_real_volumes_are_dark(shared: Path, name: str) -> None:
    assert weight_of_dark_ridges(open_volume(f"{shared / 'data' / name}.h5:volumes/raw")) > 1 / BRIGHT


def test_nothing_is_said_of_what_has_no_contrast(tmp_path: Path) -> None:
    zarr.create_array(tmp_path / "a.zarr", shape=(3, 300, 300), dtype="uint8", chunks=(3, 300, 300))[:] = 7
    assert weight_of_dark_ridges(open_volume(str(tmp_path / "a.zarr"))) is None


def test_what_is_not_finite_does_not_count(sample: Path, tmp_path: Path) -> None:
    raw = zarr.open_group(sample, mode="r")["raw"][:].astype(np.float32)
    raw[:, :20], raw[0, 30, 30] = np.nan, np.inf
    array = zarr.create_array(tmp_path / "a.zarr", shape=raw.shape, dtype=raw.dtype, chunks=raw.shape)
    array[:] = raw
    assert weight_of_dark_ridges(open_volume(str(tmp_path / "a.zarr"))) > 1 / BRIGHT


def test_a_run_warns_unless_it_is_told(sample: Path, inverted: str, tmp_path: Path) -> None:
    for source, given, warned in (
        (inverted, {}, True),
        (f"{sample}:raw", {}, False),
        (inverted, {"predict__invert": True}, False),
        (inverted, {"predict__invert": False}, False),
    ):
        told: list[str] = []
        prepare(source, str(tmp_path / "out.zarr"), small_config(**given), tell=told.append)
        assert any("are bright rather than dark" in text for text in told) == warned


def test_the_network_sees_the_same_whichever_is_stored() -> None:
    box = Block((0, 0, 0), (2, 8, 8))
    raw = np.random.default_rng(0).integers(0, 256, box.shape, dtype=np.uint8)
    for plain, turned, span in (
        (Standardization((90.0,), (20.0,)), Standardization((165.0,), (20.0,)), 0.0),
        (Standardization((90.0, 80.0), (20.0, 10.0)), Standardization((165.0, 175.0), (20.0, 10.0)), 0.0),
        (Standardization((0.0,), (255.0,)), Standardization((0.0,), (255.0,)), 1.0),
    ):
        seen = turned.inverted(span).apply(255 - raw, box)
        np.testing.assert_allclose(seen, plain.apply(raw, box), atol=1e-6)


def test_inverted_intensities_give_the_same_segmentation(
    sample: Path, inverted: str, reference: Path, tmp_path
) -> None:
    out = str(tmp_path / "out.zarr")
    segment_volume(inverted, out, small_config(predict__invert=True))
    whole = Block.whole((1, *open_volume(inverted).shape))
    ours, other = (read_box(f"{place}/0", whole).astype(int) for place in (out, reference))
    assert np.abs(ours - other).max() <= 3  # mean and deviation are not quite the same, as 0 counts as missing
