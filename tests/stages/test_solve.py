import shutil
from pathlib import Path

import pytest

from tests.support import digest, small_config
from vimvol.commands.agglomerate import agglomerate
from vimvol.commands.segment import segment_volume
from vimvol.errors import ConfigError
from vimvol.outputs.manifest import read_manifest
from vimvol.segment.multicut.division import bytes_per_edge
from vimvol.stages import solve

pytestmark = pytest.mark.usefixtures("every_level")
DIVIDED = {"agglomerate__levels": 2, "agglomerate__cell": [1, 64, 64]}


@pytest.fixture(scope="module")
def divided(sample: Path, tmp_path_factory: pytest.TempPathFactory, every_level: None) -> Path:
    """The output of a run whose graph was reduced out of core, in two levels."""
    out = tmp_path_factory.mktemp("divided") / "out.zarr"
    segment_volume(f"{sample}:raw", str(out), small_config(**DIVIDED))
    return out


def test_the_levels_come_near_the_whole_graph(reference: Path, divided: Path) -> None:
    whole, parts = (read_manifest(str(out)) or {} for out in (reference, divided))
    assert [level["level"] for level in parts["levels"]] == [0, 1, 2]
    assert len(whole["levels"]) == 1
    assert parts["levels"][0] == whole["levels"][0]
    assert parts["levels"][2]["edges"] < parts["levels"][0]["edges"]
    assert parts["energy"] <= whole["energy"] + 0.002 * abs(whole["energy"])


def test_neither_blocks_nor_workers_change_a_byte(sample: Path, divided: Path, tmp_path: Path) -> None:
    config = small_config(**DIVIDED, run__block=[4, 64, 96], run__workers=2)
    segment_volume(f"{sample}:raw", str(tmp_path / "out.zarr"), config)
    assert digest(tmp_path / "out.zarr") == digest(divided)


def test_a_graph_of_many_edges_is_divided_where_the_solver_allows_it(
    sample: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(solve, "AT_ONCE", 100)
    for solver, more in (("greedy", True), ("average", False)):
        config = small_config(agglomerate__cell=[1, 64, 64], agglomerate__solver=solver)
        segment_volume(f"{sample}:raw", str(tmp_path / "out.zarr"), config, overwrite=True)
        levels = (read_manifest(str(tmp_path / "out.zarr")) or {})["levels"]
        assert levels[0]["edges"] > 100
        assert (len(levels) > 1) == more


def test_a_graph_whose_lowest_level_is_left_out_is_that_of_larger_cells(
    reference: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outs = [Path(shutil.copytree(reference, tmp_path / name)) for name in ("wide", "small")]
    wide = ["agglomerate.levels=2", "agglomerate.cell=[2,128,128]"]
    small = ["agglomerate.levels=2", "agglomerate.cell=[1,64,64]"]
    agglomerate(str(outs[0]), wide, workers=0)
    agglomerate(str(outs[1]), [*small, "agglomerate.beta=0.6"], workers=0)  # whose tables are not to be taken
    monkeypatch.setattr(solve, "LEAST_EDGES", 10**4)
    beta = (read_manifest(str(reference)) or {})["config"]["agglomerate"]["beta"]
    found = agglomerate(str(outs[1]), [*small, f"agglomerate.beta={beta}"], workers=0)
    assert [level["level"] for level in found.levels] == [0, 2]
    assert {path.name for path in (outs[1] / "vimvol/levels").iterdir() if path.is_dir()} == {"1", "2"}
    assert digest(outs[0]) == digest(outs[1])
    assert found.energy == (read_manifest(str(outs[0])) or {})["energy"]


def test_slices_are_stitched_by_the_same_levels(sample: Path, tmp_path: Path) -> None:
    slices = {"segment__mode": "2d", "fragments__seeds": "components"}
    segment_volume(f"{sample}:raw", str(tmp_path / "whole.zarr"), small_config(**slices))
    segment_volume(f"{sample}:raw", str(tmp_path / "parts.zarr"), small_config(**slices, **DIVIDED))
    assert digest(tmp_path / "parts.zarr") == digest(tmp_path / "whole.zarr")


def test_a_memory_too_small_is_told_with_what_is_needed(sample: Path, reference: Path, tmp_path: Path) -> None:
    edges = (read_manifest(str(reference)) or {})["levels"][0]["edges"]
    needed, needed_lifted = (edges * bytes_per_edge(solver) for solver in ("average", "lifted"))
    small = small_config(agglomerate__memory=1)
    with pytest.raises(ConfigError, match=r"agglomerate.memory = 1 holds 0 edges, and \d+ are left.*give \d+ or more"):
        segment_volume(f"{sample}:raw", str(tmp_path / "a.zarr"), small)
    lifted = small_config(agglomerate__memory=needed, agglomerate__solver="lifted")
    with pytest.raises(ConfigError, match=f"'lifted' takes the whole graph.*agglomerate.memory = {needed_lifted}"):
        segment_volume(f"{sample}:raw", str(tmp_path / "b.zarr"), lifted)
    average = small_config(agglomerate__memory=needed - 1, agglomerate__solver="average")
    with pytest.raises(ConfigError, match=f"'average' takes the whole graph.*agglomerate.memory = {needed}"):
        segment_volume(f"{sample}:raw", str(tmp_path / "b.zarr"), average, overwrite=True)
