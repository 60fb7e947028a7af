"""The folder of a sample is gone in the end, whatever ended it."""

import subprocess
import sys
from pathlib import Path

from tests.support import wait_for
from vimvol.preflight.scratch import PREFIX, Scratch

LEAVES = (
    "import sys; from vimvol.preflight.scratch import Scratch; scratch = Scratch(sys.argv[1]); scratch.open(); input()"
)
"""What begins a sample and does not end."""


def test_what_a_killed_process_left_of_its_sample_goes_at_the_next_start(tmp_path: Path) -> None:
    out = str(tmp_path / "out.zarr")
    killed = subprocess.Popen(
        [sys.executable, "-c", LEAVES, out], stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    wait_for(lambda: bool(list(tmp_path.glob(f"{PREFIX}*/lock"))), killed)
    (left,) = tmp_path.iterdir()
    (left / "0").mkdir()
    unknown = tmp_path / f"{PREFIX}unknown"
    unknown.mkdir()
    with Scratch(out) as alive:
        alive.open()
        with Scratch(str(tmp_path / "other.zarr")):
            assert {path.name for path in tmp_path.iterdir()} == {left.name, unknown.name, Path(alive.folder).name}
            killed.kill()
            killed.communicate()
        with Scratch(str(tmp_path / "other.zarr")):
            assert {path.name for path in tmp_path.iterdir()} == {unknown.name, Path(alive.folder).name}
    assert list(tmp_path.iterdir()) == [unknown]
