import json
import re
import shlex
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
import zarr

from tests.support import digest, mistake, random_network, small_config
from vimvol.commands import segmentations
from vimvol.commands.agglomerate import agglomerate
from vimvol.commands.segment import segment_volume
from vimvol.commands.status import status
from vimvol.engine.recorder import Recorder
from vimvol.errors import ConfigError, InputError, OutputBusyError, OutputExistsError
from vimvol.geometry import Block
from vimvol.io.arrays import read_box
from vimvol.outputs import stored
from vimvol.outputs.manifest import now, read_manifest, write_manifest
from vimvol.outputs.output import new_manifest
from vimvol.outputs.ownership import owned
from vimvol.preflight.prepare import prepare
from vimvol.report import progress
from vimvol.report.progress import make_progress
from vimvol.sample import SampleSpec, generate
from vimvol.segment.multicut import SOLVERS
from vimvol.stages import solve
from vimvol.stages.graph import graph_stage
from vimvol.stages.write import WriteBlock

SHAPE = (4, 128, 120)
BETA = "agglomerate.beta=0.6"


@pytest.fixture
def out(reference: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(reference, tmp_path / "out.zarr"))


@pytest.fixture
def stages(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Blocks computed and recorded, by stage."""
    computed: dict[str, int] = {}
    original = Recorder.done

    def count(self, block, result):
        stage = self._ledger.stage
        computed[stage] = computed.get(stage, 0) + 1
        return original(self, block, result)

    monkeypatch.setattr(Recorder, "done", count)
    return computed


@pytest.mark.parametrize("name", ["segmentation", "finer"])
def test_edges_are_not_measured_again_in_other_blocks(
    sample: Path, stages: dict[str, int], tmp_path: Path, name: str
) -> None:
    out = str(tmp_path / "out.zarr")
    segment_volume(f"{sample}:raw", out, small_config(run__block=[4, 128, 144]))
    stages.clear()
    agglomerate(out, [BETA], name=name, workers=0)
    assert "graph" not in stages
    assert stages["costs"] == 1


def test_only_what_depends_on_the_change_is_computed(
    sample: Path, out: Path, stages: dict[str, int], tmp_path: Path
) -> None:
    result = agglomerate(str(out), [BETA], workers=0)
    assert set(stages) == {"costs", "solve", "sizes", "write", "label-pyramid 1", "label-pyramid 2"}
    segment_volume(f"{sample}:raw", str(tmp_path / "new.zarr"), small_config(agglomerate__beta=0.6))
    assert digest(out) == digest(tmp_path / "new.zarr")
    manifest = read_manifest(str(out)) or {}
    assert manifest["config"]["agglomerate"]["beta"] == 0.6
    assert (manifest["segments"], manifest["energy"]) == (result.segments, result.energy)
    with pytest.raises(OutputExistsError, match=r"on the same boundaries and edges; give --overwrite") as refused:
        segment_volume(f"{sample}:raw", str(out), small_config())
    told = str(refused.value)
    assert told.endswith(f"vimvol agglomerate {out} --set agglomerate.beta=0.25 --name NAME")
    stages.clear()
    assert agglomerate(str(out), ["segment.min_size=100"], workers=0).replaced == ("segment.min_size: 25 -> 100",)
    assert set(stages) == {"sizes", "write", "label-pyramid 1", "label-pyramid 2"}


def test_a_name_puts_another_segmentation_beside_the_first(reference: Path, out: Path, stages: dict[str, int]) -> None:
    result = agglomerate(str(out), [BETA], name="split", workers=0)
    assert set(stages) == {"costs", "solve", "sizes", "write", "label-pyramid 1", "label-pyramid 2"}
    assert result.labels == f"{out}/labels/split"
    before, after = digest(reference), digest(out)
    listed = '"labels": ["segmentation", "split"]'
    assert after["labels"] == before.pop("labels").replace('"labels": ["segmentation"]', listed)
    assert {key: after[key] for key in before} == before
    assert any(key.startswith("labels/split/2") for key in after)
    labels = read_box(f"{out}/labels/split/0", Block.whole(SHAPE))
    assert set(np.unique(labels)) - {0} == set(range(1, result.segments + 1))
    (told,) = status(str(out)).beside
    assert told == f"split: done, {result.segments} segments; agglomerate.beta = 0.6 (the run's: 0.25)"
    # once more costs nothing, and neither result disturbs the other
    stages.clear()
    assert agglomerate(str(out), [BETA], name="split", workers=0).segments == result.segments
    assert stages == {}
    assert agglomerate(str(out), ["agglomerate.beta=0.2"], workers=0).replaced == ("agglomerate.beta: 0.25 -> 0.2",)
    assert (read_box(f"{out}/labels/split/0", Block.whole(SHAPE)) == labels).all()
    assert result.replaced == ()
    again = agglomerate(str(out), ["agglomerate.beta=0.5"], name="split", workers=0)
    assert again.replaced == ("agglomerate.beta: 0.6 -> 0.5",)


@pytest.mark.parametrize("name", ["segmentation", "finer"])
def test_what_is_replaced_is_told_before_and_how_to_have_it_back_after(run, out: Path, name: str) -> None:
    chosen = [] if name == "segmentation" else ["--name", name]
    if chosen:
        assert run("agglomerate", out, "--set", BETA, *chosen, "--workers", 0)[0] == 0
    before, was = digest(out), "0.6" if chosen else "0.25"
    code, told, err = run(
        "agglomerate", out, "--set=agglomerate.beta=0.4", "--set=segment.min_size=0", *chosen, "--workers=0"
    )
    assert code == 0
    changes = f"(agglomerate.beta: {was} -> 0.4; segment.min_size: 25 -> 0)"
    lines = err.splitlines()
    note = f"labels/{name} will be replaced {changes}; another --name would put this one beside it"
    assert lines.index(note) < next(number for number, line in enumerate(lines) if line.startswith("costs"))
    assert f"replaced      the one before {changes}" in told
    (command,) = (line for line in told.splitlines() if line.startswith("give it back"))
    command = command.removeprefix("give it back  ").partition(";")[0]
    assert digest(out) != before
    beside = shlex.split(f"{command} --name old --workers 0".removeprefix("vimvol "))
    assert run(*beside)[0] == 0
    assert run(*shlex.split(f"{command} --workers 0".removeprefix("vimvol ")))[0] == 0
    after = digest(out)
    assert {key: after[key] for key in before if key != "labels"} == {k: v for k, v in before.items() if k != "labels"}
    assert after["labels/old/0"] == after[f"labels/{name}/0"]


def test_the_way_back_is_told_from_the_last_that_was_complete_and_only_where_there_is_one(
    sample: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(WriteBlock, "__call__", stop)
        with pytest.raises(KeyboardInterrupt):
            agglomerate(str(out), [BETA], workers=0)
    result = agglomerate(str(out), ["agglomerate.beta=0.4"], workers=0)
    assert result.replaced == ("agglomerate.beta: 0.25 -> 0.4",)
    assert result.former == f"vimvol agglomerate {out} --set agglomerate.beta=0.25"
    agglomerate(str(out), [BETA], name="finer", workers=0)
    segment_volume(f"{sample}:raw", str(out), small_config(fragments__min_size=300), overwrite=True)
    again = agglomerate(str(out), ["agglomerate.beta=0.5"], name="finer", workers=0)
    assert "agglomerate.beta: 0.6 -> 0.5" in again.replaced
    assert again.former == ""  # of edges that are gone


@pytest.fixture
def alone(sample: Path, tmp_path: Path) -> Path:
    """An output whose input and network are gone."""
    volume, model = tmp_path / "gone.zarr", tmp_path / "gone.safetensors"
    shutil.copytree(sample, volume)
    random_network(model, 30)
    out = tmp_path / "alone.zarr"
    segment_volume(f"{volume}:raw", str(out), small_config(predict__model=str(model)))
    shutil.rmtree(volume)
    model.unlink()
    return out


def test_neither_input_nor_network_need_be_there(
    sample: Path, alone: Path, stages: dict[str, int], tmp_path: Path
) -> None:
    stages.clear()
    agglomerate(str(alone), [BETA], name="split", workers=0)
    result = agglomerate(str(alone), [BETA], compare=True, workers=0)
    assert set(stages) == {"costs", "solve", "sizes", "write", "label-pyramid 1", "label-pyramid 2"}
    random_network(tmp_path / "gone.safetensors", 30)
    new = tmp_path / "new.zarr"
    segment_volume(
        f"{sample}:raw",
        str(new),
        small_config(predict__model=str(tmp_path / "gone.safetensors"), agglomerate__beta=0.6),
    )
    made, wanted = digest(alone), digest(new)
    assert {key: value for key, value in made.items() if "split" not in key and key != "labels"} == {
        key: value for key, value in wanted.items() if key != "labels"
    }
    assert result.gap == 0
    beside, wanted_labels = (
        read_box(f"{path}/0", Block.whole(SHAPE)) for path in (f"{alone}/labels/split", f"{new}/labels/segmentation")
    )
    assert (beside == wanted_labels).all()
    assert status(str(alone)).complete


def test_an_input_that_was_replaced_is_not_looked_at(reference: Path, out: Path) -> None:
    manifest = read_manifest(str(out)) or {}
    write_manifest(str(out), {**manifest, "input": {**manifest["input"], "identity": "another"}})
    assert agglomerate(str(out), [BETA], workers=0).segments > 0


def test_an_agglomeration_that_was_stopped_goes_on_without_the_input(alone: Path, monkeypatch) -> None:
    def stop(self: WriteBlock, block: Block) -> dict:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(WriteBlock, "__call__", stop)
        with pytest.raises(KeyboardInterrupt):
            agglomerate(str(alone), [BETA], workers=0)
    assert (read_manifest(str(alone)) or {})["state"] == "running"
    assert agglomerate(str(alone), [BETA], workers=0).segments > 0
    assert (read_manifest(str(alone)) or {})["state"] == "complete"


def test_edges_that_another_segmentation_measured_in_other_blocks_are_measured_again(
    out: Path, stages: dict[str, int]
) -> None:
    agglomerate(str(out), ["run.block=[4,128,144]"], name="wide", workers=0)
    assert stages["graph"] == 1
    agglomerate(str(out), [BETA], workers=0)
    assert stages["graph"] == 1 + 8


def test_what_another_version_stored_otherwise_is_refused(out: Path, monkeypatch) -> None:
    before = digest(out)
    for what in stored.FORMATS:
        monkeypatch.setitem(stored.FORMATS, what, 99)
        with pytest.raises(InputError, match=f"the {what} of .* another version of vimvol .*stored edges do not serve"):
            agglomerate(str(out), [BETA], workers=0)
        monkeypatch.undo()
    shutil.rmtree(out / "vimvol" / "fragments")
    with pytest.raises(InputError, match="fragments is not what vimvol stored there"):
        agglomerate(str(out), [BETA], workers=0)
    assert digest(out) == before


def test_an_output_of_an_earlier_version_takes_its_input(out: Path, tmp_path: Path) -> None:
    manifest = read_manifest(str(out)) or {}
    del manifest[stored.STORED]
    write_manifest(str(out), {**manifest, "input": {**manifest["input"], "path": str(tmp_path / "gone")}})
    with pytest.raises(InputError, match="gone"):
        agglomerate(str(out), [BETA], workers=0)
    write_manifest(str(out), manifest)
    agglomerate(str(out), [BETA], workers=0)
    assert stored.STORED in (read_manifest(str(out)) or {})


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"segment__mode": "2d"},
        {"input__roi": [[0, 10, 20], [3, 100, 110]], "agglomerate__fill_below": 9},
        {"fragments__dimension": "3d", "fragments__tile": [2, 64, 64], "fragments__halo": [1, 16, 16]},
        {"output__levels": 1, "run__block": [4, 128, 144], "input__voxel_size": [40, 5, 5]},
    ],
    ids=["3d", "2d", "part", "fragments in 3d", "one level"],
)
def test_a_job_on_what_is_stored_is_the_job_of_the_input(sample: Path, tmp_path: Path, changes: dict) -> None:
    job = prepare(f"{sample}:raw", str(tmp_path / "out.zarr"), small_config(**changes))
    manifest = json.loads(json.dumps(new_manifest(job, "")))
    found = stored.stored_job(job.out, manifest, job.config)
    assert found.keys == job.keys
    assert list(graph_stage(found).plan) == list(graph_stage(job).plan)
    same = ("source", "fragments_config", "fragment_tiles", "chunk", "shard", "levels", "roi", "stitched", "sectioned")
    assert [getattr(found, name) for name in same] == [getattr(job, name) for name in same]
    assert [(plane.axis, plane.cell) for plane in found.planes] == [(plane.axis, plane.cell) for plane in job.planes]


def test_the_tiles_of_every_axis_are_noted(tmp_path: Path) -> None:
    volume = generate(SampleSpec(shape=(48, 40, 36), voxel_size=(8.0, 8.0, 8.0)))[0]
    zarr.create_array(str(tmp_path / "raw"), data=volume).attrs["resolution"] = [8.0, 8.0, 8.0]
    settings = {"predict__axes": "zyx", "predict__tile": [16, 32], "predict__halo": [0, 0], "predict__rescale": "none"}
    job = prepare(str(tmp_path / "raw"), str(tmp_path / "out.zarr"), small_config(**settings))
    found = stored.stored_job(job.out, json.loads(json.dumps(new_manifest(job, ""))), job.config)
    assert len({plane.cell for plane in job.planes}) == 3
    assert [(plane.axis, plane.cell) for plane in found.planes] == [(plane.axis, plane.cell) for plane in job.planes]
    assert [plane.tiling.grid for plane in found.planes] == [plane.tiling.grid for plane in job.planes]


def test_the_status_of_another_segmentation_is_told_while_it_is_not_done(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(self: WriteBlock, block: Block) -> dict:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(WriteBlock, "__call__", stop)
        with pytest.raises(KeyboardInterrupt):
            agglomerate(str(out), [BETA], name="split", workers=0)
    assert status(str(out)).beside[0].startswith("split: not complete, stopped; agglomerate.beta = 0.6")
    agglomerate(str(out), [BETA], name="split", workers=0)
    assert status(str(out)).beside[0].startswith("split: done")
    other = status(str(out), small_config(fragments__min_size=300)).beside[0]
    assert re.match(r"split: done, \d+ segments, and stale with these settings; ", other), other


def test_the_status_of_another_segmentation_that_was_killed_and_of_a_note_that_is_odd(out: Path) -> None:
    agglomerate(str(out), [BETA], name="split", workers=0)
    path = out / "vimvol" / "agglomerated" / "split" / "run.json"
    note = json.loads(path.read_text())

    def told(content: object) -> str:
        path.write_text(json.dumps(content))
        return status(str(out)).beside[0]

    last = {key: value for key, value in note["runs"][-1].items() if key not in ("finished", "seconds", "stages")}
    killed = {"state": "running", "name": "split", "runs": [{**last, "state": "running"}]}
    assert told(killed).startswith("split: not complete, no end recorded; agglomerate.beta = 0.6")
    with owned(str(out)):
        killed["runs"][0]["started"] = now()
        assert told(killed).startswith("split: not complete, running; ")
        killed["runs"][0]["started"] = "2020-01-01T00:00:00+0000"  # before who holds the output now
        assert told(killed).startswith("split: not complete, no end recorded; ")
    stateless = {key: value for key, value in last.items() if key != "state"}
    odd = [
        {key: value for key, value in note.items() if key != "segments"},
        {**note, "config": {"segment": {}}},
        {**note, "config": {"segment": {}, "agglomerate": [1]}},
        {**killed, "runs": [stateless]},
        {**killed, "runs": [{**last, "state": "running", "started": 7}]},
        None,
    ]
    with owned(str(out)):
        assert {told(content) for content in odd} == {"split: no record of how it was made"}


def test_the_gap_to_the_whole_graph_is_told(out: Path) -> None:
    result = agglomerate(
        str(out),
        ["agglomerate.levels=1", "agglomerate.cell=[1,64,64]"],
        name="parts",
        compare=True,
        workers=0,
    )
    assert len(result.levels) == 2
    assert result.best is not None
    assert result.gap == pytest.approx((result.energy - result.best) / abs(result.best))
    assert result.gap < 0.002
    assert agglomerate(str(out), name="parts", workers=0).gap is None


@pytest.mark.parametrize("solver", sorted(set(SOLVERS) - {"kernighan-lin", "nifty"}))  # the default, and an extra
def test_every_solver_can_be_asked_for(out: Path, solver: str) -> None:
    assert agglomerate(str(out), [f"agglomerate.solver={solver}"], name=solver, workers=0).segments > 0


def test_what_edges_depend_on_is_refused(out: Path) -> None:
    before = digest(out)
    with pytest.raises(ConfigError, match=r"fragments\.threshold: 0\.4 -> 0\.5 changes more than the agglomeration"):
        agglomerate(str(out), ["fragments.threshold=0.5"])
    with pytest.raises(ConfigError, match=r"unknown key 'agglomerate\.bta'"):
        agglomerate(str(out), ["agglomerate.bta=0.5"])
    with pytest.raises(InputError, match="cannot name a label image"):
        agglomerate(str(out), name="../boundaries")
    assert digest(out) == before


def test_an_output_that_does_not_serve_is_refused(out: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        agglomerate(str(tmp_path / "nothing.zarr"))
    (out / "labels" / "mine").mkdir()
    with pytest.raises(OutputExistsError, match="vimvol did not make it"):
        agglomerate(str(out), name="mine", workers=0)
    manifest = read_manifest(str(out)) or {}
    write_manifest(str(out), {**manifest, "keys": {**manifest["keys"], "graph": "other"}})
    with pytest.raises(InputError, match="stored edges do not serve"):
        agglomerate(str(out))
    write_manifest(str(out), {**manifest, "state": "running"})
    shutil.rmtree(out / "vimvol" / "ledger" / "graph")
    with owned(str(out)), pytest.raises(OutputBusyError, match="is being written by another run"):
        agglomerate(str(out), workers=0)
    with pytest.raises(InputError, match="is not finished"):
        agglomerate(str(out))


def test_why_there_are_fewer_levels_than_asked_for_is_told(run, out: Path, monkeypatch) -> None:
    words = ["agglomerate", out, "--set", "agglomerate.levels=3", "--name", "b", "--workers", 0]
    code, _, err = run(*words)
    assert code == 0, err
    (line,) = (line for line in err.splitlines() if line.startswith("levels: "))
    assert re.fullmatch(r"levels: 1 of agglomerate.levels = 3, as after that one cell, .* spans the volume", line)
    monkeypatch.setattr(solve, "LEAST_EDGES", 10_000)
    code, printed, err = run(*words, "--set", "agglomerate.cell=[1, 64, 64]")
    assert code == 0, err
    # the table has the numbers that the stages have, and says where some are missing
    (level,) = re.findall(r"^(\d+) +[\d,]+ +[\d.]+% ", printed, re.MULTILINE)
    assert f"reduce {level}: " in err
    first = "1 is" if level == "2" else f"1 to {int(level) - 1} are"
    assert int(level) > 1
    assert f"levels        {first} left out, as cells of agglomerate.cell hold fewer than 10,000 edges on" in printed
    assert f"those of level {level} are {2 ** (int(level) - 1)} times as wide" in printed
    (line,) = (line for line in err.splitlines() if line.startswith("levels: "))
    assert re.search(r"cells of 1 x 64 x 64 voxels .* hold \d+ edges on the mean, fewer than 10,000, and were", line)
    lines = run(*words[:3], "agglomerate.levels=1", *words[4:])[2].splitlines()
    assert not any(line.startswith("levels: ") for line in lines)


def test_on_the_command_line(run, out: Path) -> None:
    code, printed, _ = run("agglomerate", out, "--set", BETA, "--name", "b", "--compare", "--workers", 0)
    assert code == 0
    assert re.search(r"^level +edges left +share +energy$", printed, re.MULTILINE)
    assert re.search(r"^0, the whole graph +[\d,]+ +100\.0% +-?[\d,.]+$", printed, re.MULTILINE)
    assert re.search(r"^solved +- +- +-?[\d,.]+$", printed, re.MULTILINE)
    assert "energy        summed costs of the edges that are cut, of a level if all that are left were" in printed
    assert "gap           0.000%" in printed
    assert f"segmentation  {out}/labels/b" in printed.replace("\n", "")
    assert printed.splitlines()[-1] == f"look at it    vimvol view {out}"
    code, _, error = run("evaluate", f"{out}:b", f"{out}:labels/segmentation/0")
    assert code == 2
    assert "has no dataset 'b'; did you mean 'labels/b'? choose one of labels/b/0 (" in mistake(error)
    assert run("evaluate", f"{out}:labels/b", f"{out}:labels/segmentation/0")[0] == 0
    code, _, error = run("agglomerate", out, "--set", "predict.batch=2")
    assert code == 2
    assert mistake(error).startswith("error: predict.batch: 1 -> 2")


@pytest.mark.parametrize("name", ["segmentation", "split"])
def test_that_all_was_done_before_is_told_and_no_workers_are_started(run, out: Path, monkeypatch, name: str) -> None:
    words = ["agglomerate", out, "--set", BETA, "--name", name, "--workers", 0]
    code, printed, _ = run(*words)
    assert (code, "all done before" in printed) == (0, False)
    before = digest(out)
    with monkeypatch.context() as patch:
        patch.setattr(segmentations, "workers_of", None)
        code, printed, err = run(*words)
    assert code == 0, err
    told = r"^all done before, on \d{4}-\d\d-\d\dT[\d:+]+, with these settings; nothing was computed$"
    assert re.search(told, printed, re.MULTILINE)
    assert re.search(r"^[\d,]+ segments$", printed, re.MULTILINE)
    assert digest(out) == before
    shutil.rmtree(out / "labels" / name / "0")
    assert "all done before" not in run(*words)[1]
    assert digest(out) == before


def test_one_is_told_as_one(run, out: Path) -> None:
    every = f"--set=agglomerate.join_below={10**9}"
    code, printed, err = run("agglomerate", out, every, "--name", "one", "--workers", 0)
    assert code == 0, err
    assert re.search("^1 segment in ", printed, re.MULTILINE)
    assert "solve: 1 block, " in err
    assert "solve: 1/1 block, " in err
    assert "one: done, 1 segment; " in run("status", out)[1]


@pytest.mark.parametrize("command", ["agglomerate {out} --name b", "export {out} {copy}"])
def test_what_is_waited_for_is_told_and_counts(run, monkeypatch, out: Path, tmp_path: Path, command) -> None:
    def slow():  # as modules are to load from a disk that others use
        time.sleep(1.6)
        return make_progress()

    monkeypatch.setattr(progress, "make_progress", slow)
    code, printed, err = run(*command.format(out=out, copy=tmp_path / "copy.zarr").split(), "--workers", 1)
    assert code == 0, err
    assert err.splitlines()[:2] == [f"opening {out}", "workers: starting 1 process"]
    assert int(re.findall(r" in (\d+) s$", printed, re.MULTILINE)[0]) >= 2
