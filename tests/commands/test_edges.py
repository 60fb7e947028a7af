import dataclasses
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import zarr
from safetensors.numpy import save

from tests.support import digest, random_network, small_config
from vimvol.commands.agglomerate import agglomerate
from vimvol.commands.edges import train_edges
from vimvol.commands.qa import check_seams
from vimvol.commands.segment import segment_volume
from vimvol.errors import InputError, MissingExtraError
from vimvol.outputs.manifest import STORED, read_manifest, write_manifest
from vimvol.preflight.prepare import prepare
from vimvol.segment.forest import Forest


@pytest.fixture(scope="module")
def costs(sample: Path, reference: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Costs learned from the output of the reference."""
    path = tmp_path_factory.mktemp("costs") / "costs.safetensors"
    done = train_edges([(str(reference), f"{sample}:labels")], str(path), note="synthetic")
    assert 0 < done.cut < done.edges
    return path


@pytest.fixture
def out(reference: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(reference, tmp_path / "out.zarr"))


def test_neither_blocks_nor_workers_change_a_byte(sample: Path, costs: Path, out: Path, tmp_path: Path) -> None:
    learned = {"agglomerate__costs": str(costs)}
    segment_volume(f"{sample}:raw", str(tmp_path / "one.zarr"), small_config(**learned))
    blocks = small_config(**learned, run__block=[4, 64, 96], run__workers=2)
    segment_volume(f"{sample}:raw", str(tmp_path / "two.zarr"), blocks)
    assert digest(tmp_path / "two.zarr") == digest(tmp_path / "one.zarr")
    # ... nor whether the edges were measured before
    agglomerate(str(out), [f"agglomerate.costs={costs}"], workers=0)
    assert digest(out) == digest(tmp_path / "one.zarr")
    assert (read_manifest(str(out)) or {})["config"]["agglomerate"]["costs"] == str(costs)
    check_seams(str(out))


def test_fragments_of_volumes_have_costs_for_any_blocks(sample: Path, tmp_path: Path) -> None:
    volumes = {"fragments__dimension": "3d", "fragments__tile": [2, 32, 48], "fragments__halo": [1, 8, 8]}
    whole, blocks = str(tmp_path / "whole.zarr"), str(tmp_path / "blocks.zarr")
    segment_volume(f"{sample}:raw", whole, small_config(**volumes, run__block=[4, 128, 144]))
    segment_volume(f"{sample}:raw", blocks, small_config(**volumes))
    files = [str(tmp_path / f"{name}.safetensors") for name in ("whole", "blocks")]
    for out, file in zip((whole, blocks), files, strict=True):
        train_edges([(out, f"{sample}:labels")], file)
    assert Path(files[0]).read_bytes() == Path(files[1]).read_bytes()
    for out in (whole, blocks):
        agglomerate(out, [f"agglomerate.costs={files[0]}"], workers=0)
    assert digest(whole) == digest(blocks)


def test_the_card_of_a_file_is_shown(costs: Path, tmp_path: Path, run) -> None:
    code, text, _ = run("models", costs)
    assert (code, "synthetic" in text, "voxel sizes, nm" in text, "across z" in text) == (0, True, True, True)
    other = tmp_path / "other.safetensors"
    other.write_bytes(save({"weight": np.zeros(1)}))
    assert run("models", other)[0] == 2


def test_the_content_of_the_file_decides_what_is_computed(costs: Path, out: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copyfile(costs, tmp_path / "copy.safetensors"))
    keys = []
    for path in (costs, copy):
        agglomerate(str(out), [f"agglomerate.costs={path}"], workers=0)
        keys.append((read_manifest(str(out)) or {})["keys"])
    assert keys[0] == keys[1]
    forest = Forest.from_bytes(copy.read_bytes())
    copy.write_bytes(dataclasses.replace(forest, calibration=(forest.calibration[0], 9.0)).to_bytes())
    agglomerate(str(out), [f"agglomerate.costs={copy}"], workers=0)
    changed = (read_manifest(str(out)) or {})["keys"]
    assert changed["graph"] == keys[0]["graph"]
    assert all(changed[stage] != keys[0][stage] for stage in ("costs", "solve", "write", "label-pyramid"))


def test_learned_costs_have_a_prior_of_their_own(sample: Path, costs: Path, tmp_path: Path) -> None:
    changes = {}, {"agglomerate__beta": 0.6}, {"agglomerate__beta_across": 0.6}, {"agglomerate__beta_learned": 0.8}
    keys, told = [], []
    for change in changes:
        config = small_config(agglomerate__costs=str(costs), **change)
        job = prepare(f"{sample}:raw", str(tmp_path / "out.zarr"), config, tell=told.append)
        keys.append(job.keys["costs"])
    assert keys[0] == keys[1] == keys[2] != keys[3]
    unused = [line for line in told if "learned costs have a prior of their own" in line]
    assert ["beta = 0.6" in unused[0], "beta_across = 0.6" in unused[1], len(unused)] == [True, True, 2]


def test_neither_input_nor_network_need_be_there(sample: Path, tmp_path: Path) -> None:
    volume, model, out = Path(shutil.copytree(sample, tmp_path / "in.zarr")), tmp_path / "net.safetensors", "out.zarr"
    random_network(model, 30)
    segment_volume(f"{volume}:raw", str(tmp_path / out), small_config(predict__model=str(model)))
    files = [tmp_path / f"{name}.safetensors" for name in ("with", "without")]
    train_edges([(str(tmp_path / out), f"{sample}:labels")], str(files[0]))
    shutil.rmtree(volume)
    model.unlink()
    # other blocks, so that edges have to be measured again
    agglomerate(str(tmp_path / out), ["run.block=[4,128,144]"], name="wide", workers=0)
    train_edges([(str(tmp_path / out), f"{sample}:labels")], str(files[1]))
    assert files[0].read_bytes() == files[1].read_bytes()
    shutil.rmtree(tmp_path / out / "vimvol" / "ledger" / "fragments")
    with pytest.raises(InputError, match="lacks blocks of stage fragments"):
        train_edges([(str(tmp_path / out), f"{sample}:labels")], str(files[1]))


def test_the_file_that_edges_cost_by_before_may_be_gone(sample: Path, costs: Path, out: Path, tmp_path: Path) -> None:
    gone, again = Path(shutil.copyfile(costs, tmp_path / "gone.safetensors")), tmp_path / "again.safetensors"
    agglomerate(str(out), [f"agglomerate.costs={gone}"], workers=0)
    gone.unlink()
    train_edges([(str(out), f"{sample}:labels")], str(again), note="synthetic")
    assert again.read_bytes() == costs.read_bytes()
    agglomerate(str(out), ["agglomerate.costs=boundary"], workers=0)
    assert (read_manifest(str(out)) or {})["config"]["agglomerate"]["costs"] == "boundary"


def test_an_output_of_an_earlier_version_takes_its_unchanged_input(sample: Path, out: Path, tmp_path: Path) -> None:
    manifest, file = read_manifest(str(out)) or {}, tmp_path / "costs.safetensors"
    del manifest[STORED]
    write_manifest(str(out), manifest)
    train_edges([(str(out), f"{sample}:labels")], str(file))
    for name, message in (("path", "gone does not exist"), ("dataset", "has no dataset")):
        write_manifest(str(out), {**manifest, "input": {**manifest["input"], name: str(tmp_path / "gone")}})
        with pytest.raises(InputError, match=message):
            train_edges([(str(out), f"{sample}:labels")], str(file))
    changed = shutil.copytree(sample, tmp_path / "changed.zarr")
    write_manifest(str(out), {**manifest, "input": {**manifest["input"], "path": str(changed)}})
    with pytest.raises(InputError, match=r"the input or the weights of .* have changed since"):
        train_edges([(str(out), f"{sample}:labels")], str(file))


def test_only_the_slab_is_learned_from(sample: Path, reference: Path, tmp_path: Path) -> None:
    truth = tmp_path / "truth.zarr"
    labels = zarr.open_array(str(sample), path="labels", mode="r")[:]
    labels[:2] = np.random.default_rng(0).integers(1, 99, labels[:2].shape)
    zarr.create_array(str(truth), data=labels, dimension_names=("z", "y", "x"))
    files = [tmp_path / f"{name}.safetensors" for name in "ab"]
    one = train_edges([(str(reference), f"{sample}:labels")], str(files[0]), (2, 4))
    two = train_edges([(str(reference), str(truth))], str(files[1]), (2, 4))
    assert one.edges == two.edges > 0
    assert files[0].read_bytes() == files[1].read_bytes()


def test_what_is_not_annotated_is_left_out(sample: Path, reference: Path, tmp_path: Path) -> None:
    labels = zarr.open_array(str(sample), path="labels", mode="r")[:]
    labels[:, 64:] = 0
    zarr.create_array(str(tmp_path / "truth.zarr"), data=labels, dimension_names=("z", "y", "x"))
    pair = (str(reference), str(tmp_path / "truth.zarr"))
    half = train_edges([pair], str(tmp_path / "half.safetensors"))
    twice = train_edges([pair, (str(reference), f"{sample}:labels")], str(tmp_path / "twice.safetensors"))
    assert 0 < half.edges < 0.7 * (twice.edges - half.edges)


def test_what_cannot_be_used_is_told_in_a_line(sample: Path, costs: Path, out: Path, tmp_path: Path) -> None:
    before = digest(out)
    broken, other, early = (tmp_path / f"{name}.safetensors" for name in ("broken", "other", "early"))
    broken.write_bytes(costs.read_bytes()[:-9])
    forest = Forest.from_bytes(costs.read_bytes())
    other.write_bytes(dataclasses.replace(forest, names=("colour", *forest.names[1:])).to_bytes())
    card = {name: text for name, text in (forest.card or {}).items() if name != "format of the tables"}
    early.write_bytes(dataclasses.replace(forest, card=card).to_bytes())
    for path, match in (
        (early, "was saved by another version of vimvol.*train it again"),
        (tmp_path / "none", "is no file; give boundary or a file"),
        (broken, "holds no learned costs"),
        (other, "looks at the feature 'colour'"),
    ):
        with pytest.raises(InputError, match=match):
            agglomerate(str(out), [f"agglomerate.costs={path}"], workers=0)
    assert digest(out) == before
    for changes, match in (
        ({"segment__mode": "2d"}, "was trained on edges of 2d fragments, and these are edges within slices"),
        ({"segment__mode": "2d", "fragments__seeds": "components"}, "would not be used"),
    ):
        with pytest.raises(InputError, match=match):
            segment_volume(
                f"{sample}:raw", str(tmp_path / "new.zarr"), small_config(agglomerate__costs=str(costs), **changes)
            )
    assert not (tmp_path / "new.zarr").exists()


def test_a_missing_extra_is_told_before_anything_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(MissingExtraError, match=r"pip install -c constraints.txt '\.\[edges\]'"):
        train_edges([("nothing.zarr", "nothing.h5")], str(tmp_path / "costs.safetensors"))


def test_on_the_command_line(run, sample: Path, out: Path, tmp_path: Path) -> None:
    file = tmp_path / "my costs.safetensors"
    code, printed, _ = run("train-edges", out, f"{sample}:labels", "--out", file, "--slab", "0:3")
    assert code == 0
    assert f"costs         {file}" in printed
    assert f"use them      vimvol agglomerate {out} --set 'agglomerate.costs={file}'" in printed
    assert file.with_suffix(".png").read_bytes()[:4] == b"\x89PNG"
    assert run("agglomerate", out, f"--set=agglomerate.costs={file}", "--workers", 0)[0] == 0
    for arguments, message in (
        ((out,), "has no ground truth"),
        ((out, f"{sample}:labels", "--slab", "3"), "is no range of slices"),
        ((out, f"{sample}:labels", "--slab", "3:9"), "is no part of the 4 slices"),
        ((tmp_path / "no.zarr", f"{sample}:labels"), "does not exist"),
    ):
        code, _, error = run("train-edges", *arguments, "--out", file)
        assert code == 2
        assert message in error
        assert [line.split()[0] for line in error.splitlines()] in (["error:"], ["opening", "error:"])
