import re
import subprocess
import sys

import pytest
import yaml
from pydantic import ValidationError

from tests.support import mistake
from vimvol.config import SegmentConfig, TrainConfig, load_config
from vimvol.config.reference import COMMANDS, all_groups, find_groups
from vimvol.errors import ConfigError, InputError
from vimvol.segment.multicut import SOLVERS

EVERY = {each.full: each for command in COMMANDS for group in all_groups(command) for each in group.settings}


@pytest.mark.parametrize("name", EVERY)
def test_every_setting_is_described(name: str) -> None:
    assert EVERY[name].description
    assert EVERY[name].takes


@pytest.mark.parametrize("command", COMMANDS)
def test_every_section_is_described(command: str) -> None:
    for group in all_groups(command):
        assert group.about.endswith(".")
        assert "`" not in group.about


@pytest.mark.parametrize("name", [each.name for group in all_groups("segment") for each in group.settings])
def test_defaults_are_those_of_a_run_and_may_be_set(name: str) -> None:
    section, key = name.split(".")
    config = load_config(SegmentConfig, None, [f"{name}={EVERY[name].default}"])
    assert config == SegmentConfig()
    value = SegmentConfig().model_dump(mode="json")[section][key]
    assert yaml.safe_load(EVERY[name].default) == value


def test_nothing_is_left_out() -> None:
    found = SegmentConfig().model_dump()
    assert {name for name in EVERY if not name.startswith(("train.", "cluster."))} == {
        f"{section}.{key}" for section, keys in found.items() for key in keys
    }
    keys = {field.alias or name for name, field in TrainConfig.model_fields.items()}
    assert {name.split(".")[1].removesuffix("[]") for name in EVERY if name.startswith("train.")} == keys
    assert {name.split(".")[1] for name in EVERY if name.startswith("cluster.")} == {
        *("local", "cuda", "slurm", "kubernetes", "address")
    }


@pytest.mark.parametrize(
    ("name", "takes"),
    [
        ("predict.batch", "whole number >= 1"),
        ("predict.tile", "list of 2 whole numbers >= 1"),
        ("input.roi", "list of 2 lists of 3 whole numbers >= 0, or null"),
        ("segment.mode", "2d | 3d"),
        ("agglomerate.beta", "number > 0 and < 1"),
        ("agglomerate.levels", "whole number >= 0 and <= 16, or null"),
        ("predict.invert", "true or false"),
        ("train.volumes[].planes", "list of z | y | x"),
        ("train.card", "keys and values"),
        ("cluster.slurm.walltime", "text like 08:00:00"),
        ("cluster.slurm.cpu", "section, or null"),
    ],
)
def test_what_a_setting_takes(name: str, takes: str) -> None:
    assert EVERY[name].takes == takes


def test_limits_are_those_that_hold() -> None:
    """Of every setting with one limit, the value beyond it is refused."""
    seen = 0
    for name, setting in EVERY.items():
        limit = re.fullmatch(r"(?:whole )?number (>=|>) (\d+)", setting.takes)
        if limit and not name.startswith(("train.", "cluster.")):
            seen += 1
            beyond = float(limit[2]) - 1
            with pytest.raises((ConfigError, ValidationError)):
                load_config(SegmentConfig, None, {name: int(beyond) if "whole" in setting.takes else beyond})
    assert seen > 5


@pytest.mark.parametrize(
    ("name", "names"),
    [
        ("fragments.sigma_seeds", ["fragments.sigma_seeds"]),
        ("beta", ["agglomerate.beta"]),
        ("train.augment.flip", ["train.augment.flip"]),
        ("augment.flip", ["train.augment.flip"]),
        ("volumes.raw", ["train.volumes[].raw"]),
        ("slurm.cpu.jobs", ["cluster.slurm.cpu.jobs"]),
        ("cluster.slurm.gpu.queue", ["cluster.slurm.gpu.queue"]),
    ],
)
def test_a_setting_is_found_by_any_name_that_is_clear(name: str, names: list[str]) -> None:
    assert [each.full for group in find_groups(name) for each in group.settings] == names


def test_sections_are_found() -> None:
    assert [group.name for group in find_groups("agglomerate")] == ["agglomerate"]
    assert {group.name for group in find_groups("train")} >= {"train", "train.volumes[]", "train.augment"}
    assert [group.name for group in find_groups()] == list(SegmentConfig.model_fields)
    for wrong, meant in (
        ("agglomerate.bta", "agglomerate.beta"),
        ("predict.tille", "predict.tile"),
        ("agglomrate", "agglomerate"),
    ):
        with pytest.raises(InputError, match=rf"^no setting is called '{wrong}'; did you mean '{meant}'") as error:
            find_groups(wrong)
        assert "\n" not in str(error.value)


def test_solvers_are_named() -> None:
    assert EVERY["agglomerate.solver"].takes.split(" | ") == list(SOLVERS)


def test_on_the_command_line(run) -> None:
    code, text, _ = run("settings", "agglomerate.beta")
    assert code == 0
    assert text.splitlines() == [
        "# agglomerate: From fragments to segments by multicut.",
        "setting           takes               default  meaning",
        f"agglomerate.beta  number > 0 and < 1  0.25     {EVERY['agglomerate.beta'].description}",
    ]
    section, about = text.splitlines()[0].removeprefix("# ").split(": ")
    for words in ([], ["segment"]):  # a line each
        code, text, err = run("settings", *words)
        assert (code, "vimvol settings train" in err) == (0, True)
        head, *rows = text.splitlines()
        assert head.split() == ["section", "what", "for", "settings"]
        assert [row.split()[0] for row in rows] == list(SegmentConfig.model_fields)
        (row,) = (row for row in rows if row.startswith(f"{section} "))
        assert about in row
        assert row.endswith(
            "solver, costs, beta, beta_across, beta_profiles, beta_learned, size_weighting, memory, levels, "
            "cell, margin, join_below, fill_below"
        )
    code, text, err = run("settings", "--all")
    assert (code, text.count("# "), err) == (0, len(SegmentConfig.model_fields), "")
    assert run("settings", "segment", "--all")[1] == text
    one = run("settings", "predict")[1]
    assert one in text
    assert run("settings", "segment", "predict")[1] == one
    assert [run("settings", *words)[1].count("# ") for words in (["segment", "segment"], ["segment", "mode"])] == [1, 1]
    assert run("settings", "train", "augment")[1] == run("settings", "train.augment")[1]
    assert run("settings", "cluster", "slurm")[1] == run("settings", "slurm")[1]
    assert run("settings", "predict", "tile")[1] == run("settings", "predict.tile")[1]
    sections = {"train": ["volumes", "images", "drawn", "augment"], "cluster": ["local", "cuda", "slurm"]}
    for command, names in sections.items():  # what lies in no section in full, the others a line each
        code, text, err = run("settings", command)
        head, _, listed = text.rpartition("section ")
        assert code == 0
        assert head == (run("settings", "train", "--all")[1].split("# train.volumes")[0] if command == "train" else "")
        rows = [row.split()[0] for row in listed.splitlines()[1:]]
        assert rows[: len(names)] == [f"{command}.{name}" for name in names]
        assert f"of all vimvol settings {command} --all" in err
        assert all(f"# {row}" in run("settings", row)[1] for row in rows)
    code, _, err = run("settings", "train", "predict")
    assert (code, "no setting of train is called 'predict'" in mistake(err)) == (2, True)
    code, _, err = run("settings", "nothing_like_it")
    assert (code, err.count("\n")) == (2, 1)


def test_no_framework_is_loaded() -> None:
    script = "import sys; sys.argv = ['vimvol', 'settings', 'train']\nfrom vimvol.cli import main\ntry: main()\n"
    script += "finally: assert not {'torch', 'dask', 'zarr', 'numpy'} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "train.augment" in done.stdout


@pytest.mark.parametrize(
    ("kind", "data", "command"),
    [
        (SegmentConfig, {"predict": {"tle": 1}}, "`vimvol settings --all` describes all"),
        (TrainConfig, {"out": "x", "stps": 1}, "`vimvol settings train --all` describes all"),
    ],
)
def test_an_unknown_key_tells_of_the_reference(kind, data, command) -> None:
    with pytest.raises(ConfigError, match=f"unknown key .*{command}$"):
        load_config(kind, None, data)
