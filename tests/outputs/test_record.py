"""What a run leaves about itself: in ``run.json``, and in a log of JSON lines."""

import json
import logging
import shutil
from pathlib import Path

import pytest

from tests.support import digest, small_config
from vimvol.commands.agglomerate import agglomerate
from vimvol.commands.segment import segment_volume
from vimvol.errors import IncompleteRunError, InputError
from vimvol.geometry import Block
from vimvol.infer.predictor import Predictor
from vimvol.outputs.expected import Forecast, StageForecast
from vimvol.outputs.record import compared
from vimvol.stages.predict import PredictBlock

POISON = Block((2, 64, 48), (4, 128, 96))


def runs(out: Path) -> list[dict]:
    return json.loads((out / "vimvol" / "run.json").read_text())["runs"]


def events(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def fails(monkeypatch: pytest.MonkeyPatch):
    """Let one block fail a number of times."""

    def install(times: int) -> None:
        original, left = PredictBlock.__call__, [times]

        def broken(self: PredictBlock, block: Block) -> dict:
            if block == POISON and left[0]:
                left[0] -= 1
                raise RuntimeError("broken on purpose")
            return original(self, block)

        monkeypatch.setattr(PredictBlock, "__call__", broken)

    return install


def test_every_run_that_contributed_is_recorded(sample: Path, reference: Path, tmp_path: Path, fails) -> None:
    out, log = tmp_path / "out.zarr", tmp_path / "log.jsonl"
    fails(times=1)
    with pytest.raises(IncompleteRunError):
        segment_volume(f"{sample}:raw", str(out), small_config(run__retries=0), command="first", log=str(log))
    segment_volume(f"{sample}:raw", str(out), small_config(), command="second", log=str(log))
    assert digest(out) == digest(reference)
    first, second = runs(out)
    assert (first["state"], first["command"], first["error"][:18]) == ("failed", "first", "IncompleteRunError")
    assert (second["state"], second["command"]) == ("complete", "second")
    for run in (first, second):
        assert run["versions"]["vimvol"] != "not installed"
        assert len(run["model"]["sha256"]) == 64
        assert run["config"]["predict"]["model"] == "vimunet-nano"
        assert run["started"] <= run["finished"]
    assert [(stage["name"], stage["blocks"], stage["failures"]) for stage in first["stages"]] == [("predict", 11, 1)]
    again = {stage["name"]: stage["blocks"] for stage in second["stages"]}
    assert again["predict"] == 1
    assert again["fragments"] == 12
    assert sum(stage["voxels"] for run in (first, second) for stage in run["stages"][:1]) == 4 * 128 * 120
    lines = events(log)
    assert [line["event"] for line in lines].count("run begins") == 2
    assert [line["state"] for line in lines if line["event"] == "run ends"] == ["failed", "complete"]
    (failed,) = (line for line in lines if line["event"] == "block failed")
    assert (failed["stage"], failed["block"], failed["error"]) == (
        "predict",
        str(POISON),
        "RuntimeError: broken on purpose",
    )
    assert "broken on purpose" in failed["trace"]


def test_retries_halvings_and_fallbacks_are_in_the_log(
    sample: Path, tmp_path: Path, fails, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, log = tmp_path / "out.zarr", tmp_path / "log.jsonl"
    fails(times=1)
    original, calls = Predictor._probabilities, []

    def scarce(self, tiles, *others):
        calls.append(len(tiles))
        if len(calls) == 3:
            raise MemoryError
        return original(self, tiles, *others)

    monkeypatch.setattr(Predictor, "_probabilities", scarce)
    segment_volume(f"{sample}:raw", str(out), small_config(predict__batch=2), log=str(log))
    lines = events(log)
    assert [line["block"] for line in lines if line["event"] == "block tried again"] == [str(POISON)]
    (healed,) = (line for line in lines if line["event"] == "healed")
    assert (healed["stage"], healed["halved"]) == ("predict", 1)
    stages = [line for line in lines if line["event"] == "stage ends"]
    assert [line["stage"] for line in lines if line["event"] == "stage begins"] == [line["stage"] for line in stages]
    assert stages[0]["halved"] == 1
    assert all(line["seconds"] >= 0 and line["cpu"] >= 0 and line["peak"] > 0 for line in stages)
    assert runs(out)[0]["stages"] == [
        {"name": line["stage"], **{k: v for k, v in line.items() if k not in ("time", "event", "stage")}}
        for line in stages
    ]


def test_runs_with_other_settings_stay_recorded_as_long_as_their_arrays_do(
    reference: Path, sample: Path, tmp_path: Path
) -> None:
    out = Path(shutil.copytree(reference, tmp_path / "out.zarr"))
    log = tmp_path / "log.jsonl"
    agglomerate(str(out), ["agglomerate.beta=0.6"], workers=0, command="finer", log=str(log))
    assert [run["config"]["agglomerate"]["beta"] for run in runs(out)] == [0.25, 0.6]
    assert "predict" not in {stage["name"] for stage in runs(out)[1]["stages"] if stage["blocks"]}
    agglomerate(str(out), ["agglomerate.beta=0.7"], name="beside", workers=0, log=str(log))
    agglomerate(str(out), ["agglomerate.beta=0.8"], name="beside", workers=0)
    beside = json.loads((out / "vimvol" / "agglomerated" / "beside" / "run.json").read_text())
    assert [run["config"]["agglomerate"]["beta"] for run in beside["runs"]] == [0.7, 0.8]
    assert [line["event"] for line in events(log)].count("run ends") == 2
    shutil.rmtree(out / "labels" / "beside")
    segment_volume(f"{sample}:raw", str(out), small_config(output__shard=[2, 128, 144]), overwrite=True)
    assert len(runs(out)) == 1


def test_what_cannot_be_told_is_refused_before_anything_is_written(sample: Path, tmp_path: Path) -> None:
    pytest.importorskip("bokeh")
    out = tmp_path / "out.zarr"
    for options in ({"log": str(tmp_path / "no" / "log")}, {"performance_report": str(tmp_path / "report.html")}):
        with pytest.raises(InputError):
            segment_volume(f"{sample}:raw", str(out), small_config(), **options)
    assert not list(tmp_path.iterdir())
    assert not logging.getLogger("vimvol").handlers


def test_what_a_run_took_is_set_beside_the_forecast_of_the_same(tmp_path: Path) -> None:
    def ahead(left: int) -> Forecast:
        stages = (StageForecast("predict", 4, left, 100), StageForecast("graph", 4, 4, 100))
        return Forecast(stages, 2, 2, 9, 1, 9, True, 1, None)

    taken = {"blocks": 4, "peak": 2 << 30, "written": 3000}
    told = {"seconds": 30.0, "peak": 1 << 30, "written": 2000}
    rest = {"name": "graph", "seconds": 60.0, **taken, "forecast": dict.fromkeys(told)}  # the sample did not have it
    entry = {"stages": [{"name": "predict", "seconds": 20.0, **taken, "forecast": told}, rest]}
    text = compared(entry, ahead(4))
    assert text == (
        "after the sample, stages took 0:20, 0:30 forecast (without graph: not forecast); at most 2.00 GiB a worker, "
        "1.00 GiB forecast; wrote 3.0 kB, 2.0 kB forecast"
    )
    rest["blocks"] = 0
    assert compared(entry, ahead(1)).startswith("what was left, 5 of 8 blocks, took 0:20, 0:30 forecast; at most")
    assert not compared({"stages": [rest]}, ahead(4))
