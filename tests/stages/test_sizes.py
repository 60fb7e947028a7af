import shutil
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support import digest, small_config
from vimvol.commands.agglomerate import agglomerate
from vimvol.commands.segment import segment_volume
from vimvol.errors import ConfigError
from vimvol.geometry import Block
from vimvol.io.arrays import read_box
from vimvol.outputs.manifest import read_manifest
from vimvol.preflight.prepare import prepare
from vimvol.segment.graph import edge_table
from vimvol.stages import sizes
from vimvol.stages.fragments import read_boundaries, read_fragments
from vimvol.stages.sizes import segments_of
from vimvol.stages.solve import BYTES_PER_FRAGMENT

SHAPE = (4, 128, 120)
LIMITS = {"agglomerate__join_below": 3000, "agglomerate__fill_below": 10000}
SPLIT = {"agglomerate__beta": 0.5, "agglomerate__beta_across": 0.7, "agglomerate__beta_profiles": 1}
"""Priors that leave many small segments, some of them among large ones alone."""


@pytest.fixture(scope="module")
def pieces(reference: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of a run with many small segments."""
    out = Path(shutil.copytree(reference, tmp_path_factory.mktemp("pieces") / "out.zarr"))
    agglomerate(str(out), [f"{key.replace('__', '.')}={value}" for key, value in SPLIT.items()], workers=0)
    return out


@pytest.fixture(scope="module")
def settled(sample: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of a run in which small segments were joined and holes filled."""
    out = tmp_path_factory.mktemp("settled") / "out.zarr"
    segment_volume(f"{sample}:raw", str(out), small_config(**SPLIT, **LIMITS))
    return out


def labels_of(out: Path, name: str = "segmentation") -> np.ndarray:
    return read_box(f"{out}/labels/{name}/0", Block.whole(SHAPE))


def test_small_segments_go_to_the_neighbour_behind_the_lowest_boundary(
    sample: Path, pieces: Path, settled: Path, tmp_path: Path
) -> None:
    out = Path(shutil.copytree(pieces, tmp_path / "out.zarr"))
    agglomerate(str(out), ["segment.min_size=0"], name="all", workers=0)
    before, after = labels_of(out, "all"), labels_of(settled)
    manifest = read_manifest(str(settled)) or {}
    assert manifest["joined"] > 5
    assert manifest["segments"] == int(before.max()) - manifest["joined"] - manifest["filled"] == int(after.max())
    assert np.bincount(after.ravel())[1:].min() >= 3000
    # of one small segment among large ones the rule can be seen in the voxels
    job, whole = prepare(f"{sample}:raw", str(pieces), small_config(**SPLIT)), Block.whole(SHAPE)
    faces = read_fragments(job, whole, with_faces=True).faces
    table = edge_table(before.astype(np.int64), read_boundaries(job, whole), whole, faces=faces)
    voxels = np.bincount(before.ravel())
    checked = 0
    for small in np.flatnonzero((voxels < 3000) & (voxels > 0)):
        near = (table.u == small) | (table.v == small)
        others = np.where(table.u == small, table.v, table.u)[near]
        if small and (voxels[others] >= 3000).all():
            best = others[np.argmin(table.mean()[near])]
            assert set(np.unique(after[before == small])) == set(np.unique(after[before == best])), small
            checked += 1
    assert checked > 2


def test_neither_blocks_nor_workers_change_a_byte(
    sample: Path, settled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sizes, "LOOKUP_CHUNK", 7)
    monkeypatch.setattr(sizes, "ROWS_AT_ONCE", 10)
    config = small_config(**SPLIT, **LIMITS, run__block=[4, 64, 96], run__workers=2)
    segment_volume(f"{sample}:raw", str(tmp_path / "out.zarr"), config)
    assert digest(tmp_path / "out.zarr") == digest(settled)


def test_other_sizes_need_no_other_solve(pieces: Path, settled: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(pieces, tmp_path / "out.zarr"))
    solved = sorted((out / "vimvol/ledger/solve").rglob("*.records"))
    changes = [f"{key.replace('__', '.')}={value}" for key, value in LIMITS.items()]
    result = agglomerate(str(out), changes, workers=0)
    assert digest(out) == digest(settled)
    assert sorted((out / "vimvol/ledger/solve").rglob("*.records")) == solved
    assert result.joined == (read_manifest(str(settled)) or {})["joined"]
    # and back again
    agglomerate(str(out), ["agglomerate.join_below=0", "agglomerate.fill_below=0"], workers=0)
    assert digest(out) == digest(pieces)


def test_slices_are_settled_by_themselves(sample: Path, tmp_path: Path) -> None:
    config = small_config(segment__mode="2d", agglomerate__join_below=1000, agglomerate__fill_below=1000)
    segment_volume(f"{sample}:raw", str(tmp_path / "out.zarr"), config)
    labels = labels_of(tmp_path / "out.zarr")
    slices = [set(np.unique(plane)) - {0} for plane in labels]
    assert sum(map(len, slices)) == len(set().union(*slices))
    assert (read_manifest(str(tmp_path / "out.zarr")) or {})["joined"] > 0


def test_whole_instances_have_no_contacts_to_join_by(sample: Path, tmp_path: Path) -> None:
    config = small_config(segment__mode="2d", fragments__seeds="components", agglomerate__join_below=5)
    with pytest.raises(ConfigError, match=r"agglomerate\.join_below = 5 would not be followed"):
        segment_volume(f"{sample}:raw", str(tmp_path / "out.zarr"), config)
    assert not (tmp_path / "out.zarr").exists()


@given(st.lists(st.integers(0, 20), min_size=1, max_size=20), st.integers(0, 9), st.data())
def test_segments_are_numbered_by_their_first_fragment(choice, min_size, data):
    # every fragment names a smaller one of its segment, or itself
    first = [0]
    for i in range(1, len(choice)):
        first.append(i if choice[i] in (0, i) or choice[i] >= i else first[choice[i]])
    voxels = np.zeros(len(first), int)
    for i in range(1, len(first)):
        voxels[first[i]] += data.draw(st.integers(1, 5))
    names = {}
    expected = [0, *(names.setdefault(f, len(names) + 1) if voxels[f] >= min_size else 0 for f in first[1:])]
    assert segments_of(np.array(first, np.uint64), voxels, min_size).tolist() == expected


def test_the_lookup_table_takes_no_more_memory_than_is_planned_for() -> None:
    n = 8 * 10**6
    first, voxels = np.arange(n, dtype=np.uint64) // 2 * 2, np.full(n, 30, np.uint64)
    tracemalloc.start()
    try:
        segments_of(first, voxels, 25)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert first[-1] == n // 2 - 1
    of_fragments = first.nbytes + voxels.nbytes + peak - 8 * sizes.ROWS_AT_ONCE
    assert of_fragments / n < BYTES_PER_FRAGMENT
