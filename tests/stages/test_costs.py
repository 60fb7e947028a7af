from pathlib import Path

import numpy as np
import pytest

from tests.support import small_config
from vimvol.preflight.prepare import prepare
from vimvol.segment.edges import BINS, EdgeTable
from vimvol.segment.profiles import join_profiles
from vimvol.stages.costs import costs_of_edges


@pytest.mark.parametrize(("dimension", "times"), [("2d", 10), ("3d", 100)])
def test_edges_across_sections_weigh_as_lengths_and_those_of_3d_fragments_as_areas(
    sample: Path, tmp_path: Path, dimension: str, times: float
) -> None:
    job = prepare(f"{sample}:raw", str(tmp_path / "out.zarr"), small_config(fragments__dimension=dimension))
    assert job.sectioned == (dimension == "2d")
    # two edges within a section and two across, of each the second a hundred times as large; no boundary in any
    counts = np.array([[4, 400, 0, 0], [0, 0, 4, 400]])
    nothing = np.zeros_like(counts)
    ids = np.arange(1, 5, dtype=np.uint64)
    table = EdgeTable(
        u=ids,
        v=ids + np.uint64(1),
        counts=counts,
        totals=nothing,
        squares=nothing,
        minima=nothing.astype(np.uint16),
        maxima=nothing.astype(np.uint16),
        histograms=np.zeros((2, BINS, 4), np.uint32),
    )
    alone = join_profiles(np.arange(1, 6, dtype=np.uint64), np.array([4, 400, 4, 400, 400]), ids, [], 1)
    small, large, near, far = costs_of_edges(job, table, profiles=alone if job.sectioned else None)
    assert large == pytest.approx(100 * small)
    assert far == pytest.approx(times * near)
