"""What of stored data the identity of a volume depends on."""

import os
import shutil
import tempfile
from pathlib import Path

import h5py
import numpy as np
import pytest
import zarr

from vimvol.io import open_volume

RAW = np.random.default_rng(0).integers(0, 256, (12, 100, 100), dtype=np.uint8)


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_a_change_anywhere_in_many_files_is_seen(tmp_path: Path, zarr_format: int) -> None:
    array = zarr.create_array(
        str(tmp_path / "a.zarr"), shape=(2600, 4, 4), chunks=(1, 4, 4), dtype="u1", zarr_format=zarr_format
    )
    array[:] = 1
    volume = open_volume(str(tmp_path / "a.zarr"))
    before = volume.identity()
    assert before == volume.identity()
    for z in (0, 500, 2100, 2580):
        array[z : z + 2] = 7
        assert volume.identity() != before
        before = volume.identity()


@pytest.mark.parametrize("options", [{}, {"chunks": (4, 32, 32)}, {"chunks": (4, 32, 32), "compression": "gzip"}])
@pytest.mark.parametrize("sampled", [False, True])
def test_of_hdf5_only_the_dataset_counts(
    tmp_path: Path, options: dict, sampled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if sampled:
        monkeypatch.setattr("vimvol.io.formats.hdf5._SAMPLE", 128)
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("raw", data=RAW, **options)
        file.create_dataset("other", data=RAW)
    volume = open_volume(f"{path}:raw")
    before = volume.identity()
    with h5py.File(path, "a") as file:
        file["proofread"] = np.zeros((2, 2), np.uint8)
        file["other"][3] = 0
        del file["other"]
    assert volume.identity() == before
    for z in (0, 5, 11):
        with h5py.File(path, "r+") as file:
            file["raw"][z] = 255 - file["raw"][z]
        assert volume.identity() != before
        before = volume.identity()


def test_hdf5_that_is_stored_elsewhere_or_nowhere_has_an_identity(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("empty", shape=(3, 40, 40), dtype="u1")
        file.create_dataset("unwritten", shape=(3, 40, 40), dtype="u1", chunks=(1, 40, 40), fillvalue=3)
        file.create_dataset("outside", data=RAW, external=[(str(tmp_path / "raw.bin"), 0, RAW.nbytes)])
        layout = h5py.VirtualLayout((3, 40, 40), "u1")
        layout[:] = h5py.VirtualSource(file["empty"])
        file.create_virtual_dataset("virtual", layout)
    with h5py.File(tmp_path / "b.h5", "w", userblock_size=512) as file:
        file["raw"] = RAW
    names = [f"a.h5:{name}" for name in ("empty", "unwritten", "outside", "virtual")]
    found = {open_volume(f"{tmp_path}/{name}").identity() for name in (*names, "b.h5:raw")}
    assert len(found) == 5


def test_the_content_is_that_of_a_copy_on_another_disk_too(tmp_path: Path) -> None:
    original = tmp_path / "a.zarr"
    array = zarr.create_array(str(original), shape=(2600, 4, 4), chunks=(1, 4, 4), dtype="u1", zarr_format=2)
    array[:] = 1
    with tempfile.TemporaryDirectory() as disk:
        copy = Path(shutil.copytree(original, Path(disk) / "a.zarr"))
        if copy.stat().st_size == original.stat().st_size:
            pytest.skip("folders have one size here and there, so both are the same disk or file systems alike")
        one, other = (open_volume(str(path)) for path in (original, copy))
        assert other.identity_at(str(original), "") != one.identity()
        assert other.content() == one.content()
        # what is not the size of a folder counts
        (copy / "2000.0.0").touch()
        changed = other.content()
        os.utime(copy)
        assert one.content() not in (changed, other.content())
