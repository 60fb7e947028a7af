"""What is stale, beside what a later run has made, is told wherever it would be taken for what the output holds now."""

import json
import shlex
import shutil
from pathlib import Path

import pytest

from tests.support import digest, mistake, small_config, vimvol
from vimvol.commands.agglomerate import agglomerate
from vimvol.commands.export import export
from vimvol.commands.qa import check_seams
from vimvol.commands.score import score
from vimvol.commands.segment import Segmented, segment_volume
from vimvol.commands.status import status
from vimvol.commands.view import view
from vimvol.errors import InputError
from vimvol.outputs.beside import stale_labels_text, stale_text, stale_texts
from vimvol.outputs.manifest import finished_run

FINER = ["agglomerate.beta=0.6", "segment.min_size=30"]


@pytest.fixture(scope="module")
def made(sample: Path, reference: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Segmented]:
    """An output in which a segmentation is stale, and what the run told that made it so; not to be changed."""
    out = str(shutil.copytree(reference, tmp_path_factory.mktemp("stale") / "out.zarr"))
    agglomerate(out, FINER, name="finer", workers=0)
    assert stale_texts(out, finished_run(out), "") == {}
    return out, segment_volume(f"{sample}:raw", out, small_config(fragments__min_size=300), overwrite=True)


@pytest.fixture
def stale(made: tuple[str, Segmented]) -> str:
    return made[0]


def line_of(out: str, what: str) -> str:
    return (
        f"segmentation 'finer' of {out} is stale, as a later run has replaced the edges that it was made of, so "
        f"{what}; make it again: vimvol agglomerate {out} --name finer --set agglomerate.beta=0.6 "
        "--set segment.min_size=30"
    )


def test_the_run_that_makes_it_stale_tells_how_to_make_it_again(made: tuple[str, Segmented]) -> None:
    out, result = made
    assert line_of(out, "it does not fit the boundaries that are there now") in result.warnings
    assert status(out).beside[0].startswith("finer: stale; ")


def test_export_refuses_it_by_name_and_leaves_it_out_otherwise(stale, tmp_path, capsys, monkeypatch) -> None:
    target = tmp_path / "copy.zarr"
    code, _, err = vimvol(capsys, monkeypatch, "export", stale, target, "--name", "finer", "--workers", 0)
    line = line_of(stale, "it does not fit the boundaries that would be copied with it")
    assert (code, mistake(err)) == (2, f"error: {line}")
    assert not target.exists()
    assert export(stale, str(target), names=["segmentation"], workers=0).left_out == ()
    code, told, err = vimvol(capsys, monkeypatch, "export", stale, target, "--workers", 0)
    assert (code, "boundaries and segmentation, in" in told) == (0, True)
    assert err.splitlines()[-1] == line_of(stale, "it is left out")
    assert not (target / "labels" / "finer").exists()


def test_qa_refuses_it(stale: str) -> None:
    with pytest.raises(InputError) as refused:
        check_seams(stale, name="finer")
    assert str(refused.value) == line_of(stale, "what is stored cannot tell where its parts met")


@pytest.mark.parametrize("address", ["{}:labels/finer", "{}:labels/finer/0", "{}/labels/finer"])
def test_evaluate_warns_of_it(sample: Path, stale: str, address: str) -> None:
    line = line_of(stale, "its scores do not tell what the present settings are worth")
    for mode in ("2d", "3d"):
        assert score(address.format(stale), f"{sample}:labels", mode)["warning"] == line
    assert "warning" not in score(f"{stale}:labels/segmentation", f"{sample}:labels")


def test_view_warns_of_it_where_it_is_shown(stale: str) -> None:
    pytest.importorskip("neuroglancer")
    told: list[str] = []
    with view(stale, ["segmentation"], tell=told.append):
        assert told == []
    with view(stale, tell=told.append):
        assert told == [f"warning: {line_of(stale, 'it does not fit the boundaries and segmentations beside it')}"]


def test_the_command_that_is_told_makes_it_anew(sample, stale, tmp_path, capsys, monkeypatch) -> None:
    out = str(shutil.copytree(stale, tmp_path / "out.zarr"))
    command = stale_text(out, "finer", finished_run(out), "").partition("make it again: vimvol ")[2]
    assert vimvol(capsys, monkeypatch, *shlex.split(command), "--workers", 0)[0] == 0
    assert stale_texts(out, finished_run(out), "") == {}
    assert export(out, str(tmp_path / "copy.zarr"), names=["finer"], workers=0).labels == ("finer",)
    check_seams(out, name="finer")
    fresh = str(tmp_path / "fresh.zarr")
    segment_volume(f"{sample}:raw", fresh, small_config(fragments__min_size=300))
    agglomerate(fresh, FINER, name="finer", workers=0)
    assert digest(out) == digest(fresh)


def test_of_what_is_damaged_unknown_or_removed_nothing_is_told(stale: str, tmp_path: Path) -> None:
    out = Path(shutil.copytree(stale, tmp_path / "out.zarr"))
    manifest = finished_run(str(out))
    assert stale_text(str(out), "other", manifest, "") == stale_text(str(out), "segmentation", manifest, "") == ""
    assert stale_labels_text(str(tmp_path / "none.h5"), "volumes/labels/ids", "") == ""
    note = out / "vimvol" / "agglomerated" / "finer" / "run.json"
    whole = json.loads(note.read_text())
    shutil.move(out / "labels" / "finer", tmp_path / "finer")  # as `status` tells, it is missing
    assert stale_texts(str(out), manifest, "") == {}
    shutil.move(tmp_path / "finer", out / "labels" / "finer")
    assert list(stale_texts(str(out), manifest, "")) == ["finer"]
    for damaged in ("{", "[]", "{}", '{"state": "running", "runs": []}', json.dumps({**whole, "config": None})):
        note.write_text(damaged)
        assert stale_texts(str(out), manifest, "") == {}
