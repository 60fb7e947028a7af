"""Prediction averaged over orientations of a slice, in whole runs."""

import json
from pathlib import Path

import numpy as np
import pytest
import zarr

from tests.support import digest, small_config
from vimvol.commands.segment import segment_volume
from vimvol.errors import InputError
from vimvol.geometry import Block
from vimvol.preflight.prepare import prepare
from vimvol.stages.predict import PredictBlock


def test_the_setting_counts_for_what_follows_from_it(sample, tmp_path: Path) -> None:
    jobs = [prepare(f"{sample}:raw", str(tmp_path / "x"), small_config(predict__augment=a)) for a in ("none", "flips")]
    jobs.append(prepare(f"{sample}:raw", str(tmp_path / "x"), small_config(predict__augment="all")))
    assert all(len({job.keys[stage] for job in jobs}) == 3 for stage in jobs[0].keys)


def test_an_output_that_knows_nothing_of_the_setting_goes_on_without_it_alone(
    sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As those of earlier versions are."""
    out, roi = tmp_path / "out.zarr", {"input__roi": [[0, 0, 0], [1, 64, 64]]}
    segment_volume(f"{sample}:raw", str(out), small_config(**roi))
    manifest = json.loads((out / "vimvol" / "run.json").read_text())
    del manifest["config"]["predict"]["augment"]
    (out / "vimvol" / "run.json").write_text(json.dumps(manifest | {"state": "running"}))
    before, once = digest(out), zarr.open_array(str(out / "0"), mode="r")[:].astype(int)

    def refuse(self: PredictBlock, block: Block) -> None:
        raise AssertionError("predicted again")

    with monkeypatch.context() as patch:
        patch.setattr(PredictBlock, "__call__", refuse)
        segment_volume(f"{sample}:raw", str(out), small_config(**roi))
    assert digest(out) == before
    averaged = small_config(**roi, predict__augment="flips")
    with pytest.raises(InputError, match=r"predict\.augment: none -> flips"):
        segment_volume(f"{sample}:raw", str(out), averaged)
    segment_volume(f"{sample}:raw", str(out), averaged, overwrite=True)
    mean = zarr.open_array(str(out / "0"), mode="r")[:].astype(int)
    assert (once != mean).any()
    # of the same boundaries
    assert np.corrcoef(once.ravel(), mean.ravel())[0, 1] > 0.9


def test_boundaries_that_are_given_are_shown_in_no_orientation(sample, tmp_path: Path) -> None:
    given = small_config(predict__boundaries=f"{sample}:raw", predict__augment="flips")
    with pytest.raises(InputError, match=r"taken as they are, so predict\.augment = flips would change nothing"):
        prepare(f"{sample}:raw", str(tmp_path / "out.zarr"), given)
