"""The paper's table and figure, from data to scores, on small files of the formats that the trainings read."""

import importlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
import zarr
from elf.evaluation import mean_segmentation_accuracy
from skimage.measure import label

from tests.train.formats import write_data
from tests.train.test_configs import SMALL
from vimvol.config import TrainConfig, load_config
from vimvol.errors import IncompleteRunError, InputError
from vimvol.infer.measure import Cost
from vimvol.models.unet import UNet
from vimvol.models.vimunet import ViMUNet
from vimvol.train.fit import fit
from vimvol.train.sources import load_test_data

pytestmark = pytest.mark.slow
REPOSITORY = Path(__file__).parents[2]
KINDS = {
    "cremi_unet": UNet,
    "cremi_vimunet_tiny": ViMUNet,
    "livecell_boundaries_unet": UNet,
    "livecell_distances_vimunet_tiny": ViMUNet,
}
TRAINED = ("cremi_unet", "livecell_boundaries_unet", "livecell_distances_vimunet_tiny")


@pytest.fixture(scope="module")
def script():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(REPOSITORY / "pipelines"))
        yield importlib.import_module("reproduce_paper")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Configurations that make the paper's networks small, data of the real formats, and three trainings."""
    where = tmp_path_factory.mktemp("paper")
    (where / "configs").mkdir()
    for name, kind in KINDS.items():
        path = REPOSITORY / "configs" / "train" / f"{name}.yaml"
        text = {
            "base": str(path),
            "options": SMALL[kind],
            "out": f"{where}/runs/{load_config(TrainConfig, str(path)).out.split('/')[1]}",
            "patch": [32, 32],
            "batch": 4,
            "steps": 50,
            "learning_rate": 0.01,
            "validate_every": 50,
            "validate_slices": 1,
            "pictures": 0,
            "threads": 1,
            "workers": 0,
        }
        (where / "configs" / f"{name}.yaml").write_text(yaml.safe_dump(text))
        config = load_config(TrainConfig, str(where / "configs" / f"{name}.yaml"))
        config = config.model_copy(update={"root": str(where / "data" / Path(config.root).name)})
        if not Path(config.root).exists():
            write_data(config, Path(config.root))
        if name in TRAINED:
            fit(config)
    return where


def run(script, folder: Path, out: Path, **more):
    options = {"overrides": ["run.workers=0"], "size": 64, "repeat": 1, "keep": True} | more
    script.main(folder / "runs", data=folder / "data", out=out, configs=folder / "configs", **options)
    return {row["experiment"]: row for row in json.loads((out / "results.json").read_text())["rows"]}


@pytest.fixture(scope="module")
def made(script, folder):
    out = folder / "paper"
    return out, run(script, folder, out)


def expected(folder: Path, out: Path, name: str, parts: bool = False) -> list[float]:
    """What elf makes of the segmentations and the ground truth as the configuration reads it, image by image."""
    config = load_config(TrainConfig, str(folder / "configs" / f"{name}.yaml"))
    config = config.model_copy(update={"root": str(folder / "data" / Path(config.root).name)})
    truth = [source.read(i).labels for source in load_test_data(config) for i in range(len(source))]
    outs = sorted((out / "segmentations" / name).glob("*.zarr"), key=lambda path: int(path.stem))
    found = [s for path in outs for s in zarr.open_array(f"{path}/labels/segmentation/0", mode="r")[:]]
    assert len(found) == len(truth)
    if parts:
        truth = [label(t, background=0, connectivity=1) for t in truth]
    return [mean_segmentation_accuracy(s, t) for s, t in zip(found, truth, strict=True)]


@pytest.mark.parametrize("name", TRAINED)
def test_networks_that_are_trained_are_scored_as_the_paper_does(made, folder, name):
    out, rows = made
    scores = expected(folder, out, name)
    assert rows[name]["scores"]["images"] == len(scores) == (75 if name.startswith("cremi") else 2)
    assert rows[name]["scores"]["mean_segmentation_accuracy"] == pytest.approx(np.mean(scores), abs=1e-12)
    assert [one["mean_segmentation_accuracy"] for one in rows[name]["scores"]["slices"]] == pytest.approx(scores)
    assert 0 < np.mean(scores) < 1  # something is found, and something is not


def test_parts_of_a_body_may_count_one_by_one(made, folder):
    out, rows = made
    scores = expected(folder, out, "cremi_unet", parts=True)
    assert rows["cremi_unet"]["scores"]["parts"] == pytest.approx(np.mean(scores), abs=1e-12)
    assert 0.3 < np.mean(scores) < 1
    assert "parts" not in rows["livecell_boundaries_unet"]["scores"]


def test_the_table_says_what_is_trained_and_what_the_paper_has(made):
    out, rows = made
    lines = (out / "table.md").read_text().splitlines()
    cells = {tuple(line.split(" | ")[:2]): line.strip("| ").split(" | ") for line in lines if line.startswith("| ")}
    trained = cells["| UNet", "CREMI, boundaries"]
    assert trained[3] == "28"
    assert trained[2] == f"{rows['cremi_unet']['parameters']:,}"
    assert (trained[6], trained[9]) == ("trained", "0.354")
    assert float(trained[8]) == round(rows["cremi_unet"]["scores"]["mean_segmentation_accuracy"], 3)
    assert float(trained[12]) == round(rows["cremi_unet"]["scores"]["parts"], 3)
    random = cells["| ViM-UNet Tiny", "CREMI, boundaries"]
    assert random[6:10] == ["random", "-", "-", "0.518"]
    assert float(random[5]) > 0
    absent = cells["| UNETR Huge", "LIVECell, distances"]
    assert absent[2] == absent[4] == "-"
    assert absent[6:10] == ["no configuration", "-", "-", "0.136"]
    assert (out / "figure.png").read_bytes().startswith(b"\x89PNG")


def test_what_is_done_is_not_done_again(made, script, folder, monkeypatch):
    out, rows = made

    def fail(*_, **__):
        raise AssertionError("it was done again")

    monkeypatch.setattr(script, "segment_volume", fail)
    monkeypatch.setattr("vimvol.infer.measure.measure", fail)
    monkeypatch.setattr("vimvol.train.sources.load_test_data", fail)
    assert run(script, folder, out) == rows


def test_costs_are_those_of_the_device_that_is_asked_for(made, script, folder, tmp_path, monkeypatch):
    out, rows = made
    shutil.copytree(out, tmp_path / "paper", ignore=shutil.ignore_patterns("segmentations"))
    asked = []

    def measured(name, *, device, **_):
        asked.append((name, device))
        return Cost(1.5, 2.5, "another")

    monkeypatch.setattr("vimvol.infer.measure.measure", measured)
    overrides = ["run.workers=0", "predict.device=cpu"]
    fast = run(script, folder, tmp_path / "paper", overrides=overrides, only=["cremi_unet"])
    assert asked == [("unet", "cpu")]
    assert fast["cremi_unet"]["cost"]["device"] == "another"
    assert fast["cremi_unet"]["scores"] == rows["cremi_unet"]["scores"]


def test_only_what_is_wanted_is_done_and_the_rest_is_shown(made, script, folder, tmp_path):
    out, rows = made
    assert run(script, folder, out, only=["cremi_vimunet*"]) == rows
    some = run(script, folder, tmp_path / "paper", only=["livecell_boundaries_*"])
    assert [name for name, row in some.items() if row["scores"]] == ["livecell_boundaries_unet"]
    assert [name for name, row in some.items() if row["cost"]] == ["cremi_unet", "livecell_boundaries_unet"]
    with pytest.raises(InputError, match="cremi_unett fits no experiment; there are cremi_unet, "):
        run(script, folder, tmp_path / "paper", only=["cremi_unett"])


def test_an_interrupted_run_goes_on_and_a_new_training_is_scored_anew(made, script, folder, tmp_path, monkeypatch):
    out, rows = made
    shutil.copytree(out, tmp_path / "paper", ignore=shutil.ignore_patterns("segmentations", "scores"))
    original = script.segment_volume
    done = []

    def stop(source, target, *rest, **more):
        if len(done) == 4:
            raise KeyboardInterrupt
        done.append(target)
        return original(source, target, *rest, **more)

    with monkeypatch.context() as patch:
        patch.setattr(script, "segment_volume", stop)
        with pytest.raises(KeyboardInterrupt):
            run(script, folder, tmp_path / "paper")
    again = run(script, folder, tmp_path / "paper")
    for name in TRAINED:
        assert again[name]["scores"]["slices"] == rows[name]["scores"]["slices"]
    weights = Path(rows["livecell_boundaries_unet"]["weights"])
    content = weights.read_bytes()
    try:
        shutil.copy(rows["cremi_unet"]["weights"], weights)
        with pytest.raises(IncompleteRunError, match=r"1 of 4 experiments.*holds a unet for boundary, not a unet for"):
            run(script, folder, tmp_path / "paper")
        table = (tmp_path / "paper" / "table.md").read_text()
        assert table.count("| trained | 75 |") == 1
        assert table.count("| trained | 2 |") == 1
        assert table.count("| trained | - | - |") == 1
    finally:
        weights.write_bytes(content)
