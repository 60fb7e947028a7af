import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import zarr
from PIL import Image

from tests.support import random_network, small_config
from vimvol.commands.agglomerate import agglomerate
from vimvol.commands.qa import check_seams
from vimvol.commands.segment import segment_volume
from vimvol.errors import InputError
from vimvol.geometry import Block
from vimvol.outputs.manifest import STORED, read_manifest, write_manifest
from vimvol.outputs.stored import PLANES
from vimvol.preflight.prepare import prepare
from vimvol.quality.planes import families_of
from vimvol.quality.shifted import compare_shifted, stored_walls
from vimvol.sample import SampleSpec, generate
from vimvol.stages.fragments import read_walls

SHAPE = (8, 192, 192)
SETTINGS = {"output__shard": [4, 64, 96], "output__chunk": [4, 32, 48]}


@pytest.fixture(scope="module")
def volume(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("volume") / "raw.zarr"
    array = zarr.create_array(str(path), shape=SHAPE, dtype="uint8", chunks=(8, 64, 64), zarr_format=2)
    array[:] = generate(SampleSpec(shape=SHAPE))[0]
    array.attrs["resolution"] = [50.0, 4.6, 4.6]
    return path


@pytest.fixture(scope="module")
def finished(volume: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("finished") / "out.zarr"
    segment_volume(str(volume), str(out), small_config(**SETTINGS))
    return out


@pytest.fixture
def out(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "out.zarr"))


def cut_at(out: Path, axis: int, plane: int) -> None:
    """Let every segment end at a plane."""
    array = zarr.open_array(str(out / "labels" / "segmentation" / "0"), mode="r+")
    labels = array[:]
    behind = np.moveaxis(labels, axis, 0)[plane:]
    behind[behind > 0] += labels.max()
    array[:] = labels


def test_the_families_are_the_planes_where_something_meets(volume: Path, finished: Path) -> None:
    job = prepare(str(volume), str(finished), small_config(**SETTINGS))
    found = {("zyx"[f.axis], f.step): f.names for f in families_of(job, range(0))}
    assert found == {
        ("z", 4): ("shard",),
        ("y", 64): ("shard", "watershed tile", "prediction tile"),
        ("x", 64): ("watershed tile", "prediction tile"),
        ("x", 96): ("shard",),
    }
    assert any("subproblem" in f.names for f in families_of(job, range(1))) is False
    small = prepare(str(volume), str(finished), small_config(**SETTINGS, agglomerate__cell=[2, 64, 64]))
    for lowest, steps in ((0, {("z", 2), ("y", 64), ("x", 64)}), (1, {("z", 4), ("y", 128), ("x", 128)})):
        families = families_of(small, range(lowest, 2))
        assert {("zyx"[f.axis], f.step) for f in families if "subproblem" in f.names} == steps
    flat = prepare(str(volume), str(finished), small_config(**SETTINGS, segment__mode="2d"))
    assert {f.axis for f in families_of(flat, range(0))} == {1, 2}


def test_an_output_without_seams_passes(out: Path) -> None:
    result = check_seams(str(out))
    assert result["passed"], result
    assert all(plane["segments"] > 5 for plane in result["planes"])
    assert result["shifted"]["passed"]
    assert json.loads((out / "vimvol" / "qa.json").read_text()) == result
    with Image.open(out / "vimvol" / "qa.png") as picture:
        assert np.asarray(picture.convert("L")).std() > 20


@pytest.mark.parametrize(("axis", "plane"), [(1, 64), (2, 96)])
def test_a_seam_is_found_and_named(out: Path, axis: int, plane: int) -> None:
    cut_at(out, axis, plane)
    result = check_seams(str(out))
    failed = {(p["axis"], p["step"]) for p in result["planes"] if not p["passed"]}
    assert failed == {("zyx"[axis], plane)}
    assert not result["passed"]
    assert (result["worst"]["axis"], result["worst"]["plane"]) == ("zyx"[axis], plane)
    assert result["worst"]["ended"] == result["worst"]["segments"]


def subproblems(result: dict) -> set[tuple[str, int]]:
    return {(plane["axis"], plane["step"]) for plane in result["planes"] if "subproblem" in plane["what"]}


def test_a_segmentation_is_looked_at_where_its_own_subproblems_meet(out: Path) -> None:
    before = check_seams(str(out))
    assert subproblems(before) == set()
    picture = Path(before["worst"]["picture"]).read_bytes()
    # so few edges are solved in cells twice as large
    agglomerate(str(out), ["agglomerate.levels=1", "agglomerate.cell=[2,64,64]"], name="parts", workers=0)
    found = check_seams(str(out), name="parts")
    assert subproblems(found) == {("z", 4), ("y", 128), ("x", 128)}
    # the report of the other stays as it is
    assert json.loads((out / "vimvol" / "qa-parts.json").read_text()) == found
    assert json.loads((out / "vimvol" / "qa.json").read_text()) == before
    assert found["worst"]["picture"].endswith("qa-parts.png")
    assert Path(before["worst"]["picture"]).read_bytes() == picture
    agglomerate(str(out), ["agglomerate.levels=1", "agglomerate.cell=[4,64,64]"], workers=0)
    assert subproblems(check_seams(str(out))) == {("y", 128), ("x", 128)}
    assert subproblems(check_seams(str(out), name="parts")) == {("z", 4), ("y", 128), ("x", 128)}
    # of labels that were put there by others nothing is known
    shutil.copytree(out / "labels" / "parts", out / "labels" / "theirs")
    assert subproblems(check_seams(str(out), name="theirs")) == set()
    note = out / "vimvol" / "agglomerated" / "parts" / "run.json"
    note.write_text(json.dumps(json.loads(note.read_text()) | {"state": "running"}))
    with pytest.raises(InputError, match=r"segmentation 'parts' of .* is not complete"):
        check_seams(str(out), name="parts")


@pytest.mark.parametrize("masked", [False, True])
def test_neither_input_nor_network_need_be_there(tmp_path: Path, masked: bool) -> None:
    raw = generate(SampleSpec(shape=SHAPE))[0]
    raw[3] = raw[:, :, 150:] = 0
    volume = zarr.create_array(str(tmp_path / "raw.zarr"), data=raw, zarr_format=2)
    volume.attrs["resolution"] = [50.0, 4.6, 4.6]
    wanted = np.zeros(SHAPE, np.uint8)
    wanted[:, 20:, :] = 1
    mask = zarr.create_array(str(tmp_path / "mask.zarr"), data=wanted, zarr_format=2)
    mask.attrs["resolution"] = [50.0, 4.6, 4.6]
    out, model = tmp_path / "out.zarr", tmp_path / "net.safetensors"
    random_network(model, 30)
    given = {"input__mask": str(tmp_path / "mask.zarr")} if masked else {}
    given |= {"predict__model": str(model), "input__roi": [[0, 0, 8], [8, 192, 192]]}
    settings = small_config(**SETTINGS, **given)
    segment_volume(str(tmp_path / "raw.zarr"), str(out), settings)
    job = prepare(str(tmp_path / "raw.zarr"), str(out), settings)
    with Image.open(check_seams(str(out))["worst"]["picture"]) as picture:
        whole = picture.size
    shutil.rmtree(tmp_path / "raw.zarr")
    model.unlink()
    result = check_seams(str(out))
    with Image.open(result["worst"]["picture"]) as picture:
        assert picture.size != whole  # a panel less
    manifest = read_manifest(str(out)) or {}
    del manifest[STORED][PLANES]
    write_manifest(str(out), manifest)
    with pytest.raises(InputError, match=r"no network and no file is called '.*net\.safetensors'"):
        check_seams(str(out))
    random_network(model, 30)
    with pytest.raises(InputError, match=r"raw\.zarr does not exist"):
        check_seams(str(out))
    # as with the input, and the network's tiles, looked at
    volume = zarr.create_array(str(tmp_path / "raw.zarr"), data=raw, zarr_format=2)
    volume.attrs["resolution"] = [50.0, 4.6, 4.6]
    assert check_seams(str(out)) == result
    box = Block((1, 10, 60), (7, 180, 192))
    expected = read_walls(job, box)
    assert not expected[1].all()
    for found, wanted in zip(stored_walls(job, box), expected, strict=True):
        np.testing.assert_array_equal(found, wanted)


def test_shifted_tiles_differ_where_the_stored_labels_were_made_otherwise(volume: Path, out: Path) -> None:
    job = prepare(str(volume), str(out), small_config(**SETTINGS))
    usual = compare_shifted(job, f"{out}/labels/segmentation/0")
    assert usual is not None
    assert usual["same"] < 0.2
    cut_at(out, 2, 60)
    cut_at(out, 1, 120)
    cut = compare_shifted(job, f"{out}/labels/segmentation/0")
    assert cut is not None
    assert cut["same"] > usual["same"] + 0.2


def test_on_the_command_line(run, out: Path, tmp_path: Path) -> None:
    file = tmp_path / "qa.json"
    code, printed, err = run("qa", out, "--json", file)
    assert code == 0
    told = [line.partition(":")[0] for line in err.splitlines()]
    assert told[:3] == ["opening " + str(out), "z every 4", "z every 4"]
    assert told[-1] == "shifted tiles"
    assert "watershed tile" in printed
    assert json.loads(file.read_text())["passed"]
    cut_at(out, 1, 64)
    code, printed, _ = run("qa", out)
    assert code == 1
    assert "FAIL" in printed
    assert f"vimvol agglomerate {out} --set agglomerate.join_below=1000 --name joined joins" in printed
    code, _, error = run("qa", out, "--name", "other")
    assert code == 2
    assert "no segmentation 'other'" in error


def test_what_is_no_finished_output_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        check_seams(str(tmp_path / "nothing.zarr"))
