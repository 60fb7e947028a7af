"""An input that lies elsewhere by now is known again, and another one is not taken for it."""

import json
import re
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile
import zarr

from tests.support import digest, mistake, settings, small_config
from vimvol.commands.agglomerate import agglomerate
from vimvol.commands.plan import plan_volume
from vimvol.commands.segment import segment_volume
from vimvol.commands.status import status
from vimvol.engine.recorder import Recorder
from vimvol.errors import InputError, OutputExistsError
from vimvol.io import Volume
from vimvol.outputs.ahead import refuse_ahead
from vimvol.outputs.manifest import STORED, input_address, read_manifest, write_manifest
from vimvol.outputs.output import new_manifest
from vimvol.preflight.prepare import prepare
from vimvol.stages.predict import PredictBlock


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Stages of the blocks that were computed and recorded."""
    stages: list[str] = []
    original = Recorder.done

    def note(self, block, result):
        stages.append(self._ledger.stage)
        return original(self, block, result)

    monkeypatch.setattr(Recorder, "done", note)
    return stages


@pytest.fixture
def raw(sample: Path, tmp_path: Path) -> Path:
    (tmp_path / "old").mkdir()
    (tmp_path / "new").mkdir()
    return Path(shutil.copytree(sample, tmp_path / "old" / "in.zarr"))


@pytest.fixture
def file(sample: Path, tmp_path: Path) -> Path:
    (tmp_path / "old").mkdir()
    (tmp_path / "new").mkdir()
    path = tmp_path / "old" / "volume.h5"
    with h5py.File(path, "w") as target:
        target["raw"] = zarr.open_array(str(sample / "raw"), mode="r")[:]
        target["raw"].attrs["resolution"] = [50.0, 4.6, 4.6]
    return path


def test_what_a_manifest_tells_of_an_input_is_looked_at_once(raw: Path, tmp_path: Path, monkeypatch) -> None:
    job = prepare(f"{raw}:raw", str(tmp_path / "out.zarr"), small_config())
    looks: list[bool] = []
    original = Volume._state

    def look(self: Volume, *, portable: bool) -> str:
        looks.append(portable)
        return original(self, portable=portable)

    monkeypatch.setattr(Volume, "_state", look)
    manifest = new_manifest(job, "")
    assert sorted(looks) == [False, True]  # of the place, and of the content alone
    assert manifest["input"]["identity"] == job.source.identity()
    assert manifest["keys"] == job.keys_of(job.source.identity())


def go(source: Path, out: Path, moved: bool = False, overwrite: bool = False, **changes: object):
    return segment_volume(f"{source}:raw", str(out), small_config(**changes), moved=moved, overwrite=overwrite)


def manifest_of(out: Path) -> dict:
    return read_manifest(str(out)) or {}


def stopped(source: Path, out: Path, blocks: int, monkeypatch: pytest.MonkeyPatch, **options: object) -> None:
    """Begin or go on with a run that is interrupted after some blocks of the prediction."""
    original, calls = PredictBlock.__call__, []

    def stop(self, block):
        calls.append(block)
        if len(calls) > blocks:
            raise KeyboardInterrupt
        return original(self, block)

    with monkeypatch.context() as patch:
        patch.setattr(PredictBlock, "__call__", stop)
        with pytest.raises(KeyboardInterrupt):
            go(source, out, **options)


def test_an_interrupted_run_goes_on_to_the_same_bytes_wherever_its_input_was_moved(
    raw: Path, reference: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recorded: list[str]
) -> None:
    out, places = tmp_path / "out.zarr", [tmp_path / "new" / name for name in ("in.zarr", "again.zarr")]
    stopped(raw, out, 2, monkeypatch)
    shutil.move(raw, places[0])
    stopped(places[0], out, 1, monkeypatch, moved=True)
    shutil.move(places[0], places[1])
    go(places[1], out, moved=True)
    assert recorded.count("predict") == len(list((reference / "0").rglob("c/*/*/*/*")))
    assert digest(out) == digest(reference)
    found = manifest_of(out)
    assert input_address(found) == status(str(out)).source == f"{places[1]}:raw"
    assert found["input"]["formerly"] == [f"{raw}:raw", f"{places[0]}:raw"]
    assert [run["state"] for run in found["runs"]] == ["stopped", "stopped", "complete"]
    assert status(str(out)).complete
    # the same command again, and the one without the option, have nothing to do
    recorded.clear()
    go(places[1], out, moved=True)
    go(places[1], out)
    assert recorded == []


def test_of_a_finished_output_nothing_but_the_place_is_written(file: Path, tmp_path: Path, recorded: list[str]) -> None:
    out, new = tmp_path / "out.zarr", tmp_path / "new" / "volume.h5"
    go(file, out)
    before, first = digest(out), manifest_of(out)
    shutil.copyfile(file, new)
    recorded.clear()
    go(new, out, moved=True)
    assert recorded == []
    found = manifest_of(out)
    assert digest(out) == before
    assert found["input"] == {**first["input"], "path": str(new), "formerly": [f"{file}:raw"]}
    assert found[STORED]["source"] == {**first[STORED]["source"], "url": str(new)}
    assert {**found, "input": 0, STORED: 0} == {**first, "input": 0, STORED: 0}
    assert not (out / "vimvol" / "lock").exists()
    # either place is known now, and the first one notes itself if that is asked for
    go(file, out)
    assert input_address(manifest_of(out)) == f"{new}:raw"
    go(file, out, moved=True)
    assert input_address(manifest_of(out)) == f"{file}:raw"
    assert recorded == []
    go(new, out, moved=True)
    file.unlink()
    assert status(str(out)).complete
    assert status(str(out), small_config()).complete
    agglomerate(str(out), ["agglomerate.beta=0.6"], workers=0)
    assert input_address(manifest_of(out)) == f"{new}:raw"
    # other settings keep what does not depend on them
    recorded.clear()
    go(new, out, overwrite=True, agglomerate__beta=0.7)
    assert recorded
    assert not {"predict", "fragments", "graph", "pyramid 1"} & set(recorded)
    assert manifest_of(out)["input"]["identity"] == first["input"]["identity"]


def test_a_change_after_the_move_is_seen(raw: Path, tmp_path: Path) -> None:
    out, new = tmp_path / "out.zarr", tmp_path / "new" / "in.zarr"
    go(raw, out)
    shutil.move(raw, new)
    go(new, out, moved=True)
    assert status(str(out)).complete
    array = zarr.open_array(str(new / "raw"), mode="r+")
    array[1] = array[1][::-1].copy()
    assert {stage.state for stage in status(str(out)).stages} == {"stale"}
    with pytest.raises(OutputExistsError, match=r"\(the input has changed\)") as told:
        go(new, out)
    assert "--moved" not in str(told.value)
    # sections that are replaced where it was moved to are made again as anywhere
    segment_volume(f"{new}:raw", str(out), small_config(), replaced=[(1, 2)])
    assert status(str(out)).complete
    assert "formerly" not in manifest_of(out)["input"]


def test_without_the_option_the_message_names_it_where_the_path_is_another(raw: Path, tmp_path: Path) -> None:
    out, new = tmp_path / "out.zarr", tmp_path / "new" / "in.zarr"
    go(raw, out)
    shutil.move(raw, new)
    places = rf"the input has changed; input\.path: {raw} -> {new}\)"
    with pytest.raises(OutputExistsError, match=rf"{places}.*--overwrite .*, or --moved if it is the same, which"):
        go(new, out)
    with pytest.raises(OutputExistsError, match="or --moved"):
        plan_volume(f"{new}:raw", str(out), small_config())
    assert plan_volume(f"{new}:raw", str(out), small_config(), moved=True).forecast.stages


@pytest.mark.parametrize("changes", [{"agglomerate__beta": 0.3}, {"predict__halo": [8, 8]}], ids=["ahead", "opened"])
def test_other_settings_and_another_place_are_told_at_once_with_what_both_need(raw, tmp_path: Path, changes) -> None:
    out, new = tmp_path / "out.zarr", tmp_path / "new" / "in.zarr"
    go(raw, out)
    shutil.move(raw, new)
    (name,) = changes
    with pytest.raises(OutputExistsError) as told:
        go(new, out, **changes)
    text = str(told.value)
    assert f"; input.path: {raw} -> {new}; {name.replace('__', '.')}: " in text
    assert text.endswith(
        "or give --overwrite to recompute what depends on that, and --moved with it if the input is the same, which "
        "keeps what does not"
    )
    with pytest.raises(OutputExistsError) as told:
        go(new, out, moved=True, **changes)
    assert "input" not in str(told.value).partition(" holds ")[2].partition("as long as")[0]
    go(new, out, moved=True, overwrite=True, **changes)


def test_a_url_lies_where_it_was_with_and_without_the_name_of_its_format(raw: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.zarr"
    go(raw, out)
    found = manifest_of(out)
    for noted, given in (("precomputed://s3://b/em", "precomputed://s3://b/em"), ("n5://s3://b/em.n5", "s3://b/em.n5")):
        write_manifest(str(out), {**found, "input": {**found["input"], "path": noted, "dataset": ""}})
        for source, told in ((given, False), (given.replace("em", "other"), True)):
            with pytest.raises(OutputExistsError) as refused:
                refuse_ahead(source, str(out), small_config(agglomerate__beta=0.3))
            assert ("the input lies elsewhere" in str(refused.value)) == told, source


def test_which_array_an_address_leaves_open_lies_nowhere_else(raw: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.zarr"
    go(raw, out)
    for address, told in ((f"{raw}", False), (f"{raw}:/raw/", False), (f"{raw}:labels", True), (f"{raw}:ra", True)):
        with pytest.raises(OutputExistsError) as refused:
            segment_volume(address, str(out), small_config(agglomerate__beta=0.3))
        assert ("input.dataset: raw -> " in str(refused.value)) == told, address


def test_it_does_not_where_other_settings_alone_are_in_the_way(raw: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.zarr"
    go(raw, out)
    region = small_config(input__roi=[[0, 0, 0], [2, 64, 64]])
    with pytest.raises(OutputExistsError, match=r"input\.roi: not set -> \[\[") as raised:
        segment_volume(f"{raw}:raw", str(out), region)
    assert "--moved" not in str(raised.value)
    assert str(raised.value).count("roi") == 1
    assert input_address(manifest_of(out)) == f"{raw}:raw"  # a plan writes nothing


def test_a_folder_is_known_by_the_times_of_its_files(raw: Path, tmp_path: Path) -> None:
    out, copy = tmp_path / "out.zarr", tmp_path / "new" / "in.zarr"
    go(raw, out)
    shutil.copytree(raw, copy, copy_function=shutil.copyfile)
    message = (
        rf"{copy}:raw has shape and dtype of {raw}:raw, of which {out} was made, but other sizes or times of files, so "
        r".* cp -rp or rsync -rt.*--overwrite$"
    )
    with pytest.raises(InputError, match=message):
        go(copy, out, moved=True)
    assert input_address(manifest_of(out)) == f"{raw}:raw"
    for path in raw.rglob("*"):
        shutil.copystat(path, copy / path.relative_to(raw))
    go(copy, out, moved=True)
    assert input_address(manifest_of(out)) == f"{copy}:raw"


def test_what_differs_of_another_input_is_told_and_not_that_it_may_have_been_moved(raw: Path, tmp_path: Path) -> None:
    out, other = tmp_path / "out.zarr", tmp_path / "new" / "other.zarr"
    go(raw, out)
    group = zarr.create_group(str(other), zarr_format=2)
    data = zarr.open_array(str(raw / "raw"), mode="r")[:3, :100]
    group.create_array("raw", data=data).attrs["resolution"] = [50.0, 4.6, 4.6]
    with pytest.raises(OutputExistsError) as told:
        go(other, out)
    shapes, places = "input.shape: (4, 128, 120) -> (3, 100, 120)", f"input.path: {raw} -> {other}"
    what = f"holds another run (the input has changed; {shapes}; {places}), which would be lost"
    assert what in str(told.value)
    assert "--moved" not in str(told.value)
    # of settings all are told, and nothing that follows from them or the input
    four = {"input__roi": [[0, 0, 0], [2, 64, 64]], "predict__tile": [32, 32], "predict__halo": [32, 32]}
    with pytest.raises(OutputExistsError) as told:
        go(other, out, **four, output__levels=2)
    names = re.findall(r"[(;] ?([a-z_.]+): ", str(told.value).partition(" holds ")[2])
    given = ["input.roi", "output.levels", "predict.halo", "predict.tile"]
    assert names == ["input.shape", "input.path", *given]
    assert "a run with other settings (the input has changed; " in str(told.value)


def test_of_many_changed_settings_it_is_told_how_many_there_are(raw: Path, tmp_path: Path) -> None:
    go(raw, tmp_path / "out.zarr")
    many = {f"agglomerate__{name}": value for name, value in {"beta": 0.3, "margin": 3, "levels": 2}.items()}
    many |= {f"fragments__{name}": value for name, value in {"alpha": 0.3, "threshold": 0.3, "sigma_seeds": 1}.items()}
    with pytest.raises(OutputExistsError, match=r"fragments.alpha: 0.9 -> 0.3; [^;]+; and 1 more\), which would"):
        go(raw, tmp_path / "out.zarr", **many)


def test_what_cannot_have_been_moved_is_refused_in_a_line_and_nothing_is_written(file: Path, tmp_path: Path) -> None:
    out, other, foreign = tmp_path / "out.zarr", tmp_path / "new" / "volume.h5", tmp_path / "foreign"
    with pytest.raises(InputError, match=r"has no earlier run, .*; run without --moved"):
        go(file, out, moved=True)
    assert not out.exists()
    foreign.mkdir()
    (foreign / "notes.txt").write_text("mine")
    with pytest.raises(OutputExistsError, match="is no output of vimvol"):
        go(file, foreign, moved=True)
    go(file, out)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    with h5py.File(file) as source:
        data = source["raw"][:]
    changed = data.copy()
    changed[2, 5, 5] ^= 1
    for content, message in (
        (data[:, :-1], r"has shape \(4, 127, 120\), and .*volume\.h5:raw, of which .* had \(4, 128, 120\), so"),
        (data.astype(np.uint16), "has dtype uint16, and .* had uint8, so"),
        (changed, "has shape and dtype of .*, but other stored bytes .*; give the unchanged data, or run without"),
    ):
        with h5py.File(other, "w") as target:
            target["raw"] = content
            target["raw"].attrs["resolution"] = [50.0, 4.6, 4.6]
        with pytest.raises(InputError, match=message):
            go(other, out, moved=True)
    shutil.copyfile(file, other)
    with pytest.raises(InputError, match=r"give --replaced alone"):
        segment_volume(f"{other}:raw", str(out), small_config(), moved=True, replaced=[(0, 1)])
    with pytest.raises(OutputExistsError, match=r"other settings \(agglomerate\.beta: 0\.25 -> 0\.7\)"):
        go(other, out, moved=True, agglomerate__beta=0.7)
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("earlier", [False, True])
def test_another_series_of_a_tiff_is_not_taken_for_the_one_that_was_moved(
    sample: Path, tmp_path: Path, earlier: bool
) -> None:
    out, old, new = tmp_path / "out.zarr", tmp_path / "old.tif", tmp_path / "new.tif"
    raw = zarr.open_array(str(sample / "raw"), mode="r")[:]
    with tifffile.TiffWriter(old) as writer:
        for series in (raw, raw[::-1]):
            writer.write(np.ascontiguousarray(series), photometric="minisblack", metadata={"axes": "ZYX"})
    config = small_config(input__voxel_size=[50.0, 4.6, 4.6])
    segment_volume(f"{old}:0", str(out), config)
    if earlier:
        found = manifest_of(out)
        del found["input"]["content"], found[STORED]
        write_manifest(str(out), found)
    old.rename(new)
    with pytest.raises(InputError, match=rf"new\.tif:1 is not the series of {old}:0, of which .*; give that"):
        segment_volume(f"{new}:1", str(out), config, moved=True)
    segment_volume(f"{new}:0", str(out), config, moved=True)
    assert input_address(manifest_of(out)) == f"{new}:0"


def test_outputs_of_earlier_versions_are_served_and_say_what_they_do_not_know(raw: Path, tmp_path: Path) -> None:
    out, new = tmp_path / "out.zarr", tmp_path / "new" / "in.zarr"
    go(raw, out)
    found = manifest_of(out)
    content = found["input"].pop("content")
    stored = found.pop(STORED)
    write_manifest(str(out), found)
    shutil.copytree(raw, new, copy_function=shutil.copyfile)
    with pytest.raises(InputError, match=r"has the shape \(its version of vimvol recorded no more\) of"):
        go(new, out, moved=True)
    shutil.rmtree(new)
    shutil.move(raw, new)
    go(new, out, moved=True)
    found = manifest_of(out)
    assert found["input"]["content"] == content
    assert found[STORED] == {**stored, "source": {**stored["source"], "url": str(new)}}


def test_on_the_command_line(run, file: Path, tmp_path: Path) -> None:
    out, new = tmp_path / "out.zarr", tmp_path / "new" / "volume.h5"
    assert run("segment", f"{file}:raw", out, *settings())[0] == 0
    file.rename(new)
    code, _, err = run("segment", f"{new}:raw", out, *settings())
    assert code == 2
    assert "--moved" in mistake(err)
    code, printed, _ = run("plan", f"{new}:raw", out, "--moved", *settings())
    assert (code, "nothing left to predict" in printed) == (0, True)
    code, printed, err = run("segment", f"{new}:raw", out, "--moved", *settings())
    assert (code, "look at it" in printed) == (0, True), err
    assert json.loads((out / "vimvol" / "run.json").read_text())["input"]["path"] == str(new)
