"""What an output refuses by itself is refused before the input is opened or anything that computes is loaded."""

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

from tests.support import settings, small_config
from vimvol.commands.plan import plan_volume
from vimvol.commands.segment import segment_volume
from vimvol.engine.lock import NAME, Holder
from vimvol.errors import InputError, OutputBusyError, OutputExistsError
from vimvol.io.objects import open_objects
from vimvol.outputs.ahead import surely_other
from vimvol.outputs.manifest import read_manifest, write_manifest
from vimvol.outputs.output import new_manifest
from vimvol.preflight import prepare as preparing
from vimvol.preflight.prepare import prepare


@pytest.fixture
def unopened(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the test fail where the input is opened."""

    def fail(*_: object, **__: object) -> None:
        raise AssertionError("the input was opened")

    monkeypatch.setattr(preparing, "open_volume", fail)


def hold(out: Path) -> None:
    """Let this process be another run that writes an output."""
    open_objects(str(out / "vimvol")).put(NAME, json.dumps(asdict(Holder.this_process())).encode())


@pytest.mark.usefixtures("unopened")
def test_what_the_output_refuses_is_refused_before_the_input_is_opened(
    sample: Path, reference: Path, tmp_path: Path
) -> None:
    source = f"{sample}:raw"
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "notes.txt").write_text("mine")
    for run in (segment_volume, plan_volume):
        with pytest.raises(OutputExistsError, match="is no output of vimvol"):
            run(source, str(tmp_path / "theirs"), small_config())
        with pytest.raises(OutputExistsError, match=r"other settings \(agglomerate.beta: 0.25 -> 0.3\).* --name NAME"):
            run(source, str(reference), small_config(agglomerate__beta=0.3))
        with pytest.raises(OutputExistsError, match=r"other settings \(fragments.alpha: 0.9 -> 0.5\).*--overwrite"):
            run(source, str(reference), small_config(fragments__alpha=0.5))
        with pytest.raises(InputError, match=r"no earlier run, .*; run without --moved"):
            run(source, str(tmp_path / "new.zarr"), small_config(), moved=True)
    with pytest.raises(InputError, match="holds nothing yet that replaced sections"):
        segment_volume(source, str(tmp_path / "new.zarr"), small_config(), replaced=[(0, 1)])
    with pytest.raises(InputError, match=r"other settings \(fragments.alpha: .*without --replaced"):
        segment_volume(source, str(reference), small_config(fragments__alpha=0.5), replaced=[(0, 1)])
    hold(tmp_path / "busy.zarr")
    with pytest.raises(OutputBusyError, match="written by another run"):
        segment_volume(source, str(tmp_path / "busy.zarr"), small_config())
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="is no folder"):
        segment_volume(source, str(tmp_path / "file" / "out.zarr"), small_config())
    assert not (tmp_path / "new.zarr").exists()


def test_an_output_that_is_complete_is_told_also_while_another_run_holds_it(
    sample: Path, tmp_path: Path, ready: dict[str, str]
) -> None:
    """As one that puts another segmentation beside it."""
    out, config = tmp_path / "out.zarr", small_config(**ready)
    segment_volume(f"{sample}:raw", str(out), config)
    hold(out)
    assert segment_volume(f"{sample}:raw", str(out), config).done_before
    with pytest.raises(OutputBusyError):
        segment_volume(f"{sample}:raw", str(out), small_config(**ready, agglomerate__beta=0.4), overwrite=True)
    manifest = read_manifest(str(out)) or {}
    write_manifest(str(out), {**manifest, "state": "running"})
    with pytest.raises(OutputBusyError):
        segment_volume(f"{sample}:raw", str(out), config)


CHANGES: dict[str, object] = {
    "input.missing": 1,
    "predict.augment": "flips",
    "predict.batch": 2,
    "predict.precision": "bfloat16",
    "predict.invert": True,
    "segment.min_size": 30,
    "fragments.seeds": "components",
    "fragments.threshold": 0.5,
    "fragments.sigma_seeds": 1.0,
    "fragments.sigma_weights": 1.0,
    "fragments.alpha": 0.5,
    "fragments.min_size": 30,
    "agglomerate.solver": "greedy",
    "agglomerate.beta": 0.3,
    "agglomerate.beta_across": 0.3,
    "agglomerate.beta_profiles": 0.4,
    "agglomerate.size_weighting": False,
    "agglomerate.memory": 2**30,
    "agglomerate.levels": 1,
    "agglomerate.cell": [64, 64, 64],
    "agglomerate.margin": 3,
    "agglomerate.join_below": 10,
    "agglomerate.fill_below": 10,
    "output.chunk": [2, 32, 24],
}
"""A setting, and another value of it that decides about the result."""
OPEN: dict[str, object] = {
    "input.axes": "zyx",
    "input.voxel_size": [50.0, 4.6, 4.6],
    "input.roi": [[0, 0, 0], [4, 128, 120]],
    "predict.normalize": "slice",
    "predict.rescale": "none",
    "predict.device": "cpu",
    "predict.tile": [32, 32],
    "predict.halo": [32, 32],
    "fragments.dimension": "2d",
    "fragments.halo": [0, 32, 32],
    "agglomerate.beta_learned": 0.4,
    "cells.seed": 0.4,
    "output.levels": 2,
}
"""Of these it depends on the input or the network whether they do."""


def flat(changes: dict[str, object]) -> dict[str, object]:
    return {key.replace(".", "__"): value for key, value in changes.items()}


@pytest.mark.parametrize(
    ("base", "unused"),
    [
        ({}, set()),
        (
            {"fragments.dimension": "3d", "fragments.tile": [4, 64, 64], "output.shard": [4, 64, 48]},
            {"beta_across", "beta_profiles"},
        ),
        ({"segment.mode": "2d"}, {"beta_across", "beta_profiles"}),
        (
            {"segment.mode": "2d", "fragments.seeds": "components"},
            {"beta_across", "beta_profiles", "beta", "solver", "size_weighting", "memory", "levels", "cell", "margin"},
        ),
    ],
)
def test_only_settings_that_change_what_comes_out_are_refused_ahead(
    sample: Path, tmp_path: Path, base: dict[str, object], unused: set[str]
) -> None:
    out = str(tmp_path / "out.zarr")
    job = prepare(f"{sample}:raw", out, small_config(**flat(base)))
    manifest = json.loads(json.dumps(new_manifest(job, "")))
    for name, value in (CHANGES | OPEN).items():
        if base.get(name) == value or ("beta" in unused and name.endswith("_below")):  # refused by itself
            continue
        config = small_config(**flat({**base, name: value}))
        found = surely_other(manifest, config)
        expected = name in CHANGES and name.removeprefix("agglomerate.") not in unused
        assert found == ([name] if expected else []), name
        changed = prepare(f"{sample}:raw", out, config).keys != job.keys
        assert changed or not found, name


def test_of_what_another_version_noted_nothing_is_said_ahead(reference: Path) -> None:
    manifest, changed = read_manifest(str(reference)) or {}, small_config(agglomerate__beta=0.3)
    assert surely_other(manifest, changed) == ["agglomerate.beta"]
    for section in ("predict", "agglomerate"):
        config = {**manifest["config"], section: {"gone": 1}}
        assert surely_other({**manifest, "config": config}, changed) == []
    for name in ("config", "layout", "stored"):
        surely_other({key: value for key, value in manifest.items() if key != name}, changed)
    assert surely_other({"keys": {}}, changed) == []


@pytest.mark.parametrize("command", ["segment", "plan", "agglomerate", "export"])
def test_the_command_line_refuses_before_it_loads_what_computes(
    sample: Path, reference: Path, tmp_path: Path, command: str
) -> None:
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "notes.txt").write_text("mine")
    words: dict[str, list[object]] = {
        "segment": [f"{sample}:raw", reference, *settings(**{"agglomerate.beta": 0.3})],
        "plan": [f"{sample}:raw", tmp_path / "theirs"],
        "agglomerate": [tmp_path / "theirs"],
        "export": [reference, tmp_path / "theirs"],
    }
    program = "import sys; from vimvol.cli import main\ntry: main()\n"
    program += "except SystemExit as leave: print(leave.code, {'torch', 'dask'} & sys.modules.keys())"
    line = [sys.executable, "-c", program, command, *map(str, words[command])]
    done = subprocess.run(line, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "2 set()", done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: ")
