"""An output is claimed before anything is sampled, and what was made for the claim alone does not stay."""

import os
from pathlib import Path

import pytest

from tests.support import Notes, digest, small_config
from vimvol.commands.segment import segment_volume
from vimvol.commands.status import status
from vimvol.errors import InputError, OutputBusyError
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


def test_a_run_holds_its_output_while_it_samples(sample: Path, reference: Path, tmp_path: Path, sampled: None) -> None:
    asked = Asked(f"{sample}:raw", tmp_path / "out.zarr")
    segment_volume(asked.source, str(asked.out), small_config(), progress=asked)
    assert f"process {os.getpid()}" in asked.holder
    assert digest(asked.out) == digest(reference)


def test_a_run_that_its_sample_refuses_leaves_no_folder(
    sample: Path, tmp_path: Path, sampled: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "kept").mkdir()
    monkeypatch.setattr(check, "TOO_MUCH", 0.0)
    with pytest.raises(InputError, match="would be full before the end"):
        segment_volume(f"{sample}:raw", str(tmp_path / "kept" / "new" / "out.zarr"), small_config())
    assert [path.name for path in tmp_path.rglob("*")] == ["kept"]
