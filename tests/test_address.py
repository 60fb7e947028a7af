"""What is told of a path that is not there, or cannot be looked at, is one line."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from vimvol.address import check_output_there, check_there, mistaken_text, no_output, parse_address
from vimvol.errors import InputError

NOBODY = 65534


@pytest.mark.parametrize("name", ["x" * 300, "x" * 300 + "/raw.h5", "~no-such-user/raw.h5"])
def test_what_can_be_no_path_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    assert parse_address(f"{name}:raw") == (name, "raw")
    with pytest.raises(InputError, match=f"{name} does not exist; {tmp_path} has no '{name.split('/')[0]}': check"):
        check_there(f"{name}:raw")
    with pytest.raises(InputError, match=f"^{tmp_path}/{name} does not exist|^{name} does not exist"):
        check_output_there(name)


def test_a_dataset_may_have_a_name_that_no_file_can_have(tmp_path: Path) -> None:
    file = tmp_path / "raw.h5"
    file.touch()
    assert parse_address(f"{file}:{'x' * 300}") == (str(file), "x" * 300)
    check_there(f"{file}:{'x' * 300}")


@pytest.mark.skipif(os.name != "posix" or os.getuid() != 0, reason="only root can become who lacks the right")
@pytest.mark.parametrize("check", ["check_there", "check_output_there"])
def test_a_folder_that_may_not_be_entered_is_told(tmp_path: Path, check: str) -> None:
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o700)
    (locked / "raw.h5").touch()
    script = (
        "import os, vimvol.address as address\n"
        f"from vimvol.errors import InputError\nos.chdir({str(tmp_path)!r})\nos.setuid({NOBODY})\n"
        f"try: address.{check}('locked/raw.h5')\nexcept InputError as error: print(error)\n"
    )
    told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert "raw.h5 lies in a folder that may not be entered; ask for the right" in told.stdout, told.stderr


def test_what_is_wrong_with_the_path_of_an_output(tmp_path: Path) -> None:
    (tmp_path / "volume.zarr").mkdir()
    whole = str(tmp_path / "volume.zarr")
    assert mistaken_text(whole) == ""
    assert mistaken_text("s3://bucket/volume.zarr") == ""
    assert mistaken_text(str(tmp_path / "else")) == ""
    assert f"give the output of a run alone, {whole}, and" in mistaken_text(f"{whole}:labels/segmentation")
    assert "there is volume.zarr: did you mean that?" in mistaken_text(str(tmp_path / "volumes.zarr"))
    assert str(no_output(f"{whole}:labels/segmentation")) == mistaken_text(f"{whole}:labels/segmentation")
    assert "run vimvol segment first" in str(no_output(str(tmp_path / "else")))
