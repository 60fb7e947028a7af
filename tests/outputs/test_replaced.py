import shutil
from pathlib import Path

import pytest
import zarr

from tests.support import digest, small_config
from vimvol.commands.agglomerate import agglomerate
from vimvol.commands.segment import segment_volume
from vimvol.commands.status import status
from vimvol.engine.recorder import Recorder
from vimvol.errors import InputError, OutputExistsError
from vimvol.infer.standardization import Standardization
from vimvol.outputs.manifest import read_manifest
from vimvol.sample import SampleSpec, generate
from vimvol.stages.predict import PredictBlock

KEPT = ("predict", "fragments", "graph", "pyramid 1", "pyramid 2")
SLICES = {"predict__normalize": "slice"}
SOLID = {"fragments__dimension": "3d", "fragments__tile": [2, 64, 64], "fragments__halo": [1, 8, 8]}


@pytest.fixture
def blocks(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[tuple[int, int]]]:
    """First and last slice of every block computed and recorded, by stage."""
    computed: dict[str, list[tuple[int, int]]] = {}
    original = Recorder.done

    def note(self, block, result):
        computed.setdefault(self._ledger.stage, []).append((block.begin[0], block.end[0]))
        return original(self, block, result)

    monkeypatch.setattr(Recorder, "done", note)
    return computed


@pytest.fixture
def raw(sample: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sample, tmp_path / "in.zarr"))


def replace_section(raw: Path, z: int) -> None:
    """Turn a section over, so that it has other fragments, and other statistics only by a hair."""
    array = zarr.open_array(str(raw / "raw"), mode="r+")
    section = array[z][::-1].copy()
    section[:16] = section[16:32]
    array[z] = section


def go(raw: Path, out: Path, replaced=(), **settings):
    return segment_volume(f"{raw}:raw", str(out), small_config(**settings), replaced=replaced)


@pytest.mark.parametrize(
    ("z", "settings", "again"),
    [
        # sections by themselves: a block of two sections, and of edges that of the one before if it looks at it
        (3, SLICES, {"predict": {(2, 4)}, "fragments": {(2, 4)}, "graph": {(2, 4)}, "pyramid 1": {(2, 4)}}),
        (2, SLICES, {"predict": {(2, 4)}, "fragments": {(2, 4)}, "graph": {(0, 2), (2, 4)}, "pyramid 1": {(2, 4)}}),
        (0, SLICES, {"predict": {(0, 2)}, "fragments": {(0, 2)}, "graph": {(0, 2)}, "pyramid 1": {(0, 2)}}),
        # a window of one more section around the tiles
        (0, SLICES | SOLID, {"predict": {(0, 2)}, "fragments": {(0, 2)}, "graph": {(0, 2)}, "pyramid 1": {(0, 2)}}),
        (1, SLICES | SOLID, {"predict": {(0, 2)}, "fragments": {(0, 2), (2, 4)}, "graph": {(0, 2), (2, 4)}}),
    ],
)
def test_only_what_depends_on_a_section_is_made_again_and_equals_a_new_run(
    raw: Path, tmp_path: Path, blocks: dict[str, list[tuple[int, int]]], z: int, settings: dict, again: dict
) -> None:
    go(raw, tmp_path / "out.zarr", **settings)
    whole = {stage: len(found) for stage, found in blocks.items()}
    replace_section(raw, z)
    blocks.clear()
    go(raw, tmp_path / "out.zarr", [(z, z + 1)], **settings)
    for stage, layers in again.items():
        assert set(blocks[stage]) == layers, stage
        assert len(blocks[stage]) == whole[stage] * len(layers) // 2, stage
    # every segment may be another
    assert all(len(blocks[stage]) == whole[stage] for stage in ("costs", "solve", "sizes", "write"))
    fresh = go(raw, tmp_path / "new.zarr", **settings)
    assert digest(tmp_path / "out.zarr") == digest(tmp_path / "new.zarr")
    counts = [(read_manifest(str(tmp_path / name)) or {})["fragments"] for name in ("out.zarr", "new.zarr")]
    assert counts == [fresh.fragments] * 2


def test_statistics_of_the_volume_stay(raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out.zarr"
    first = go(raw, out)
    known = (read_manifest(str(out)) or {})["standardization"]
    replace_section(raw, 3)
    go(raw, out, [(3, 4)])
    manifest = read_manifest(str(out)) or {}
    assert manifest["standardization"] == known
    assert manifest["replaced"] == [[3, 4]]
    # the same command without the range has nothing to do, and other stages find what they need
    before = digest(out)
    assert go(raw, out).fragments == manifest["fragments"] != first.fragments
    agglomerate(str(out), ["agglomerate.beta=0.6"], name="split", workers=0)
    assert status(str(out)).complete
    shutil.rmtree(out / "labels" / "split")
    recorded = Standardization(tuple(known["mean"]), tuple(known["std"]))
    monkeypatch.setattr("vimvol.preflight.prepare.survey", lambda *_: recorded)
    go(raw, tmp_path / "new.zarr")
    new = digest(tmp_path / "new.zarr")
    assert before == new


def test_an_interrupted_replacement_goes_on(
    raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, blocks: dict[str, list[tuple[int, int]]]
) -> None:
    out = tmp_path / "out.zarr"
    go(raw, out, **SLICES)
    replace_section(raw, 3)
    original, calls = PredictBlock.__call__, []

    def stop_at_the_third(self, block):
        calls.append(block)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return original(self, block)

    with monkeypatch.context() as patch:
        patch.setattr(PredictBlock, "__call__", stop_at_the_third)
        with pytest.raises(KeyboardInterrupt):
            go(raw, out, [(3, 4)], **SLICES)
    assert (read_manifest(str(out)) or {})["state"] == "running"
    blocks.clear()
    go(raw, out, [(3, 4)], **SLICES)
    assert len(blocks["predict"]) == 6 - 2
    # the next replacement keeps what both left
    replace_section(raw, 0)
    blocks.clear()
    go(raw, out, [(0, 1)], **SLICES)
    assert set(blocks["predict"]) == {(0, 2)}
    assert (read_manifest(str(out)) or {})["replaced"] == [[3, 4], [0, 1]]
    go(raw, tmp_path / "new.zarr", **SLICES)
    assert digest(out) == digest(tmp_path / "new.zarr")


def test_what_is_not_told_is_refused(raw: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.zarr"
    with pytest.raises(InputError, match="holds nothing yet that replaced sections would leave"):
        go(raw, out, [(0, 1)])
    go(raw, out)
    before = digest(out)
    replace_section(raw, 1)
    with pytest.raises(OutputExistsError, match="the input has changed"):
        go(raw, out)
    assert "--replaced" in status(str(out)).notes[0]
    for wrong in ((2, 2), (3, 5)):
        with pytest.raises(InputError, match="no part of the 4"):
            go(raw, out, [wrong])
    with pytest.raises(InputError, match=r"other settings \(fragments\.threshold: 0\.4 -> 0\.5\)"):
        go(raw, out, [(1, 2)], fragments__threshold=0.5)
    assert digest(out) == before


def test_on_the_command_line(run, raw: Path, tmp_path: Path) -> None:
    code, _, error = run("segment", f"{raw}:raw", tmp_path / "out.zarr", "--replaced", "3")
    assert code == 2
    assert "--replaced '3' is no range of slices" in error
    code, _, error = run("segment", f"{raw}:raw", tmp_path / "out.zarr", "--replaced", "0:1")
    assert code == 2
    assert "holds nothing yet" in error


def test_predictions_across_all_axes_are_kept_beyond_tile_and_halo(
    tmp_path: Path, blocks: dict[str, list[tuple[int, int]]]
) -> None:
    volume = generate(SampleSpec(shape=(48, 32, 32), voxel_size=(8.0, 8.0, 8.0)))[0]
    array = zarr.create_array(str(tmp_path / "in.zarr" / "raw"), data=volume, chunks=(16, 32, 32))
    array.attrs["resolution"] = [8.0, 8.0, 8.0]
    settings = SLICES | {
        "predict__axes": "zyx",
        "predict__tile": [16, 16],
        "predict__rescale": "none",
        "predict__halo": [8, 8],
        "output__chunk": [16, 32, 32],
        "output__shard": [16, 32, 32],
        "fragments__tile": [16, 32, 32],
        "fragments__halo": [4, 8, 8],
        "run__block": [16, 32, 32],
    }
    go(tmp_path / "in.zarr", tmp_path / "out.zarr", **settings)
    replace_section(tmp_path / "in.zarr", 44)
    blocks.clear()
    go(tmp_path / "in.zarr", tmp_path / "out.zarr", [(44, 45)], **settings)
    # the tiles of 32 to 47 see it, and the windows of the fragments before see these
    assert set(blocks["predict"]) == {(32, 48)}
    assert set(blocks["fragments"]) == {(16, 32), (32, 48)}
    go(tmp_path / "in.zarr", tmp_path / "new.zarr", **settings)
    assert digest(tmp_path / "out.zarr") == digest(tmp_path / "new.zarr")
