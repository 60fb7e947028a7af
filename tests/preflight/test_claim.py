"""An output is claimed before anything is sampled, and what was made for the claim alone does not stay."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support import Notes, digest, small_config
from vimvol.commands.agglomerate import agglomerate
from vimvol.commands.export import export
from vimvol.commands.segment import segment_volume
from vimvol.commands.status import status
from vimvol.engine.lock import read_holder
from vimvol.errors import InputError, OutputBusyError
from vimvol.io.objects import open_objects
from vimvol.preflight import check


class Asked(Notes):
    """Asks how an output stands, and runs into it, when its sample begins."""

    def __init__(self, source: str, out: Path) -> None:
        super().__init__()
        self.source, self.out, self.holder = source, out, ""

    def note(self, text: str) -> None:
        """Ask."""
        super().note(text)
        if text.startswith("plan: a sample"):
            found = status(str(self.out))
            assert found.stages == ()
            assert not found.complete
            self.holder = found.holder
            with pytest.raises(OutputBusyError):
                segment_volume(self.source, str(self.out), small_config())
            with pytest.raises(OutputBusyError):
                agglomerate(str(self.out))


def test_a_run_holds_its_output_while_it_samples(sample: Path, reference: Path, tmp_path: Path, sampled: None) -> None:
    asked = Asked(f"{sample}:raw", tmp_path / "out.zarr")
    segment_volume(asked.source, str(asked.out), small_config(), progress=asked)
    assert f"process {os.getpid()}" in asked.holder
    assert digest(asked.out) == digest(reference)


def test_a_run_that_its_sample_refuses_leaves_no_folder(
    sample: Path, tmp_path: Path, sampled: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "kept" / "empty.zarr").mkdir(parents=True)
    monkeypatch.setattr(check, "TOO_MUCH", 0.0)
    with pytest.raises(InputError, match="would be full before the end"):
        segment_volume(f"{sample}:raw", str(tmp_path / "kept" / "new" / "out.zarr"), small_config())
    with pytest.raises(InputError, match="would be full before the end"):
        segment_volume(f"{sample}:raw", str(tmp_path / "kept" / "empty.zarr"), small_config())
    assert [path.name for path in tmp_path.rglob("*")] == ["kept", "empty.zarr"]


class Leaving(Notes):
    """Looks who holds an output when workers are about to start, and breaks off."""

    def __init__(self, out: Path) -> None:
        super().__init__()
        self.out, self.holder = out, ""

    def note(self, text: str) -> None:
        """Look."""
        if text.startswith("workers: "):
            self.holder = str(read_holder(open_objects(f"{self.out}/vimvol")))
            raise KeyError


COMMANDS: dict[str, tuple[str, Callable[[str, str, Leaving], object]]] = {
    "instead": (
        "out.zarr",
        lambda out, _, asked: agglomerate(out, ["agglomerate.beta=0.4"], workers=1, progress=asked),
    ),
    "beside": (
        "out.zarr",
        lambda out, _, asked: agglomerate(out, ["agglomerate.beta=0.4"], name="b", workers=1, progress=asked),
    ),
    "export": ("copy.zarr", lambda out, copy, asked: export(out, copy, workers=1, progress=asked)),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_what_works_on_an_output_holds_what_it_writes_before_its_workers_start(
    reference: Path, tmp_path: Path, command: str
) -> None:
    out, copy = tmp_path / "out.zarr", tmp_path / "copy.zarr"
    shutil.copytree(reference, out)
    written, call = COMMANDS[command]
    asked = Leaving(tmp_path / written)
    with pytest.raises(KeyError):
        call(str(out), str(copy), asked)
    assert f"process {os.getpid()}" in asked.holder
    assert not (tmp_path / written / "vimvol" / "lock").exists()
    assert not copy.exists()
    assert digest(out) == digest(reference)
