"""A copy as OME-Zarr 0.4 holds what the output holds, is valid, and is brought up to date at little cost."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import ome_zarr_models
import pytest
import zarr
from ome_zarr_models.v04.image import Image
from ome_zarr_models.v04.image_label import ImageLabel

from tests.support import mistake, vimvol
from vimvol.commands.agglomerate import agglomerate
from vimvol.commands.export import CopyBlock, export
from vimvol.engine.recorder import Recorder
from vimvol.errors import IncompleteRunError, InputError, OutputBusyError, OutputExistsError
from vimvol.geometry import Block
from vimvol.io import describe, open_volume
from vimvol.outputs import copies
from vimvol.outputs.manifest import finished_run, write_manifest
from vimvol.outputs.ownership import owned

FINER = ["agglomerate.beta=0.6"]


@pytest.fixture(scope="module")
def out(reference: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """An output with two segmentations."""
    out = str(shutil.copytree(reference, tmp_path_factory.mktemp("export") / "out.zarr"))
    agglomerate(out, FINER, name="finer", workers=0)
    return out


@pytest.fixture(scope="module")
def copy(out: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    target = str(tmp_path_factory.mktemp("export") / "copy.zarr")
    assert export(out, target, workers=2).labels == ("segmentation", "finer")
    return target


@pytest.fixture
def copied(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Stages of the blocks that were recorded."""
    stages: list[str] = []
    original = Recorder.done

    def count(self, block, result):
        stages.append(self._ledger.stage)
        return original(self, block, result)

    monkeypatch.setattr(Recorder, "done", count)
    return stages


def _same(one: str, other: str) -> None:
    a, b = (open_volume(address, prefer="labels" if "labels" in address else "image") for address in (one, other))
    assert (a.shape, a.voxel_size, a.offset, a.voxel_size_known) == (
        b.shape,
        b.voxel_size,
        b.offset,
        b.voxel_size_known,
    )
    np.testing.assert_array_equal(a.read_channels(Block.whole(a.shape)), b.read_channels(Block.whole(b.shape)))


def test_every_array_is_that_of_the_output(out, copy):
    rows = {row.dataset: row for row in describe(copy)}
    images = ["", "labels/segmentation/", "labels/finer/"]
    assert set(rows) == {f"{image}{level}" for image in images for level in range(3)}
    for dataset, row in rows.items():
        _same(f"{out}:{dataset}", f"{copy}:{dataset}")
        assert (row.dtype, row.shards) == ("uint64" if "labels" in dataset else "uint8", None)


def test_a_copy_that_was_stopped_half_way_is_told_as_such(run, out, tmp_path, sample, monkeypatch):
    target = tmp_path / "copy.zarr"
    ground, original, asked = f"{sample}:labels", CopyBlock.__call__, []

    def stop_in_labels(self, block):
        if "labels" in self.target:
            asked.append(run("evaluate", f"{target}:labels/segmentation/0", ground))
            raise KeyboardInterrupt
        return original(self, block)

    with monkeypatch.context() as patch:
        patch.setattr(CopyBlock, "__call__", stop_in_labels)
        with pytest.raises(KeyboardInterrupt):
            export(out, str(target), workers=0)
    ((code, _, err),) = asked
    assert (code, "is being copied from" in err, "wait until that has ended" in err) == (2, True, True)
    for address in (target, f"{target}:labels/segmentation/0"):
        code, _, err = run("evaluate", address, ground)
        assert (code, mistake(err)) == (
            2,
            f"error: {target} is a copy that is not finished, so missing parts would count as errors; vimvol export "
            f"{out} {target}, with the same options, goes on with it",
        )
    code, told, err = run("info", target)
    assert (code, "labels/segmentation/0" in told) == (0, False)
    assert err.startswith(
        f"{target} is a copy that is not finished, so arrays may be missing, or empty in parts; vimvol"
    )
    export(out, str(target), names=["finer"], workers=0)
    assert "is not finished" in run("evaluate", f"{target}:labels/segmentation/0", ground)[2]
    export(out, str(target), workers=0)
    assert run("evaluate", f"{target}:labels/segmentation/0", ground)[0] == 0
    assert run("info", target)[2] == ""
    (target / "vimvol" / "export.json").write_text('{"state": "running"}')
    assert run("info", target)[::2] == (0, "")


def test_an_output_that_is_not_finished_is_listed_with_a_word_of_that(run, out, tmp_path):
    half = Path(shutil.copytree(out, tmp_path / "half.zarr"))
    assert run("info", half)[2] == ""
    with owned(str(half)):
        write_manifest(str(half), {**finished_run(str(half)), "state": "running"})
    code, told, err = run("info", half)
    assert (code, "labels/segmentation/0" in told) == (0, True)
    assert f"{half} is not finished, and no run is at it, so arrays may be missing" in err
    (half / "vimvol" / "run.json").write_text("{")
    assert run("info", half) == (0, told, "")


def test_it_is_zarr_v2_without_anything_of_v3(copy):
    assert not list(Path(copy).rglob("zarr.json"))
    metadata = json.loads(Path(copy, "labels", "finer", "0", ".zarray").read_text())
    assert (metadata["zarr_format"], metadata["dimension_separator"], metadata["fill_value"]) == (2, "/", 0)
    assert metadata["compressor"]["id"] == "blosc"


def test_ome_zarr_models_accepts_image_and_labels(copy):
    image = ome_zarr_models.open_ome_zarr(copy)
    assert isinstance(image, Image)
    assert image.attributes.multiscales[0].version == "0.4"
    assert image.labels.attributes.labels == ["segmentation", "finer"]
    labels = ome_zarr_models.open_ome_zarr(f"{copy}/labels/finer")
    assert isinstance(labels, ImageLabel)
    assert labels.attributes.image_label.source.image == "../../"


def test_ome_zarr_py_reads_image_and_labels(out, copy):
    pytest.importorskip("ome_zarr")
    from ome_zarr.io import parse_url
    from ome_zarr.reader import Reader

    nodes = {node.zarr.basename(): node for node in Reader(parse_url(copy))()}
    labels = open_volume(f"{out}:labels/segmentation/0", prefer="labels")
    np.testing.assert_array_equal(nodes["segmentation"].data[0].compute(), labels.read(Block.whole(labels.shape)))
    assert [d.shape[-3:] for d in nodes["copy.zarr"].data] == [d.shape for d in nodes["segmentation"].data]


def test_a_stopped_copy_goes_on_and_a_finished_one_copies_only_what_changed(out, copy, copied, tmp_path, monkeypatch):
    out = str(shutil.copytree(out, tmp_path / "out.zarr"))
    target = str(tmp_path / "copy.zarr")
    original, calls = CopyBlock.__call__, []

    def stop(self, block):
        calls.append(block)
        if len(calls) > 3:
            raise KeyboardInterrupt
        return original(self, block)

    monkeypatch.setattr(CopyBlock, "__call__", stop)
    with pytest.raises(KeyboardInterrupt):
        export(out, target, workers=0)
    assert "multiscales" not in zarr.open_group(target, mode="r").attrs
    monkeypatch.setattr(CopyBlock, "__call__", original)
    export(out, target, workers=0)
    whole = len(copied)
    for dataset in (row.dataset for row in describe(copy)):
        _same(f"{copy}:{dataset}", f"{target}:{dataset}")
    export(out, target, workers=0)
    assert len(copied) == whole
    agglomerate(out, ["agglomerate.beta=0.5"], name="finer", workers=0)
    calls.clear()
    monkeypatch.setattr(CopyBlock, "__call__", stop)
    with pytest.raises(KeyboardInterrupt):
        export(out, target, workers=0)
    # half of it is new
    assert "multiscales" not in zarr.open_group(f"{target}/labels/finer", mode="r").attrs
    assert "multiscales" in zarr.open_group(target, mode="r").attrs
    monkeypatch.setattr(CopyBlock, "__call__", original)
    copied.clear()
    export(out, target, workers=0)
    assert set(copied) == {f"copy labels-finer-{level}" for level in range(3)}
    assert isinstance(ome_zarr_models.open_ome_zarr(f"{target}/labels/finer"), ImageLabel)
    _same(f"{out}:labels/finer/0", f"{target}:labels/finer/0")


def test_what_was_removed_from_a_copy_is_copied_again(out, tmp_path):
    target = str(tmp_path / "copy.zarr")
    export(out, target, names=["segmentation"], workers=0)
    shutil.rmtree(Path(target, "labels", "segmentation"))
    shutil.rmtree(Path(target, "1"))
    export(out, target, names=["segmentation"], workers=0)
    for dataset in ("0", "1", "labels/segmentation/0", "labels/segmentation/2"):
        _same(f"{out}:{dataset}", f"{target}:{dataset}")


def test_other_chunks_and_numbers(out, tmp_path):
    target = str(tmp_path / "copy.zarr")
    assert export(out, target, names=["finer"], chunk=(2, 16, 24), dtype="uint32", workers=0).labels == ("finer",)
    rows = {row.dataset: row for row in describe(target)}
    assert set(rows) == {"0", "1", "2", *(f"labels/finer/{level}" for level in range(3))}
    assert (rows["0"].chunks, rows["labels/finer/0"].chunks) == ((1, 2, 16, 24), (2, 16, 24))
    assert (rows["0"].dtype, rows["labels/finer/0"].dtype) == ("uint8", "uint32")
    _same(f"{out}:labels/finer/1", f"{target}:labels/finer/1")
    before = {path: path.stat().st_mtime_ns for path in Path(target).rglob("*") if path.is_file()}
    with pytest.raises(OutputExistsError, match=r"/0 is there as uint8 .* in chunks of \(1, 2, 16, 24\), and uint8"):
        export(out, target, workers=0)
    with pytest.raises(OutputExistsError, match=r"finer/0 is there as uint32 of .* and uint64 of"):
        export(out, target, names=["finer"], chunk=(2, 16, 24), workers=0)
    assert before == {path: path.stat().st_mtime_ns for path in Path(target).rglob("*") if path.is_file()}


def test_what_does_not_fit_is_one_line_and_writes_nothing(out, tmp_path):
    target = tmp_path / "copy.zarr"
    with pytest.raises(InputError, match="no segmentation 'other'; choose of segmentation, finer"):
        export(out, str(target), names=["other"], workers=0)
    with pytest.raises(InputError, match=r"does not divide the shard .* choose one that does, as 1,16,16"):
        export(out, str(target), chunk=(3, 16, 16), workers=0)
    for chunk in ((2, 16), (0, 16, 16), (2, -16, 16)):
        with pytest.raises(InputError, match="is no shape"):
            export(out, str(target), chunk=chunk, workers=0)
    with pytest.raises(InputError, match="in one another"):
        export(out, f"{out}/copy.zarr", workers=0)
    with pytest.raises(InputError, match="give uint32 or uint64"):
        export(out, str(target), dtype="uint16", workers=0)
    assert not target.exists()
    target.mkdir()
    (target / "notes.txt").write_text("mine")
    with pytest.raises(OutputExistsError, match="no copy that vimvol made"):
        export(out, str(target), workers=0)
    assert [path.name for path in target.iterdir()] == ["notes.txt"]


def test_the_copy_of_another_output_is_left_alone_and_an_output_may_move(out, tmp_path):
    here, moved, target = (str(tmp_path / name) for name in ("here.zarr", "moved.zarr", "copy.zarr"))
    shutil.copytree(out, here)
    export(here, target, names=["segmentation"], workers=0)
    shutil.move(here, moved)
    assert export(moved, target, names=["segmentation"], workers=0).target == target
    manifest = json.loads(Path(moved, "vimvol", "run.json").read_text())
    manifest["keys"]["predict"] = "another network"
    shutil.copytree(moved, here)
    Path(here, "vimvol", "run.json").write_text(json.dumps(manifest))
    with pytest.raises(OutputExistsError, match=r"copy\.zarr is a copy of .*moved\.zarr, which would be lost"):
        export(here, target, workers=0)
    assert json.loads(Path(target, "vimvol", "export.json").read_text())["source"] == moved


def test_a_segmentation_that_the_output_has_lost_is_told_and_stays_in_the_copy(out, tmp_path, capsys, monkeypatch):
    lost, target = Path(shutil.copytree(out, tmp_path / "out.zarr")), tmp_path / "copy.zarr"
    assert export(str(lost), str(target), workers=0).kept == ()
    (lost / "vimvol" / "agglomerated" / "finer" / "run.json").write_text("{")
    code, told, _ = vimvol(capsys, monkeypatch, "export", lost, target, "--workers", 0)
    assert (code, told.splitlines()[2:]) == (0, ["also there    finer, as copied before"])
    _same(f"{out}:labels/finer/0", f"{target}:labels/finer/0")
    code, _, err = vimvol(capsys, monkeypatch, "export", lost, target, "--workers", 0, "--name", "finer")
    assert code == 2
    assert "'finer' of" in (line := mistake(err))
    assert "is not complete" in line


def test_more_segments_than_numbers(out, tmp_path, monkeypatch):
    manifest = copies.finished_run(out) | {"segments": 2**32}
    monkeypatch.setattr(copies, "finished_run", lambda _: manifest)
    with pytest.raises(InputError, match="4294967296 segments, more than uint32 can number"):
        export(out, str(tmp_path / "copy.zarr"), dtype="uint32", workers=0)


def test_an_output_that_a_run_writes_is_not_copied(out, tmp_path):
    target = tmp_path / "copy.zarr"
    with owned(out), pytest.raises(OutputBusyError, match=r"out\.zarr is being written by another run"):
        export(out, str(target), workers=0)
    assert not target.exists()


@pytest.mark.parametrize("name", ["segmentation", "finer"])
def test_what_changes_while_it_is_copied_counts_for_nothing(out, tmp_path, monkeypatch, name):
    out, target = str(shutil.copytree(out, tmp_path / "out.zarr")), str(tmp_path / "copy.zarr")
    before = str(shutil.copytree(out, tmp_path / "before.zarr"))
    original, calls = CopyBlock.__call__, []

    def change_after_the_first(self, block):
        if f"labels/{name}/0" in self.source:
            calls.append(block)
            if len(calls) == 2:
                agglomerate(out, ["agglomerate.beta=0.8"], name=name, workers=0)
        return original(self, block)

    monkeypatch.setattr(CopyBlock, "__call__", change_after_the_first)
    with pytest.raises(IncompleteRunError, match=rf"labels/{name} changed while it was copied"):
        export(out, target, workers=0)
    monkeypatch.setattr(CopyBlock, "__call__", original)
    assert "multiscales" not in zarr.open_group(f"{target}/labels/{name}", mode="r").attrs
    assert "multiscales" in zarr.open_group(target, mode="r").attrs
    # what was copied is not taken for that of the settings before, either
    export(before, target, workers=0)
    _same(f"{before}:labels/{name}/0", f"{target}:labels/{name}/0")
    export(out, target, workers=0)
    _same(f"{out}:labels/{name}/0", f"{target}:labels/{name}/0")


def test_what_changes_and_changes_back_while_it_is_copied_counts_for_nothing(out, tmp_path, monkeypatch):
    out, target = str(shutil.copytree(out, tmp_path / "out.zarr")), str(tmp_path / "copy.zarr")
    original, calls = CopyBlock.__call__, []

    def change_and_change_back(self, block):
        if "labels/finer/0" in self.source:
            calls.append(block)
            if len(calls) in (1, 5):
                agglomerate(out, ["agglomerate.beta=0.95"] if len(calls) == 1 else FINER, name="finer", workers=0)
        return original(self, block)

    monkeypatch.setattr(CopyBlock, "__call__", change_and_change_back)
    with pytest.raises(IncompleteRunError, match="labels/finer changed while it was copied"):
        export(out, target, workers=0)
    export(out, target, workers=0)
    _same(f"{out}:labels/finer/0", f"{target}:labels/finer/0")


@pytest.mark.parametrize("command", ["view", "export {} other.zarr", "qa", "agglomerate", "status"])
def test_what_a_copy_is_no_output_for_is_told(out, copy, capsys, monkeypatch, command):
    words = command.format(copy) if "{" in command else f"{command} {copy}"
    code, _, err = vimvol(capsys, monkeypatch, *words.split())
    assert code == 2
    assert mistake(err) == (
        f"error: {copy} is a copy of {out} in OME-Zarr 0.4, which vimvol export made for other viewers, and holds no "
        f"run; give {out}"
    )


@pytest.mark.parametrize("name", ["segmentation", "finer"])
def test_of_a_copy_that_was_killed_nothing_counts_once_the_output_has_changed_and_changed_back(out, tmp_path, name):
    out, target = str(shutil.copytree(out, tmp_path / "out.zarr")), str(tmp_path / "copy.zarr")
    beta = {"segmentation": "agglomerate.beta=0.25", "finer": FINER[0]}[name]
    script = f"""
import os, time
from vimvol.commands.agglomerate import agglomerate
from vimvol.commands.export import CopyBlock, export
original, calls = CopyBlock.__call__, []
def call(self, block):
    if "labels/{name}/0" in self.source:
        calls.append(block)
        if len(calls) == 1:
            agglomerate({out!r}, ["agglomerate.beta=0.95"], name={name!r}, workers=0)
        if len(calls) == 4:
            time.sleep(2)  # what is done is recorded every second
            os._exit(9)
    return original(self, block)
CopyBlock.__call__ = call
export({out!r}, {target!r}, workers=0)
"""
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 9
    assert list(Path(target, "vimvol", "ledger", f"copy labels-{name}-0").rglob("*.records"))
    agglomerate(out, [beta], name=name, workers=0)
    export(out, target, workers=0)
    _same(f"{out}:labels/{name}/0", f"{target}:labels/{name}/0")
    assert not list(Path(target, "vimvol", "begun").iterdir())


def test_what_has_nothing_left_to_copy_is_not_shown(out, tmp_path, capsys, monkeypatch):
    out, target = str(shutil.copytree(out, tmp_path / "out.zarr")), tmp_path / "copy.zarr"
    nothing = "all copied before; nothing was copied"
    _, told, first = vimvol(capsys, monkeypatch, "export", out, target, "--workers", 0)
    assert nothing not in told
    assert len(re.findall("^copy ", first, re.MULTILINE)) >= 9
    code, told, again = vimvol(capsys, monkeypatch, "export", out, target, "--workers", 0)
    assert (code, again, told.splitlines()[:-1]) == (0, f"opening {out}\n", [nothing])
    shutil.rmtree(target / "labels" / "finer" / "1")
    _, told, mended = vimvol(capsys, monkeypatch, "export", out, target, "--workers", 0)
    assert {line.split(":")[0] for line in mended.splitlines()[1:]} == {"copy labels/finer/1"}
    assert nothing not in told


def test_from_the_command_line(out, tmp_path, capsys, monkeypatch):
    target = tmp_path / "copy.zarr"
    code, told, _ = vimvol(capsys, monkeypatch, "export", out, target, "--workers", 0, "--chunk", "2,32,24")
    assert (code, told.split(",")[0]) == (0, f"OME-Zarr 0.4  {target}")
    code, _, err = vimvol(capsys, monkeypatch, "export", out, target, "--chunk", "4,x,24")
    assert code == 2
    assert "chunk '4,x,24' is no shape; write voxels along z, y, x" in mistake(err)
    code, _, err = vimvol(capsys, monkeypatch, "export", tmp_path / "none.zarr", target)
    assert code == 2
    assert "does not exist" in mistake(err)
