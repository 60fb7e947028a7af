from pathlib import Path

import numpy as np

from tests.support import small_config
from vimvol.geometry import Block
from vimvol.io.arrays import read_box
from vimvol.preflight.prepare import prepare
from vimvol.segment.edges import ACROSS, merge
from vimvol.segment.graph import edge_table
from vimvol.segment.numbering import number_after
from vimvol.segment.profiles import join_profiles, section_costs
from vimvol.stages.fragments import read_boundaries, read_fragments
from vimvol.stages.graph import graph_stage, nodes_of_edges, profiles_of_edges, read_edges


def test_the_whole_graph_is_that_of_the_volume(sample: Path, reference: Path) -> None:
    """Edges accumulated by block equal those of the fragments taken whole."""
    job = prepare(f"{sample}:raw", str(reference), small_config())
    whole = Block.whole(job.shape)
    window = read_fragments(job, whole, with_faces=True)
    np.testing.assert_array_equal(window.ids, np.arange(1, len(window.ids) + 1))
    assert window.faces.any()
    expected = edge_table(window.labels, read_boundaries(job, whole), whole, faces=window.faces)
    parts = [read_edges(job, block) for block in graph_stage(job).plan]
    merged = merge(parts)
    for name, column in expected.columns().items():
        np.testing.assert_array_equal(column, merged.columns()[name], err_msg=name)
    assert len(parts) > 4
    voxels, tile = np.bincount(window.labels.ravel())[1:], (window.places >> np.uint64(32)).astype(np.int64)
    assert job.sectioned
    profiles = join_profiles(window.ids, voxels, tile, [merged], job.config.agglomerate.beta_profiles)
    assert (profiles.voxels > voxels).any()
    for block, part in zip(graph_stage(job).plan, parts, strict=True):
        nodes = nodes_of_edges(job, block)
        found = profiles_of_edges(job, block, part)
        # nobody asks for the profiles beside a tile of the same section
        asked = (part.counts[ACROSS] > 0) | (tile[part.u.astype(int) - 1] == tile[part.v.astype(int) - 1])
        for end in (part.u, part.v):
            np.testing.assert_array_equal(nodes.voxels[nodes.find(end)], voxels[end.astype(int) - 1])
            here = np.searchsorted(found.fragment, end[asked])
            np.testing.assert_array_equal(found.voxels[here], profiles.voxels[end[asked].astype(int) - 1])
        np.testing.assert_array_equal(
            section_costs(part, found, 0.25, 0.4)[asked],
            section_costs(part, profiles, 0.25, 0.4)[asked],
        )
    # blocks are unions of tiles, so no edge is in parts
    assert sum(map(len, parts)) == len(expected)
    stored, numbers = read_box(job.fragments, whole), np.zeros(job.shape, np.int64)
    number_after(stored, 0, numbers)
    assert numbers.max() < len(window.ids)
