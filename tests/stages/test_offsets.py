from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.support import small_config
from vimvol.geometry import Block, Grid
from vimvol.io.arrays import read_box
from vimvol.preflight.prepare import prepare
from vimvol.stages import fragments
from vimvol.stages.fragments import offsets_of, write_offsets


@pytest.mark.parametrize("tiles", [1, 7, 8, 9, 24, 31])
@pytest.mark.parametrize("limited", [False, True])
def test_offsets_written_span_by_span_are_the_sums(
    sample: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiles: int, limited: bool
) -> None:
    monkeypatch.setattr(fragments, "OFFSETS_CHUNK", 4)
    monkeypatch.setattr(fragments, "OFFSETS_SPAN", 8)
    job = prepare(f"{sample}:raw", str(tmp_path / "out.zarr"), small_config())
    job = replace(job, fragment_tiles=Grid((tiles, 8, 8), (1, 8, 8)))
    counts = np.random.default_rng(tiles).integers(0, 9, tiles)
    low, high = (tiles // 3, tiles // 2 + 1) if limited else (0, tiles)
    counts[:low] = counts[high:] = 0
    # blocks tell of their tiles in any order
    results = [{"counts": {str(tile): int(counts[tile])}} for tile in np.random.default_rng(0).permutation(tiles)]
    results = [one for one in results if low <= int(next(iter(one["counts"]))) < high]
    write_offsets(job, results, high - 1 if limited else None)
    expected = np.concatenate([[0], np.cumsum(counts)])
    found = read_box(offsets_of(job), Block((0,), (tiles + 1,)))
    asked = slice(0, high + 1) if limited else slice(None)
    np.testing.assert_array_equal(found[asked], expected[asked])
    assert found[-1] == counts.sum()
