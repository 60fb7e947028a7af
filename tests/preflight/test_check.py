"""What does not fit is refused before anything is written."""

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support import disk_of, small_config
from vimvol.commands.plan import plan_volume
from vimvol.commands.segment import segment_volume
from vimvol.errors import InputError
from vimvol.preflight import check
from vimvol.preflight.disk import stored_bytes


def test_what_cannot_fit_is_refused_with_the_figure_and_what_to_change(sample: Path, tmp_path: Path) -> None:
    found = plan_volume(f"{sample}:raw", str(tmp_path / "out.zarr"), small_config())
    check.check_fits(found.job, found.forecast)
    limited = tuple(replace(stage, memory_limit=stage.peak) for stage in found.forecast.stages)
    little = {
        "disk": {"free": int(found.forecast.disk / 1.31)},
        "a worker is ended at": {"stages": limited},
        "of this process": {"solver": 2**60},
    }
    for text, change in little.items():
        with pytest.raises(InputError, match=text) as refused:
            check.check_fits(found.job, replace(found.forecast, **change))
        assert "\n" not in str(refused.value)
    narrow = replace(found.forecast, stages=limited)
    with pytest.raises(InputError, match=r"give a worker more memory by fewer of them with --workers"):
        check.check_fits(found.job, narrow)
    with pytest.raises(InputError, match=r"give a worker more memory by fewer cpu_workers"):
        check.check_fits(found.job, narrow, "cuda")
    # forecasts of bytes were up to a quarter too high
    close = replace(found.forecast, free=int(found.forecast.disk / 1.25))
    check.check_fits(found.job, close)
    assert check.free_text(close).endswith("which may be too little")


def test_what_a_run_replaces_is_free_again(
    sample: Path, reference: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = shutil.disk_usage(tmp_path)._replace(free=0)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: full)
    out = tmp_path / "out.zarr"
    shutil.copytree(reference, out)
    size = stored_bytes(out)
    for changes in ({"predict__batch": 3}, {"output__chunk": [1, 32, 48]}):  # the same arrays, and others
        found = plan_volume(f"{sample}:raw", str(out), small_config(**changes), overwrite=True)
        # the rest, metadata and records, is a good part of so little only
        assert 0.6 * size < found.forecast.replaced <= size
        check.check_fits(found.job, replace(found.forecast, disk=found.forecast.replaced))
    elsewhere = plan_volume(f"{sample}:raw", str(tmp_path / "other.zarr"), small_config())
    with pytest.raises(InputError, match="the disk would be full"):
        check.check_fits(elsewhere.job, elsewhere.forecast)
    # what was done already of a run that goes on stays
    shutil.rmtree(out / "vimvol" / "ledger" / "fragments")
    rest = plan_volume(f"{sample}:raw", str(out), small_config())
    assert [stage.name for stage in rest.forecast.stages if stage.left] == ["fragments"]
    assert rest.forecast.replaced <= stored_bytes(out / "vimvol" / "fragments")


def test_a_solver_that_takes_the_whole_graph_is_refused_before_anything_is_written(
    sample: Path, tmp_path: Path, sampled: None
) -> None:
    config = small_config(agglomerate__solver="average", agglomerate__memory=4000)
    with pytest.raises(InputError, match=r"solver 'average' takes the whole graph of about \d+ edges"):
        segment_volume(f"{sample}:raw", str(tmp_path / "out.zarr"), config)
    assert not list(tmp_path.iterdir())


@pytest.fixture
def tiny_disk(reference: Path, tmp_path: Path) -> Iterator[Path]:
    """A file system that holds the sample of one block, but no output."""
    with disk_of(tmp_path / "disk", reference, 1 / 2) as folder:
        yield folder


def test_a_disk_that_is_too_small_is_refused(sample: Path, tiny_disk: Path, sampled: None) -> None:
    out = str(tiny_disk / "out.zarr")
    found = plan_volume(f"{sample}:raw", out, small_config())
    for refused in (
        lambda: check.check_fits(found.job, found.forecast),
        lambda: segment_volume(f"{sample}:raw", out, small_config()),
    ):
        with pytest.raises(InputError, match=r"the disk would be full before the end; free .* more") as error:
            refused()
        assert error.value.exit_code == 2
        assert not list(tiny_disk.iterdir())
