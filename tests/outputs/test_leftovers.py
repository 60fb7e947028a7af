"""Tables of earlier settings, which nothing reads any more, are gone from a finished output, and no other."""

import shutil
from pathlib import Path

import pytest

from tests.support import digest, random_network, small_config
from vimvol.commands.agglomerate import agglomerate
from vimvol.commands.segment import segment_volume

WIDE = {"run__block": [4, 128, 144]}
CLASSES = ("foreground", "boundary")
pytestmark = pytest.mark.usefixtures("every_level")
LEVELS = {"agglomerate__levels": 2, "agglomerate__cell": [1, 64, 64]}


def tables(out: Path) -> dict[str, int]:
    """Return how many tables there are, by folder."""
    found: dict[str, int] = {}
    for path in sorted((out / "vimvol").rglob("*.table")):
        folder = path.parent.relative_to(out / "vimvol").as_posix()
        found[folder] = found.get(folder, 0) + 1
    return found


def names(out: Path) -> set[str]:
    return {path.relative_to(out).as_posix() for path in (out / "vimvol").rglob("*.table")}


def test_what_nobody_here_has_named_so_stays(reference: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(reference, tmp_path / "out.zarr"))
    foreign = [
        out / "vimvol" / folder / name for folder in ("costs", "links") for name in ("mine.table", "a-b_c.table")
    ]
    for path in foreign:
        path.parent.mkdir(exist_ok=True)
        path.touch()
    agglomerate(str(out), ["agglomerate.beta=0.6"], workers=0)
    assert all(path.exists() for path in foreign)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({**WIDE, **LEVELS, "agglomerate__fill_below": 9}, {}),
        ({}, {**WIDE, "predict__halo": [16, 8]}),
        ({**LEVELS, "fragments__tile": [1, 32, 32]}, {**LEVELS, "agglomerate__levels": 1}),
    ],
    ids=["smaller blocks, no levels, no contacts", "larger blocks", "fewer levels, larger tiles"],
)
def test_a_run_of_other_settings_leaves_the_tables_of_a_fresh_one(
    sample: Path, tmp_path: Path, before: dict, after: dict
) -> None:
    out, fresh = tmp_path / "out.zarr", tmp_path / "fresh.zarr"
    segment_volume(f"{sample}:raw", str(out), small_config(**before))
    segment_volume(f"{sample}:raw", str(out), small_config(**after), overwrite=True)
    segment_volume(f"{sample}:raw", str(fresh), small_config(**after))
    assert names(out) == names(fresh)
    assert digest(out) == digest(fresh)
    # what is recorded of tables that are gone is gone, too: the first settings are run again whole
    again = tmp_path / "again.zarr"
    segment_volume(f"{sample}:raw", str(out), small_config(**before), overwrite=True)
    segment_volume(f"{sample}:raw", str(again), small_config(**before))
    assert digest(out) == digest(again)


def test_links_of_tiles_that_are_no_more_are_gone(sample: Path, tmp_path: Path) -> None:
    model = random_network(tmp_path / "cells.safetensors", gain=8, out_channels=2, classes=CLASSES)
    out = tmp_path / "out.zarr"
    cells = {"predict__model": model, "segment__mode": "2d"}
    segment_volume(f"{sample}:raw", str(out), small_config(**cells, fragments__tile=[1, 32, 32]))
    many = tables(out)["links"]
    segment_volume(f"{sample}:raw", str(out), small_config(**cells), overwrite=True)
    assert tables(out)["links"] < many
    segment_volume(f"{sample}:raw", str(out), small_config(), overwrite=True)
    assert "links" not in tables(out)


def test_what_other_segmentations_have_stays_and_all_can_be_made_again(reference: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(reference, tmp_path / "out.zarr"))
    levels = ["agglomerate.levels=1", "agglomerate.cell=[1,64,64]"]
    first = agglomerate(str(out), [*levels, "run.block=[4,128,144]"], name="wide", workers=0)
    before = tables(out)
    # in the blocks of the other; those of the run's own costs stay
    assert (before["edges"], before["agglomerated/wide/costs"], before["costs"]) == (1, 1, 8)
    agglomerate(str(out), ["agglomerate.beta=0.6"], workers=0)
    after = tables(out)
    assert (after["edges"], after["nodes"], after["costs"]) == (8, 8, 8)
    others = [key for key in before if key.startswith("agglomerated/wide")]
    assert any("levels" in key for key in others)
    assert {key: after[key] for key in others} == {key: before[key] for key in others}
    overrides = [*levels, "run.block=[4,128,144]", "agglomerate.beta=0.25"]
    second = agglomerate(str(out), overrides, name="wide", workers=0)
    assert (second.segments, second.energy) == (first.segments, first.energy)
