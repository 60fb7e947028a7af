from pathlib import Path

import pytest

from tests.support import small_config
from vimvol.preflight.prepare import prepare
from vimvol.stages import keys


@pytest.mark.parametrize("given", [False, True], ids=["predicted", "given"])
def test_boundaries_of_other_loops_are_not_mixed_and_those_that_are_given_serve(
    sample: Path, ready: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: bool
) -> None:
    def made() -> dict[str, str]:
        job = prepare(f"{sample}:raw", str(tmp_path / "out.zarr"), small_config(**(ready if given else {})))
        return job.keys

    before = made()
    monkeypatch.setattr(keys, "NETWORK_FORMAT", keys.NETWORK_FORMAT + 1)
    after = made()
    assert {stage for stage in before if before[stage] != after[stage]} == (set() if given else set(before))
