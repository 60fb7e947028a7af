import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import zarr

from tests.support import SMALL, digest, small_config
from vimvol.commands.agglomerate import agglomerate
from vimvol.commands.segment import segment_volume
from vimvol.commands.status import status
from vimvol.engine.lock import Lock
from vimvol.errors import IncompleteRunError, InputError, OutputBusyError
from vimvol.geometry import Block
from vimvol.io.objects import open_objects
from vimvol.outputs.manifest import now, read_manifest, write_manifest
from vimvol.outputs.ownership import owned
from vimvol.stages.predict import PredictBlock


def states(out: Path, **changes: object) -> dict[str, str]:
    found = status(str(out), small_config(**changes) if changes else None)
    return {stage.name: stage.state for stage in found.stages}


@pytest.fixture
def copy(reference: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(reference, tmp_path / "out.zarr"))


def test_a_complete_output_is_done_from_first_to_last(reference: Path) -> None:
    found = status(str(reference))
    assert found.complete
    assert found.holder == ""
    assert {stage.state for stage in found.stages} == {"done"}
    names = [stage.name for stage in found.stages]
    assert names.index("predict") < names.index("fragments") < names.index("write")
    assert {"pyramid 1", "pyramid 2", "label-pyramid 1", "label-pyramid 2"} <= set(names)
    assert all(stage.share == 1 and stage.age is not None for stage in found.stages)


def test_settings_make_stale_exactly_what_depends_on_them(reference: Path) -> None:
    found = states(reference, agglomerate__beta=0.8)
    assert {found[name] for name in ("predict", "fragments", "graph", "pyramid 1")} == {"done"}
    assert {found[name] for name in ("write", "label-pyramid 1")} == {"stale"}
    assert not status(str(reference), small_config(agglomerate__beta=0.8)).complete


def test_a_changed_input_makes_everything_stale(sample: Path, tmp_path: Path) -> None:
    source = Path(shutil.copytree(sample, tmp_path / "sample.zarr"))
    segment_volume(f"{source}:raw", str(tmp_path / "out.zarr"), small_config())
    array = zarr.open_array(str(source / "raw"), mode="r+")
    array[0, 0, 0] = array[0, 0, 0] + 1
    found = status(str(tmp_path / "out.zarr"))
    assert {stage.state for stage in found.stages} == {"stale"}
    assert any("has changed" in note for note in found.notes)
    assert status(str(tmp_path / "out.zarr"), small_config()).notes == found.notes  # not for other settings besides
    shutil.rmtree(source)
    assert status(str(tmp_path / "out.zarr")).complete


def test_failed_blocks_are_named_with_the_error_until_they_are_done(
    sample: Path, reference: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out.zarr"
    original = PredictBlock.__call__
    poison = Block((2, 64, 48), (4, 128, 96))

    def fail(self: PredictBlock, block: Block) -> dict:
        if block == poison:
            raise RuntimeError("broken on purpose")
        return original(self, block)

    with monkeypatch.context() as patch:
        patch.setattr(PredictBlock, "__call__", fail)
        with pytest.raises(
            IncompleteRunError, match=r"1 of 12 blocks failed for good.*RuntimeError: broken on purpose"
        ):
            segment_volume(f"{sample}:raw", str(out), small_config(run__retries=0))
    found = status(str(out))
    predict = found.stages[0]
    assert (predict.name, predict.state) == ("predict", "failed")
    assert predict.failures == ((str(poison), "RuntimeError: broken on purpose"),)
    assert 0.8 < predict.share < 1
    assert not found.complete
    assert {stage.state for stage in found.stages[1:]} == {"missing"}
    pyramids = [stage.name for stage in found.stages if "pyramid" in stage.name]
    assert pyramids == ["label-pyramid 1", "label-pyramid 2", "pyramid 1", "pyramid 2"]
    segment_volume(f"{sample}:raw", str(out), small_config())
    assert status(str(out)).complete
    assert digest(out) == digest(reference)


def test_of_a_small_volume_no_level_is_missing_that_it_will_not_have(sample: Path, tmp_path: Path, monkeypatch) -> None:
    def fail(self: PredictBlock, block: Block) -> dict:
        raise RuntimeError("broken on purpose")

    monkeypatch.setattr(PredictBlock, "__call__", fail)
    with pytest.raises(IncompleteRunError):
        segment_volume(f"{sample}:raw", str(tmp_path / "out.zarr"), small_config(run__retries=0, output__levels=1))
    names = [stage.name for stage in status(str(tmp_path / "out.zarr")).stages]
    assert names == ["predict", "fragments", "graph", "costs", "solve", "sizes", "write"]


def test_who_is_at_it_is_told_and_keeps_others_away(sample: Path, copy: Path) -> None:
    with Lock(open_objects(str(copy / "vimvol")), str(copy)):
        assert f"process {os.getpid()}" in status(str(copy)).holder
        with pytest.raises(OutputBusyError, match="is being written by another run"):
            segment_volume(f"{sample}:raw", str(copy), small_config(agglomerate__beta=0.8), overwrite=True)
    assert status(str(copy)).holder == ""


def test_a_run_is_told_to_be_under_way_or_to_have_been_killed(run, copy: Path) -> None:
    manifest = read_manifest(str(copy)) or {}
    (entry,) = manifest["runs"]
    begun = {name: value for name, value in entry.items() if name not in ("finished", "seconds", "stages")}
    begun |= {"state": "running", "started": now()}
    changed = {**manifest, "state": "running", "runs": [begun]}
    with owned(str(copy)):
        write_manifest(str(copy), changed)
        found = status(str(copy))
        assert re.search(r"^20\S+ running for 0:\d\d, \d at once on ", found.runs[0])
        assert found.running
        code, printed, _ = run("status", copy)
        assert (code, printed.splitlines()[-1]) == (1, "not complete, a run is at it")
        lock = json.loads((copy / "vimvol" / "lock").read_text())
        elsewhere = json.dumps({**lock, "machine": "another"})
        open_objects(str(copy / "vimvol")).put("lock", elsewhere.encode())
        found = status(str(copy))
        assert (found.running, " running for 0:" in found.runs[0]) == (True, True)
        open_objects(str(copy / "vimvol")).put("lock", json.dumps(lock).encode())
    found = status(str(copy))
    assert re.search(r"^20\S+ no end recorded, so it was killed or its machine stopped, \d at once on ", found.runs[0])
    assert not found.running
    assert run("status", copy)[1].splitlines()[-1] == "not complete"


def test_a_run_killed_before_it_wrote_anything_leaves_a_place_that_can_be_used(
    sample: Path, reference: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.zarr"
    script = (
        "import os, sys\nfrom vimvol.outputs.ownership import owned\nwith owned(sys.argv[1]): os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", script, str(out)], check=False)
    assert [path.name for path in out.rglob("*")] == ["vimvol", "lock"]
    with pytest.raises(InputError, match=r"holds nothing yet, and a run that was to fill it has ended \(.*process"):
        status(str(out))
    segment_volume(f"{sample}:raw", str(out), small_config())
    assert digest(out) == digest(reference)


def test_a_refused_run_leaves_no_empty_folder(sample: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError):
        segment_volume(f"{sample}:raw", str(tmp_path / "out.zarr"), small_config(), cluster="slrum")
    assert not (tmp_path / "out.zarr").exists()


def test_another_block_shape_goes_on_where_the_first_stopped(
    sample: Path, reference: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out.zarr"
    original, seen = PredictBlock.__call__, []

    def third_fails(self: PredictBlock, block: Block) -> dict:
        seen.append(block)
        if len(seen) == 3:
            raise KeyboardInterrupt
        return original(self, block)

    with monkeypatch.context() as patch:
        patch.setattr(PredictBlock, "__call__", third_fails)
        with pytest.raises(KeyboardInterrupt):
            segment_volume(f"{sample}:raw", str(out), small_config())
    done = seen[:2]
    seen.clear()

    def watch(self: PredictBlock, block: Block) -> dict:
        seen.append(block)
        return original(self, block)

    monkeypatch.setattr(PredictBlock, "__call__", watch)
    segment_volume(f"{sample}:raw", str(out), small_config(run__block=[4, 128, 144]))
    assert not any(block.intersect(before).size for block in seen for before in done)
    assert sum(block.size for block in [*seen, *done]) == 4 * 128 * 120
    assert digest(out) == digest(reference)


def test_the_command_line_tells_it_in_words_and_exit_code(run, reference: Path, tmp_path: Path) -> None:
    code, printed, _ = run("status", reference)
    assert code == 0
    assert "input         " in printed
    assert "sample.zarr:raw\n" in printed
    code, printed, error = run("status", reference, "--set=agglomerate.beta=0.8")
    assert code == 1
    assert "agglomerate.beta" in printed + error
    code, printed, error = run("status", tmp_path / "none.zarr")
    assert (code, (printed + error).count("\n")) == (2, 1)
    assert "a run that was started a moment ago opens its input and its network before it writes" in error


def test_settings_that_change_nothing_leave_nothing_stale(run, reference: Path) -> None:
    """What is asked for besides is what the output was made with."""
    same = [f"--set={key}={json.dumps(value)}" for key, value in SMALL.items()]
    code, printed, _ = run("status", reference, *same)
    assert (code, printed.splitlines()[-1]) == (0, "complete with these settings, too")
    assert "other settings" not in printed
    code, printed, _ = run("status", reference, *same, "--set=agglomerate.beta_learned=0.3")
    assert (code, printed.splitlines()[-1]) == (0, "complete with these settings, too")
    line = "unaffected    other settings: agglomerate.beta_learned: 0.5 -> 0.3; nothing depends on them here"
    assert line in printed.splitlines()
    assert "stale" not in printed


def test_what_settings_would_make_again_is_told_and_what_is_beside_stays_as_it_is(run, copy: Path) -> None:
    agglomerate(str(copy), ["agglomerate.beta=0.6"], name="finer", workers=0)
    same = [f"--set={key}={json.dumps(value)}" for key, value in SMALL.items()]
    code, printed, _ = run("status", copy, *same, "--set=segment.min_size=7")
    assert code == 1
    last = "not complete with these settings: sizes, write, label-pyramid 1, label-pyramid 2 would be made again"
    assert printed.splitlines()[-1] == f"{last}; what is not given is the default"
    assert "beside        finer: done, " in printed
    assert "stale with these" not in printed
    code, printed, _ = run("status", copy, *same, "--set=fragments.min_size=300")
    assert re.search(r"beside        finer: done, \d+ segments, and stale with these settings; agg", printed)
    assert status(str(copy)).beside[0].startswith("finer: done, ")
