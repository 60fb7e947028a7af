import contextlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
import types
from dataclasses import asdict, replace
from importlib import metadata
from pathlib import Path
from typing import Annotated

import h5py
import numpy as np
import pytest
import tifffile
import typer
import zarr
from typer.core import TyperCommand
from typer.testing import CliRunner

from tests.support import digest, mistake, settings, small_config, wait_for, without_rights
from vimvol.cli.commands import app
from vimvol.cli.help import App, Command
from vimvol.commands.segment import segment_volume
from vimvol.engine.lock import Holder
from vimvol.errors import InputError
from vimvol.io import open_volume
from vimvol.io.objects import open_objects
from vimvol.models.registry import MODELS
from vimvol.outputs.manifest import finished_run

ROOT = Path(__file__).parents[1]
MODELS_FOLDER = ROOT / "vimvol" / "models" / "weights"


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    """An HDF5 file with good and bad datasets."""
    path = tmp_path / "volume.h5"
    with h5py.File(path, "w") as file:
        file["volumes/raw"] = np.zeros((4, 64, 64), np.uint8)
        file["volumes/double"] = np.zeros((4, 64, 64), np.float64)
        file["volumes/line"] = np.zeros(64, np.uint8)
        file["volumes/narrow"] = np.zeros((4, 8, 64), np.uint8)
        for name in ("volumes/raw", "volumes/narrow"):
            file[name].attrs["resolution"] = [40.0, 4.0, 4.0]
        file["volumes/sizeless"] = np.zeros((4, 64, 64), np.uint8)
        file["volumes/metres"] = np.zeros((4, 64, 64), np.uint8)
        file["volumes/metres"].attrs["resolution"] = [4e-8, 4e-9, 4e-9]
        file["volumes/labels/neuron_ids"] = np.ones((4, 64, 64), np.uint64)
        file["volumes/labels/short"] = np.ones((2, 64, 64), np.uint64)
        file["volumes/labels/empty"] = np.zeros((4, 64, 64), np.uint64)
    return path


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        ("{h5}x", [], "does not exist"),
        ("{h5}:volumes/rwa", [], "rwa.*volumes/raw"),
        ("{h5}:raw", [], "has no dataset 'raw'; did you mean 'volumes/raw'. choose one of "),
        ("{h5}:volumes/double", [], "float64"),
        ("{h5}:volumes/line", [], "volumes/line"),
        ("{h5}:volumes/narrow", [], "8 voxels along y"),
        ("{h5}:volumes/raw", ["--set", "predict.tille=[1,1]"], "unknown key .*did you mean 'predict.tile'"),
        ("{h5}:volumes/raw", ["--set", "predict.batch=-1"], "predict.batch = -1"),
        ("{h5}:volumes/raw", ["--config", "{h5}.yaml"], "h5.yaml does not exist"),
        ("{h5}:volumes/raw", ["--model", "vimunet-nanu"], "vimunet-nanu"),
        ("{h5}:volumes/raw", ["--model", "{h5}"], "volume.h5"),
        ("{h5}:volumes/raw", ["--cluster", "slrum"], "cluster 'slrum' is not known"),
        ("{h5}:volumes/raw", ["--set", "agglomerate.solver=best"], "agglomerate.solver = 'best' cannot"),
        ("{h5}:volumes/raw", ["--set", "output.shard=[4,100,100]"], "shard"),
        ("{h5}:volumes/raw", ["--set", "output.shard=[4,32,32]", "--set", "output.chunk=[4,32,32]", "--set",
                              "run.block=[4,33,32]"], "no multiple of the shard"),
        ("{h5}:volumes/raw", ["--set", "predict.device=gpu"], "predict.device = 'gpu'"),
        ("{h5}:volumes/raw", ["--set", "predict.device=meta"], "predict.device = 'meta'"),
        ("{h5}:volumes/sizeless", [], "does not say its voxel size"),
        ("{h5}:volumes/raw", ["--set", "input.axes=cyx"], "4 channels|channels"),
        ("{h5}:volumes/raw", ["--set", "input.axes=tyx"], "axes"),
        ("{h5}:volumes/raw", ["--set", "input.voxel_size=[0,1,1]"], r"voxel_size\.0 = 0 .*above 0"),
        ("{h5}:volumes/metres", [], r"metadata of .*:volumes/metres, and EM .*='\[40,4,4\]' if these are metres$"),
        ("{h5}:volumes/raw", ["--set", "input.voxel_size=[2e5,4,4]"], r"200000 .* input.voxel_size, .*='\[z,y,x\]'$"),
    ],
)  # fmt: skip
def test_a_mistake_gets_one_line_and_nothing_is_written(run, volume: Path, source, options, message) -> None:
    out = volume.with_name("out.zarr")
    fill = {"h5": str(volume)}
    code, _, err = run("segment", source.format(**fill), out, *(o.format(**fill) for o in options))
    assert code == 2, err
    assert re.search(message, mistake(err)), err
    assert not out.exists()


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("predict.model=vimunet-nanu", "no network and no file is called 'vimunet-nanu'"),
        ("predict.boundaries=none.zarr", r"none\.zarr does not exist"),
        ("predict.device=gpu", "predict.device = 'gpu'"),
        ("input.mask=none.tif", r"none\.tif does not exist"),
        ("input.roi=[[0,9,0],[4,9,9]]", r"input\.roi = \[\[0, 9, 0\], \[4, 9, 9\]\] holds no voxel"),
    ],
)
def test_what_needs_no_input_is_refused_before_it_is_opened(run, tmp_path: Path, option, message) -> None:
    (tmp_path / "damaged.tif").write_bytes(b"II*")  # which opening would tell
    code, _, err = run("segment", tmp_path / "damaged.tif", tmp_path / "out.zarr", "--set", option)
    assert (code, re.search(message, mistake(err)) is not None) == (2, True), err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["damaged.tif"]


@pytest.mark.parametrize("command", ["segment", "plan"])
def test_that_there_is_no_gpu_is_told_before_what_would_follow(
    run, monkeypatch, sample: Path, reference: Path, command
) -> None:
    def fail() -> int:
        raise OSError("libnvidia-ml.so cannot be loaded")

    module = types.ModuleType("dask_cuda")
    module.utils = types.SimpleNamespace(get_n_gpus=fail)
    monkeypatch.setitem(sys.modules, "dask_cuda", module)
    other = settings(**{"agglomerate.beta": 0.6})
    code, _, err = run(command, f"{sample}:raw", reference, *other, "--cluster", "cuda")
    assert (code, "other settings" in err) == (2, False)
    assert "no GPU of this machine can be used (OSError: libnvidia-ml.so cannot be loaded); choose" in mistake(err)
    code, _, err = run(command, f"{sample}:raw", reference, *other)
    assert (code, "other settings" in mistake(err)) == (2, True)


def test_what_may_be_wrong_is_said_again_in_the_end_and_the_time_is_split(run, sample: Path, tmp_path: Path) -> None:
    turned = settings(**{"input.voxel_size": [4, 4, 40], "agglomerate.beta_across": 0.4, "fragments.dimension": "3d"})
    for told_before in (True, False):  # the second run finds everything done
        code, text, err = run("segment", f"{sample}:raw", tmp_path / "out.zarr", *turned, "--workers", "0")
        assert code == 0, err
        lines = err.splitlines()
        assert lines[-2].startswith("not used: agglomerate.beta_across = 0.4, as fragments reach")
        assert lines[-1] == (
            "warning: voxels of 4 x 4 x 40 nm (z, y, x) by input.voxel_size may be wrong; if these are x, y, z, give "
            "--set input.voxel_size='[40,4,4]'"
        )
        assert sum("warning: " in line for line in lines) == 2
        assert ("predict: " in err) == told_before
        took = re.search(r"fragments in (\d+) s(?:: (.*))?$", text, re.MULTILINE)
        assert (took is None, text.startswith("all done before, on 20")) == (not told_before, not told_before)
        assert f"segmentation  {tmp_path}/out.zarr/labels/segmentation\n" in text
        if took is None:
            continue
        parts = [int(part.split()[0]) for part in (took[2] or "").split(", ") if part]
        assert not parts or abs(sum(parts) - int(took[1])) <= 1


def test_the_ground_truth_that_was_found_in_a_container_is_told(
    run, reference: Path, sample: Path, tmp_path: Path
) -> None:
    with h5py.File(tmp_path / "truth.h5", "w") as file:
        file["volumes/labels/neuron_ids"] = zarr.open_array(str(sample / "labels"), mode="r")[:]
    truth = f"{tmp_path}/truth.h5"
    found = run("evaluate", reference, truth)
    named = run("evaluate", reference, f"{truth}:volumes/labels/neuron_ids")
    assert found[:2] == named[:2]
    assert f"ground truth: {truth}:volumes/labels/neuron_ids" in found[2]
    assert f"segmentation: {reference}:labels/segmentation/0\n" in found[2]
    assert "ground truth:" not in named[2]


def test_a_checkpoint_of_another_kind_gets_one_line(run, volume: Path, tmp_path: Path) -> None:
    import torch

    path = tmp_path / "other.pt"
    torch.save({"model_state": {"some.weight": torch.zeros(3)}}, path)
    code, _, err = run("segment", f"{volume}:volumes/raw", tmp_path / "out.zarr", "--model", path)
    assert code == 2
    assert "other.pt" in mistake(err)
    assert not (tmp_path / "out.zarr").exists()


def test_segment_evaluate_and_info(run, sample: Path, tmp_path: Path) -> None:
    out, scores = tmp_path / "out.zarr", tmp_path / "scores.json"
    code, text, err = run("segment", f"{sample}:raw", out, *settings())
    assert code == 0, err
    assert "segments of" in text
    assert (out / "vimvol" / "overview.png").read_bytes().startswith(b"\x89PNG")
    assert "predict" in err
    code, text, err = run("evaluate", out, f"{sample}:labels", "--json", scores)
    assert code == 0
    result = json.loads(scores.read_text())
    assert result["mode"] == "3d"
    assert 0 < result["scores"]["volume, band 2"]["cremi"] < 2
    assert re.match(r"count: 1 block, 0.1 MVox\ncount: 1/1 block, .* took ", err)
    assert "cremi" in text.lower()
    code, text, _ = run("info", out)
    assert code == 0
    assert "labels/segmentation/0" in text
    code, _, err = run("segment", f"{sample}:raw", out, *settings(), "--set", "agglomerate.beta=0.6")
    assert code == 2
    assert "--overwrite" in err


def test_a_stack_of_tiff_in_2d_mode(run, sample: Path, tmp_path: Path) -> None:
    stack = tmp_path / "stack.tif"
    tifffile.imwrite(stack, zarr.open_array(str(sample / "raw"), mode="r")[:3], photometric="minisblack")
    out = tmp_path / "out.zarr"
    words = ["segment", stack, out, *settings(), "--set=segment.mode=2d", "--set=input.voxel_size=[50, 4, 4]"]
    code, _, err = run(*words)
    assert code == 0, err
    (recorded,) = json.loads((out / "vimvol" / "run.json").read_text())["runs"]
    assert shlex.split(recorded["command"]) == ["vimvol", *map(str, words)]  # what a shell runs again
    assert zarr.open_array(str(out / "labels" / "segmentation" / "0"), mode="r").shape == (3, 128, 120)


@pytest.mark.parametrize(
    ("segmentation", "truth", "message"),
    [
        ("volumes/labels/short", "volumes/labels/neuron_ids", "voxels do not correspond"),
        ("volumes/labels/neuron_ids", "volumes/labels/empty", "0 everywhere|no voxel|nothing"),
        ("volumes/double", "volumes/labels/neuron_ids", "float64"),
        ("volumes/none", "volumes/labels/neuron_ids", "volumes/none"),
    ],
)
def test_what_cannot_be_scored_gets_one_line(run, volume: Path, segmentation, truth, message) -> None:
    code, _, err = run("evaluate", f"{volume}:{segmentation}", f"{volume}:{truth}")
    assert code == 2
    told = [line for line in err.splitlines() if not line.startswith("count: ")]
    assert len(told) == 1, err
    assert re.search(message, told[0]), err


def test_cells_are_scored_image_by_image(run, volume: Path, tmp_path: Path) -> None:
    labels, scores, errors = f"{volume}:volumes/labels/neuron_ids", tmp_path / "scores.json", tmp_path / "errors.csv"
    code, _, err = run("evaluate", labels, labels, "--background", "keep", "--json", scores, "--objects", errors)
    assert code == 0, err
    result = json.loads(scores.read_text())
    assert (result["mode"], result["background"]) == ("2d", "keep")
    assert [one["slice"] for one in result["slices"]] == list(range(len(result["slices"])))
    assert result["scores"]["slices"]["voi_split"] == 0
    assert errors.read_text().startswith("kind,id,voxels")
    code, _, err = run("evaluate", labels, labels, "--background", "keep", "--mode", "3d")
    assert (code, err.count("\n")) == (2, 1), err
    code, _, err = run("evaluate", labels, labels, "--background", "kept")
    assert (code, err.count("\n")) == (2, 1), err
    assert "choose ignore, keep" in err


def test_what_may_not_be_read_is_a_mistake_in_one_line(sample: Path, volume: Path, tmp_path: Path) -> None:
    (tmp_path / "slices").mkdir()
    for name in ("stack.tif", "slices/0.tif", "slices/1.tif"):
        tifffile.imwrite(
            tmp_path / name, np.ones((64, 64) if "/" in name else (4, 64, 64), np.uint8), photometric="minisblack"
        )
    for name in ("whole.zarr", "inside.zarr"):
        shutil.copytree(sample, tmp_path / name)
    (tmp_path / "settings.yaml").write_text("segment: {mode: 2d}\n")
    shutil.copy(MODELS_FOLDER / "unet-nano.safetensors", tmp_path / "weights")
    (tmp_path / "shut").mkdir()
    volumes = [{"raw": "shut/raw.h5:raw", "labels": "shut/raw.h5:labels", "train": [0, 1]}]
    (tmp_path / "train.yaml").write_text(json.dumps({"out": "run", "volumes": volumes}))
    denied = {
        "volume.h5": ("segment", f"{volume}:volumes/raw", "o.zarr"),
        "stack.tif": ("segment", "stack.tif", "o.zarr"),
        "slices/1.tif": ("segment", "slices", "o.zarr"),
        "whole.zarr": ("segment", "whole.zarr:raw", "o.zarr"),
        "inside.zarr/raw/.zarray": ("info", "inside.zarr"),
        "settings.yaml": ("segment", f"{sample}:raw", "o.zarr", "--config", "settings.yaml"),
        "weights": ("segment", f"{sample}:raw", "o.zarr", "--model", "weights"),
        "shut": ("segment", f"{sample}:raw", "o.zarr", "--model", "shut/weights"),
    }
    more = [
        ("segment", f"{sample}:raw", "o.zarr", "--set", "input.mask=stack.tif"),
        ("segment", f"{sample}:raw", "o.zarr", "--set", "agglomerate.costs=weights"),
        ("evaluate", "stack.tif", "stack.tif"),
        ("status", "whole.zarr"),
        ("train", "train.yaml"),
    ]
    for name in denied:
        (tmp_path / name).chmod(0)
    before = sorted(tmp_path.iterdir())
    try:
        found = without_rights([*denied.values(), *more], tmp_path)
    finally:
        for name in denied:
            (tmp_path / name).chmod(0o755)
    for command, (code, err) in zip([*denied.values(), *more], found, strict=True):
        assert code == 2, (command, err)
        assert re.search("Permission denied|may not be entered", mistake(err)), (command, err)
        assert not re.search("errno|Errno", err), (command, err)
    assert sorted(tmp_path.iterdir()) == before


def test_what_is_being_done_is_told_from_the_beginning(run, sample: Path, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "several.h5", "w") as file:
        for name, stored in (("raw", "raw"), ("labels/neuron_ids", "labels")):
            file[f"volumes/{name}"] = zarr.open_array(sample / stored, mode="r")[:1]
    file = tmp_path / "several.h5"
    size = ["--set=input.voxel_size=[50,4.6,4.6]", "--set=output.levels=1"]
    code, _, err = run("plan", file, tmp_path / "o.zarr", *settings(), *size)
    assert code == 0, err
    shape = "1 x 128 x 120"
    assert err.splitlines() == [
        f"opening {file}",
        f"input: {file}:volumes/raw, {shape} voxels (z, y, x) of 50 x 4.6 x 4.6 nm, uint8; chosen, since none was "
        f"named, before volumes/labels/neuron_ids ({shape} uint64)",
        "boundaries: network vimunet-nano",
        "plan: a sample of 1 of 6 blocks",
    ]
    code, _, err = run("plan", f"{file}:volumes/raw", tmp_path / "o.zarr", *settings(), *size)
    assert code == 0, err
    assert err.splitlines()[1] == f"input: {file}:volumes/raw, {shape} voxels (z, y, x) of 50 x 4.6 x 4.6 nm, uint8"


def test_the_input_can_be_written_again_after_a_run(volume: Path, tmp_path: Path) -> None:
    with h5py.File(volume, "r+") as file:
        file["volumes/raw"][:] = np.random.default_rng(0).integers(1, 255, (4, 64, 64))
    segment_volume(f"{volume}:volumes/raw", str(tmp_path / "out.zarr"), small_config())
    with h5py.File(volume, "r+") as file:
        file["volumes/raw"][0] = 1


@pytest.mark.parametrize("dataset", ["labels/segmentaton", "segmentation", "fragments", "vimvol"])
def test_of_an_output_segmentations_alone_are_offered_to_be_scored(run, sample, reference, dataset) -> None:
    code, _, err = run("evaluate", f"{reference}:{dataset}", f"{sample}:labels")
    assert (code, err.count("\n")) == (2, 1)
    assert err.endswith("choose one of labels/segmentation/0 (4 x 128 x 120 uint64)\n")
    assert ("did you mean 'labels/segmentation'" in err) == ("segment" in dataset)


def test_an_unfinished_output_is_not_scored(run, sample: Path, reference: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.zarr"
    shutil.copytree(reference, out)
    manifest = out / "vimvol" / "run.json"
    manifest.write_text(manifest.read_text().replace('"complete"', '"running"'))
    code, _, err = run("evaluate", out, f"{sample}:labels")
    assert (code, err.count("\n")) == (2, 1)
    assert f"{out} is not finished, and no run is at it, so missing parts would count as errors" in err
    assert f"vimvol status {out} tells what is done; vimvol segment goes on with it" in err
    (note := out / "vimvol" / "agglomerated" / "b" / "run.json").parent.mkdir(parents=True)
    note.write_text('{"state": "running"}')
    manifest.write_text(manifest.read_text().replace('"running"', '"complete"'))
    code, _, err = run("evaluate", f"{out}:labels/b", f"{sample}:labels")
    assert (code, f"segmentation b of {out} is not complete, so missing" in mistake(err)) == (2, True)


@pytest.mark.parametrize("alive", [True, False])
def test_what_looks_at_an_output_before_anything_is_there_is_told_of_its_run(
    run, sample: Path, tmp_path: Path, alive: bool
) -> None:
    """As while it takes a sample, or after it was killed there."""
    out, holder = tmp_path / "out.zarr", Holder.this_process()
    entry = holder if alive else replace(holder, born="never")
    open_objects(str(out / "vimvol")).put("lock", json.dumps(asdict(entry)).encode())
    for words in (["info", out], ["evaluate", out, f"{sample}:labels"], ["view", out]):
        code, _, err = run(*words)
        text = (
            "the run that writes {} {} has not got there yet" if alive else "the run that was to fill {} {} has ended"
        )
        assert (code, text.format(out, f"({entry})") in mistake(err)) == (2, True)
        assert f"; vimvol status {out} tells what is done" in err
        assert ("vimvol segment" in err) == (not alive)


def test_what_holds_no_array_is_an_error_of_info(run, tmp_path: Path) -> None:
    zarr.create_group(str(tmp_path / "empty.zarr"))
    code, printed, err = run("info", tmp_path / "empty.zarr")
    assert (code, printed) == (2, "")
    assert f"{tmp_path}/empty.zarr holds no array, so there is nothing to show" in mistake(err)


def test_the_demonstration_keeps_results_of_others(run, reference: Path, tmp_path: Path) -> None:
    shutil.copytree(reference, tmp_path / "segmentation.zarr")
    code, _, err = run("demo", tmp_path)
    assert code == 2, err
    assert digest(tmp_path / "segmentation.zarr") == digest(reference)


def test_the_demonstration(run, tmp_path: Path) -> None:
    code, text, err = run("demo", tmp_path, "--workers", "0")
    assert code == 0, err
    assert "CREMI" in text
    assert (tmp_path / "overview.png").read_bytes().startswith(b"\x89PNG")
    scores = json.loads((tmp_path / "scores.json").read_text())["scores"]
    assert scores["volume, band 2"]["cremi"] < 0.3
    assert "all done before" not in text
    code, text, err = run("demo", tmp_path, "--workers", "0")
    assert code == 0, err
    assert re.search(r"^all done before, on 20.*; it was only scored and drawn again$", text, re.MULTILINE)


def test_models_lists_names_parameters_and_terms(run) -> None:
    code, text, _ = run("models")
    assert code == 0
    for name in MODELS:
        assert name in text
    assert "18,499,625" in text
    assert "NC" in text


def test_shipped_weights_have_a_card_and_missing_ones_a_line(run) -> None:
    code, text, _ = run("models", "vimunet-nano")
    assert code == 0
    for fact in ("licence", "CC BY-NC-SA", "commit", "scores", "data"):
        assert fact in text
    assert "where 0.200 scored best as a threshold, .5 does now" in text
    assert ", msa 0.585, 0-vnc" in text  # the threshold is no score, nor one to set
    code, text, _ = run("models", "vimunet-small")  # of which no weights come with the package
    assert code == 0
    assert 'skip_channels: "central"' in text
    code, _, err = run("models", "vimunet-smal")
    assert (code, err.count("\n")) == (2, 1)
    assert "did you mean 'vimunet-small'" in err
    code, _, err = run("models", "unetr")
    assert (code, "did you mean 'unetr-base' or 'unetr-large' or 'unetr-huge'?" in err) == (2, True)
    code, _, err = run("models", "nope")
    assert (code, err.count("\n"), "`vimvol models` lists all 11 networks" in err) == (2, 1, True)


def test_help_shows_what_to_write_and_no_types(run) -> None:
    commands = [command.name or command.callback.__name__ for command in app.registered_commands]
    for words in ([], *([name] for name in commands)):
        code, text, _ = run(*words, "--help")
        assert (code, re.findall(r"<\w+>|[{}]|\[\[|list\[", text)) == (0, []), words
    code, text, _ = run("tune", "--help")
    assert "vimvol tune [OPTIONS] FOLDER RAW TRUTH [RAW TRUTH ...]" in " ".join(text.split())


def help_of(application: typer.Typer) -> str:
    @application.command()
    def one(path: Annotated[str, typer.Argument(metavar="PATH")]) -> None:
        typer.echo(f"got {path}")

    return CliRunner().invoke(application, ["--help"], terminal_width=100).output


def test_what_is_overridden_of_typer_is_there_and_needed() -> None:
    """Fails where another version of typer makes help in another way, and says what to look at."""
    told = f"typer {metadata.version('typer')}: see vimvol/cli/help.py and what of typer.core makes help now; "
    plain, ours = help_of(typer.Typer(add_completion=False)), help_of(App(add_completion=False))
    types, braces = r"<(str|bool)>", r"\{PATH\}"
    for pattern, what, method in (
        (types, "the types of arguments and of --help", "display_type_rich of arguments, metavar of options"),
        (braces, "braces around arguments in the usage", "Command.collect_usage_pieces"),
    ):
        assert not re.search(pattern, ours), f"{told}{what} are shown, which {method} left out"
        assert re.search(pattern, plain), f"{told}{what} are gone by themselves, so {method} can be left as it is"
    assert " PATH " in ours, f"{told}arguments are not shown by what is to be written"


def test_commands_run_where_typer_has_nothing_of_what_is_overridden(monkeypatch) -> None:
    class Bare:
        """A parameter of another typer."""

        __slots__ = ()

    params = [Bare()]
    monkeypatch.setattr(TyperCommand, "get_params", lambda *_: params)
    assert Command(name="one").get_params(None) is params


def test_help_and_version_are_quick_and_load_no_framework() -> None:
    for option in ("--help", "--version"):
        script = f"import sys; sys.argv = ['vimvol', '{option}']\nfrom vimvol.cli import main\ntry: main()\n"
        script += "finally: assert not {'torch', 'dask', 'zarr'} & set(sys.modules)"
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
        assert "vimvol" in done.stdout


@pytest.mark.parametrize(
    "command",
    [
        "segment {missing} out.zarr",
        "plan {missing} out.zarr",
        "info {missing}",
        "evaluate {missing} {missing}",
        "evaluate . {missing}",
        "tune tuned . {missing}",
        "train-edges . {missing} --out costs",
        "export-nnunet {missing} slices",
        "import-nnunet . {missing} out.zarr",
    ],
)
def test_an_input_that_is_missing_is_told_before_anything_is_loaded(volume: Path, tmp_path: Path, command) -> None:
    address = f"{volume.with_name('volumes.h5')}:volumes/raw"
    with pytest.raises(InputError, match=r"volumes\.h5 does not exist; .*did you mean that\?") as told:
        open_volume(address)
    assert _refused(command.format(missing=address), tmp_path) == f"error: {told.value}\n"


@pytest.mark.parametrize("command", ["agglomerate", "qa", "export {out} copy.zarr", "train-edges {out} . --out costs"])
def test_an_output_that_is_missing_is_told_before_what_works_on_one_is_loaded(tmp_path: Path, command) -> None:
    out = str(tmp_path / "none.zarr")
    with pytest.raises(InputError) as told:
        finished_run(out)
    words = command.format(out=out) if "{" in command else f"{command} {out}"
    assert _refused(words, tmp_path) == f"error: {told.value}\n"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"volumes": [{"raw": "raw.h5", "labels": "l.h5", "train": [0, 1]}]},
            r"volumes\.0\.raw = raw\.h5: .* not exist",
        ),
        ({"images": [{"folder": ".", "train": "coco.json"}]}, r"images\.0\.train = coco\.json: .* not exist"),
        ({"init": "runs/first/unet.safetensors"}, r"init = runs/first/unet.safetensors is no file.* init=null"),
        ({"init": "runs/first"}, r"init = runs/first is no file"),
        ({"stepps": 3}, "unknown key 'stepps' in t.yaml; did you mean 'steps'"),
        ({"steps": 0}, "steps = 0 in t.yaml cannot be used"),
    ],
)
def test_what_a_training_lacks_is_told_before_anything_is_loaded(tmp_path: Path, changes, message) -> None:
    (tmp_path / "there.h5").touch()
    volume = {"raw": "there.h5", "labels": "there.h5", "train": [0, 1]}
    (tmp_path / "t.yaml").write_text(json.dumps({"out": "run", "volumes": [volume], **changes}))
    told = _refused("train t.yaml", tmp_path)
    assert re.match(f"error: {message}", told), told
    assert told.count("\n") == 1


def _refused(words: str, folder: Path) -> str:
    """Return what a command says that ends with exit code 2, having loaded nothing heavy and written nothing."""
    before = sorted(folder.rglob("*"))
    script = f"import sys; sys.argv = ['vimvol', *{words.split()!r}]\nfrom vimvol.cli import main\ntry: main()\n"
    script += "finally: assert not {'torch', 'dask', 'zarr', 'h5py', 'numpy', 'numba'} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=folder)
    assert (done.returncode, done.stdout) == (2, "")
    assert sorted(folder.rglob("*")) == before
    return done.stderr


def test_how_a_run_stands_is_told_without_a_framework(reference: Path) -> None:
    script = (
        f"import sys; sys.argv = ['vimvol', 'status', {str(reference)!r}]\nfrom vimvol.cli import main\ntry: main()\n"
    )
    script += "finally: assert not {'torch', 'dask', 'distributed'} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "complete"), done.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_run_says_how_to_go_on_and_does(run, sample: Path, reference: Path, tmp_path: Path, number) -> None:
    out = tmp_path / "out.zarr"
    command = [sys.executable, "-m", "vimvol", "segment", f"{sample}:raw", str(out), *settings(), "--workers", "1"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    ledger = out / "vimvol" / "ledger" / "predict"
    deadline = time.monotonic() + 120
    while not list(ledger.glob("*/*.records")) and time.monotonic() < deadline:
        time.sleep(0.02)
    if number == signal.SIGINT:  # a terminal sends Ctrl-C to the workers, too
        os.killpg(process.pid, number)
    else:
        process.send_signal(number)
    err = process.communicate(timeout=120)[1]
    assert process.returncode == 130, err
    assert "the same command goes on" in err
    assert "Traceback" not in err
    code, _, err = run("segment", f"{sample}:raw", out, *settings())
    assert code == 0, err
    assert "done before" in err
    assert digest(out) == digest(reference)


@pytest.mark.parametrize("gap", [0.02, 0.3])
def test_more_requests_to_stop_change_nothing(sample: Path, tmp_path: Path, gap: float) -> None:
    out = tmp_path / "out.zarr"
    command = [sys.executable, "-m", "vimvol", "segment", f"{sample}:raw", str(out), *settings(), "--workers", "2"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    wait_for(lambda: bool(list((out / "vimvol" / "ledger" / "predict").glob("*/*.records"))), process)
    with contextlib.suppress(ProcessLookupError):  # it has ended
        for _ in range(20):
            os.killpg(process.pid, signal.SIGINT)
            time.sleep(gap)
    err = process.communicate(timeout=120)[1]
    assert process.returncode == 130, err
    assert not re.search("Traceback|resource_tracker|KeyboardInterrupt", err), err
    assert err.endswith(f"stopped; {GOES_ON}\n")


SWALLOWED = """
import signal, time, weakref
from vimvol.cli import main

class Held:
    pass

def program():
    for number in signal.SIGINT, signal.SIGTERM:  # both are dropped: the interpreter lets nothing out of a callback
        held = Held()
        watch = weakref.ref(held, lambda _: signal.raise_signal(number))
        del held
    time.sleep(100)

main(program)
"""


def test_a_signal_that_arrives_in_a_destructor_stops_the_run_too() -> None:
    done = subprocess.run([sys.executable, "-c", SWALLOWED], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 130, done.stderr
    assert done.stderr == "stopped; nothing was done yet\n"


CAUGHT = """
import signal, time
from vimvol.cli import main

def library():
    try:
        signal.raise_signal(signal.SIGINT)
    except BaseException:
        pass

def program():
    library()
    try:
        time.sleep(100)
    finally:  # is left in peace
        for _ in range(10):
            try:
                time.sleep(0.05)
                raise OSError
            except OSError:
                pass
        print("cleaned up", flush=True)

main(program)
"""


def test_a_signal_that_a_library_keeps_to_itself_stops_the_run_and_no_clean_up() -> None:
    done = subprocess.run([sys.executable, "-c", CAUGHT], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (130, "cleaned up\n"), done.stderr
    assert done.stderr == "stopped; nothing was done yet\n"


TURNED = """
import signal
from vimvol.cli import main, run_script

def library() -> None:
    try:
        signal.raise_signal(signal.SIGINT)
    except BaseException:
        pass
    raise ValueError("could not determine the shape")

def clean_up() -> None:
    try:
        signal.raise_signal(signal.SIGINT)
    finally:
        raise ValueError("could not be written")

"""


@pytest.mark.parametrize(
    ("call", "code", "last"),
    [
        ("main(library)", 130, "stopped; nothing was done yet"),
        ("run_script(library, '')", 130, "stopped; what is finished is kept"),
        # what went wrong in the end is no part of the request
        ("main(clean_up)", 1, "ValueError: could not be written"),
        ("run_script(clean_up, '')", 1, "ValueError: could not be written"),
    ],
)
def test_a_signal_that_a_library_turns_into_an_error_of_its_own_stops_the_run(call: str, code: int, last: str) -> None:
    script = [sys.executable, "-c", TURNED + call]
    done = subprocess.run(script, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == code, done.stderr
    assert last in done.stderr
    assert ("Traceback" in done.stderr) == (code == 1)


STOPPED_AT = """
import importlib.abc, signal, sys

class Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == module:
            signal.raise_signal(signal.SIGINT)

module = sys.argv.pop(1)
sys.meta_path.insert(0, Finder())
from vimvol.cli import main
main()
"""
"""A command that is asked to stop when it begins to load a module."""

GOES_ON = "what is finished is kept, the same command goes on from there"
BEGINS_ANEW = "nothing is kept, the same command begins anew"


@pytest.mark.parametrize(
    ("words", "module", "meaning"),
    [
        ("segment {raw} out.zarr", "segment", GOES_ON),
        ("agglomerate {out}", "agglomerate", GOES_ON),
        ("plan {raw} out.zarr", "plan", BEGINS_ANEW),
        ("qa {out}", "qa", BEGINS_ANEW),
        ("evaluate {out} {raw}", "score", BEGINS_ANEW),
        ("info {raw}", "listing", BEGINS_ANEW),
        ("--help", None, "nothing was done yet"),
    ],
)
def test_a_command_that_is_stopped_says_whether_the_same_goes_on(sample, reference, tmp_path, words, module, meaning):
    command = words.format(raw=f"{sample}:raw", out=reference).split()
    script = [sys.executable, "-c", STOPPED_AT, f"vimvol.commands.{module}" if module else "vimvol.config", *command]
    done = subprocess.run(script, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert (done.returncode, done.stderr.splitlines()[-1]) == (130, f"stopped; {meaning}"), done.stderr


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="a small file system needs root to mount")
@pytest.mark.parametrize("room", ["size=200k", "size=50m,nr_inodes=40"])
def test_a_full_disk_gets_one_line_and_goes_on_when_there_is_room(run, sample: Path, tmp_path: Path, room: str) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", room, "tmpfs", str(disk)]
    if shutil.which("mount") is None or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("this machine does not let a test mount a small file system")
    try:
        code, _, err = run("segment", f"{sample}:raw", disk / "out.zarr", *settings(), "--workers", "1")
        last = err.strip().splitlines()[-1]
        assert code == 1, err
        assert last.startswith("error: ")
        assert "No space left on device; free space, or files where df -i shows none left, or" in last
        assert "Traceback" not in err
        subprocess.run(["mount", "-o", "remount,size=50m,nr_inodes=10000", str(disk)], check=True)
        code, _, err = run("segment", f"{sample}:raw", disk / "out.zarr", *settings())
        assert code == 0, err
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_where_only_the_picture_cannot_be_written_the_segmentation_is_told_to_be_complete(
    run, sample: Path, reference: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.zarr"
    shutil.copytree(reference, out)
    picture = out / "vimvol" / "overview.png"
    picture.unlink(missing_ok=True)
    picture.mkdir()
    code, _, err = run("segment", f"{sample}:raw", out, *settings())
    assert code == 1
    assert "labels/segmentation is complete, but there is no picture of it: " in mistake(err)


def test_data_go_to_nnunet_and_predictions_come_back(run, sample, tmp_path) -> None:
    root = tmp_path / "raw"
    config = tmp_path / "train.yaml"
    volume = {"raw": "sample.zarr:raw", "labels": "sample.zarr:labels", "train": [0, 3], "validate": [3, 4]}
    config.write_text(json.dumps({"out": "runs/x", "root": str(sample.parent), "volumes": [volume]}))
    assert run("export-nnunet", config, root)[0] == 2  # it has no number
    code, text, _ = run("export-nnunet", config, root, "--id", 501, "--name", "Sample", "--set", "boundary_width=4")
    assert code == 0
    assert "3 cases to train, 1 to validate, 1 to test" in text
    assert (root / "Dataset501_Sample" / "dataset.json").is_file()
    predicted = tmp_path / "predicted"
    code, text, _ = run("export-nnunet", f"{sample}:raw", predicted)
    assert (code, "4 cases" in text) == (0, True)
    for path in list(predicted.iterdir()):
        path.rename(path.with_name(path.name.replace("_0000.tif", ".tif")))  # labels of a network that sees nothing
    shutil.copy(root / "Dataset501_Sample" / "dataset.json", predicted)
    code, text, error = run("import-nnunet", predicted, f"{sample}:raw", tmp_path / "boundaries.zarr")
    assert code == 0, error
    told = shlex.split(text.split("vimvol ", 1)[1])
    assert told[:3] == ["segment", f"{sample}:raw", "OUT.zarr"]
    code, text, error = run(*told[:2], tmp_path / "out.zarr", *told[3:], *settings())
    assert code == 0, error
    assert "1 segment of" in text


@pytest.mark.parametrize(
    "command",
    [
        "demo s3://b/d",
        "download cremi s3://b/d",
        "tune s3://b/d {raw} {raw}",
        "export-nnunet {raw} s3://b/d",
        "export-nnunet {root}/configs/train/unet_nano.yaml s3://b/d --id 1",
        "import-nnunet . {raw} s3://b/d",
        "train {root}/configs/train/unet_nano.yaml --set out=s3://b/d",
    ],
)
def test_what_only_goes_to_the_file_system_makes_no_folder_of_a_url(run, tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    tifffile.imwrite(tmp_path / "raw.tif", np.ones((2, 16, 16), np.uint8))
    code, _, error = run(*command.format(raw=tmp_path / "raw.tif", root=ROOT).split())
    assert (code, error.partition(",")[0]) == (2, "error: s3://b/d is in an object store")
    assert [path.name for path in tmp_path.iterdir()] == ["raw.tif"]


def test_what_is_to_be_written_in_the_end_is_checked_at_first(run, volume, tmp_path) -> None:
    address = f"{volume}:volumes/raw"
    for command in (["plan", address, tmp_path / "o.zarr"], ["evaluate", address, address]):
        code, _, err = run(*command, "--json", tmp_path / "missing" / "p.json")
        assert (code, err.count("\n")) == (2, 1)
        assert "p.json cannot be written" in err


@pytest.mark.parametrize("command", ["qa", "status", "agglomerate"])
def test_what_no_run_made_cannot_be_looked_at(run, tmp_path, command) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    code, _, err = run(command, tmp_path)
    assert code == 2
    assert "is no output of vimvol segment" in mistake(err)
    assert "give the OUT.zarr of a run" in err


def test_a_record_of_something_else_is_left_alone(run, volume, tmp_path) -> None:
    (tmp_path / "o.zarr" / "vimvol").mkdir(parents=True)
    (tmp_path / "o.zarr" / "vimvol" / "run.json").write_text('{"mine": 1}')
    code, _, err = run("segment", f"{volume}:volumes/raw", tmp_path / "o.zarr", "--set=input.voxel_size=[40,4,4]")
    assert code == 2
    assert "no output of vimvol" in mistake(err)
