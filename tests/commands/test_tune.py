import csv
import shutil

import numpy as np
import pytest
import yaml
import zarr

from tests.support import SMALL, digest, random_network, small_config
from vimvol.commands import tune as module
from vimvol.commands.score import score
from vimvol.commands.segment import segment_volume
from vimvol.commands.tune import tune
from vimvol.config import SegmentConfig, load_config
from vimvol.errors import InputError
from vimvol.segment.cells import METHODS
from vimvol.train.targets import TARGETS
from vimvol.tuning.tunable import OBJECTIVES, SPACES

POOR = {"segment__mode": "2d", "agglomerate__beta": 0.95, "fragments__threshold": 0.9}
"""Settings that a few trials improve on."""


@pytest.fixture
def pair(sample):
    return f"{sample}:raw", f"{sample}:labels"


def rows(folder):
    with (folder / "trials.csv").open() as file:
        return list(csv.DictReader(file))


def test_the_best_trial_is_what_a_run_with_its_settings_scores(pair, tmp_path):
    config = small_config(**POOR)
    told = []
    found = tune([pair], str(tmp_path / "tuned"), config, trials=3, told=lambda *args: told.append(args))
    assert found.best.score > found.first.score
    assert found.best.score == max(float(row["score"]) for row in rows(tmp_path / "tuned"))
    assert [trial.number for trial, _, _ in told] == [0, 1, 2, 3]
    assert told[-1][1:] == (found.best, 0)
    assert found.picture.read_bytes().startswith(b"\x89PNG")
    settings = load_config(SegmentConfig, str(found.config), {"run.workers": 0})
    for name, value in found.best.values.items():
        section, key = name.split(".")
        assert getattr(getattr(settings, section), key) == value
    again = str(tmp_path / "again.zarr")
    segment_volume(pair[0], again, settings)
    assert score(again, pair[1])["scores"]["slices"]["mean_segmentation_accuracy"] == found.best.score
    assert "run" not in yaml.safe_load(found.config.read_text())


def test_cells_are_tuned_on_their_background(pair, tmp_path):
    classes = TARGETS["foreground-boundary"].classes
    weights = random_network(tmp_path / "cells.safetensors", gain=8, out_channels=2, classes=classes)
    config = small_config(segment__mode="2d", predict__model=weights)
    out = str(tmp_path / "out.zarr")
    segment_volume(pair[0], out, config)
    found = zarr.open_array(f"{out}/labels/segmentation/0", mode="r")[:]
    truth = str(tmp_path / "truth.zarr")
    zarr.create_array(truth, data=np.where(found % 2, found, 0))  # every other cell is false
    keep, ignore = (
        score(out, truth, background=rule)["scores"]["slices"]["mean_segmentation_accuracy"]
        for rule in ("keep", "ignore")
    )
    assert keep < 0.7 < ignore
    assert tune([(pair[0], truth)], str(tmp_path / "tuned"), config, trials=0).best.score == keep


def test_a_tuning_goes_on_as_if_it_had_not_stopped(pair, tmp_path, monkeypatch):
    config = small_config(**POOR)
    tune([pair], str(tmp_path / "whole"), config, trials=3)
    tune([pair], str(tmp_path / "parts"), config, trials=1)
    tried = []
    original = module._tried

    def count(number, *rest):
        tried.append(number)
        return original(number, *rest)

    monkeypatch.setattr(module, "_tried", count)
    tune([pair], str(tmp_path / "parts"), config, trials=3)
    assert tried == [2, 3]
    whole, parts = ([{**row, "seconds": 0} for row in rows(tmp_path / name)] for name in ("whole", "parts"))
    assert whole == parts
    with pytest.raises(InputError, match="holds trials with other seed"):
        tune([pair], str(tmp_path / "parts"), config, trials=3, seed=1)
    with pytest.raises(InputError, match=r"parts holds trials of all slices, .*leave --slices out to go on, or name"):
        tune([pair], str(tmp_path / "parts"), config, trials=3, slices=(0, 2))


def test_no_trial_is_lost_to_a_call_for_fewer_or_for_no_more_time_or_with_other_draws(pair, tmp_path, monkeypatch):
    config, folder = small_config(**POOR), tmp_path / "tuned"
    whole = tune([pair], str(folder), config, trials=2)
    before, best = rows(folder), whole.config.read_text()
    for less in ({"trials": 0}, {"trials": 2, "seconds": 0}):
        told = []
        again = tune([pair], str(folder), config, told=lambda *args, told=told: told.append(args), **less)
        assert (again.trials, again.best, again.config.read_text()) == (2, whole.best, best)
        assert [left for _, _, left in told] == [0, 0, 0]
        assert rows(folder) == before
    monkeypatch.setattr(module.Draws, "draw", lambda _: dict.fromkeys(whole.best.values, 0.5))
    with pytest.raises(InputError, match=r"trials\.csv holds other trials than this version of Optuna draws"):
        tune([pair], str(folder), config, trials=2)
    assert rows(folder) == before


def test_the_best_settings_are_told_in_full_though_they_were_those_given(pair, tmp_path):
    found = tune([pair], str(tmp_path / "tuned"), small_config(segment__mode="2d"), trials=0)
    written = yaml.safe_load(found.config.read_text())
    assert found.best.values == {p.key: written[p.key.split(".")[0]][p.key.split(".")[1]] for p in SPACES["distance"]}


def test_of_chosen_slices_alone(pair, tmp_path):
    config = small_config(segment__mode="2d")
    found = tune([pair], str(tmp_path / "tuned"), config, slices=(1, 3), trials=1)
    assert found.trials == 1
    more = tune([pair], str(tmp_path / "tuned"), config, slices=(1, 3), trials=2)  # goes on
    assert (more.trials, more.first) == (2, found.first)
    before = digest(tmp_path / "tuned" / "slices-0.zarr")
    for other in ((2, 4), (0, 3), None):
        with pytest.raises(InputError, match=r"tuned holds trials of --slices 1:3, .*give --slices 1:3 to go on, or"):
            tune([pair], str(tmp_path / "tuned"), config, slices=other, trials=1)
    assert digest(tmp_path / "tuned" / "slices-0.zarr") == before
    out = str(tmp_path / "tuned" / "volume-0.zarr")
    assert score(out, f"{tmp_path}/tuned/slices-0.zarr:labels/truth/0")["scores"]["slices"]["sa50"] > 0


@pytest.mark.parametrize("slices", [(1, 9), (7, 9), (3, 1)])
def test_slices_that_are_not_there_are_told_before_a_network_is_looked_for(run, pair, tmp_path, slices):
    config = small_config(predict__model="nothing")
    message = rf"slices {slices[0]}:{slices[1]} are not all in .*raw, which has 4, 0:4; give"
    with pytest.raises(InputError, match=message):
        tune([pair], str(tmp_path / "tuned"), config, slices=slices)
    assert not (tmp_path / "tuned").exists()
    code, _, err = run("tune", tmp_path / "tuned", *pair, "--slices", "3:1")
    assert (code, "--slices 3:1 holds no slice; give the first, and" in err) == (2, True)


def test_every_parameter_of_every_space_is_a_setting_that_takes_all_of_its_values():
    config = SegmentConfig()
    for space in SPACES.values():
        for parameter in space:
            for value in (parameter.low, parameter.high):
                module._with(config, {parameter.key: value})
            module._values(config, [parameter])
    assert set(OBJECTIVES) == {"2d", "3d", "cells"}
    assert {f"cells: {method}" for method in METHODS} <= set(SPACES)


def test_from_the_command_line(run, pair, tmp_path):
    options = [f"--set={key}={value}" for key, value in {**SMALL, "segment.mode": "2d"}.items()]
    code, out, err = run("tune", tmp_path / "tuned", *pair, "--trials", 1, *options)
    assert code == 0, err
    assert "mean_segmentation_accuracy" in out
    assert [line.partition(":")[0] for line in err.splitlines()] == ["settings as given", "trial 1 of 1"]
    shutil.rmtree(tmp_path / "tuned")
    for arguments, message in (
        ([pair[0]], "has no ground truth beside it"),
        ([*pair, "--slices", "x"], "is no range"),
        ([*pair, "--set", "predict.model=nothing"], "nothing"),
    ):
        code, _, err = run("tune", tmp_path / "tuned", *arguments)
        assert (code, message in err) == (2, True), err
        assert not (tmp_path / "tuned").exists()
