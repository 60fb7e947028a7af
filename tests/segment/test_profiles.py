import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vimvol.geometry import Block
from vimvol.segment.costs import cut_across, edge_costs, weights_across
from vimvol.segment.edges import ACROSS
from vimvol.segment.graph import edge_table
from vimvol.segment.multicut.solvers import solve
from vimvol.segment.profiles import BOND, join_profiles, section_costs

HIGH, LOW = 250, 5
SIDE = 8


def measured(labels, boundaries):
    """The edges of fragments of single sections, their ids and sizes."""
    labels = labels.astype(np.int64)
    table = edge_table(labels, boundaries.astype(np.uint8), Block.whole(labels.shape))
    return table, np.arange(1, labels.max() + 1, dtype=np.uint64), np.bincount(labels.ravel())[1:]


@st.composite
def sections(draw):
    """Three sections of random fragments, numbered on from one to the next, boundaries, and the tiles of fragments."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    each = draw(st.integers(1, 6))
    labels = rng.integers(0, each, (3, SIDE, SIDE)) + each * np.arange(3)[:, None, None]
    labels = np.unique(labels, return_inverse=True)[1].reshape(labels.shape) + 1
    boundaries = rng.integers(0, 256, labels.shape)
    section = np.array([z for z, plane in enumerate(labels) for _ in np.unique(plane)])
    half = np.concatenate([np.arange(n) * 2 // n for n in np.bincount(section)])
    return labels, boundaries, section * 2 + half * draw(st.integers(0, 1))


@settings(max_examples=60)
@given(sections(), st.booleans())
def test_of_single_fragments_every_edge_costs_by_itself(made, weighting):
    labels, boundaries, tile = made
    table, ids, voxels = measured(labels, boundaries)
    alone = join_profiles(ids, voxels, tile, [table], 1)
    np.testing.assert_array_equal(alone.voxels, voxels)
    across = table.counts[ACROSS] > 0
    smaller = np.minimum(voxels[table.u.astype(int) - 1], voxels[table.v.astype(int) - 1])
    cut = np.where(across, cut_across(table.mean(), table.count, smaller), table.mean())
    weights = np.where(across, weights_across(table.count), table.count)
    expected = edge_costs(cut, weights, np.where(across, 0.4, 0.25), weighting)
    np.testing.assert_array_equal(section_costs(table, alone, 0.25, 0.4, weighting), expected)


@settings(max_examples=60)
@given(sections(), st.floats(0.05, 0.95), st.booleans())
def test_profiles_are_held_against_each_other_as_fragments_that_are_whole_would_be(made, prior, weighting):
    labels, boundaries, tile = made
    table, ids, voxels = measured(labels, boundaries)
    profiles = join_profiles(ids, voxels, tile, [table], prior, weighting)
    costs = section_costs(table, profiles, 0.25, 0.4, weighting)

    # the same volume, had the watershed made a fragment of every profile
    numbers = np.unique(profiles.profile, return_inverse=True)[1] + 1
    whole, names, sizes = measured(numbers[labels - 1], boundaries)
    expected = section_costs(whole, join_profiles(names, sizes, np.zeros(len(names), int), [], 1), 0.25, 0.4, weighting)
    across = whole.counts[ACROSS] > 0
    ends = np.stack([numbers[end.astype(int) - 1] for end in (table.u, table.v)])
    for u, v, cost in zip(whole.u[across], whole.v[across], expected[across], strict=True):
        assert costs[(ends[0] == u) & (ends[1] == v)].sum() == pytest.approx(cost, abs=1e-9)

    # what is one profile is joined by bonds, lies in one tile, and stays one, whatever lies over it
    bonds = costs == BOND
    assert (ends[0] == ends[1])[bonds].all()
    groups = solve(len(ids) + 1, table.uv, costs)[1:]
    for profile in np.unique(profiles.profile):
        of = profiles.profile == profile
        assert len(set(tile[of])) == len(set(groups[of])) == 1
        assert (profiles.voxels[of] == voxels[of].sum()).all()


@given(sections())
def test_a_tile_has_the_same_profiles_by_itself(made):
    labels, boundaries, tile = made
    table, ids, voxels = measured(labels, boundaries)
    together = join_profiles(ids, voxels, tile, [table], 0.5)
    for one in np.unique(tile):
        of = tile == one
        alone = join_profiles(ids[of], voxels[of], tile[of], [table], 0.5)
        np.testing.assert_array_equal(alone.voxels, together.voxels[of])
        same = together.profile[of][:, None] == together.profile[of]
        np.testing.assert_array_equal(alone.profile[:, None] == alone.profile, same)


def test_a_part_of_a_profile_does_not_follow_what_lies_under_it():
    # two neurites; the left one is in two fragments in one section, and both are whole, and moved by three, in the next
    labels = np.zeros((2, 12, 24), int)
    labels[0, :, :6], labels[0, :, 6:12], labels[0, :, 12:] = 1, 2, 3
    labels[1, :, :9], labels[1, :, 9:] = 4, 5
    boundaries = np.full(labels.shape, LOW)
    boundaries[0, :, 11:13] = boundaries[1, :, 8:10] = HIGH  # membranes; none between the fragments
    table, ids, voxels = measured(labels, boundaries)
    profiles = join_profiles(ids, voxels, np.array([0, 0, 0, 1, 1]), [table], 0.5)
    np.testing.assert_array_equal(profiles.voxels, [144, 144, 144, 108, 180])
    costs = dict(zip(map(tuple, table.uv.tolist()), section_costs(table, profiles, 0.25, 0.4), strict=True))
    assert costs[1, 2] == BOND
    alone = section_costs(table, join_profiles(ids, voxels, profiles.voxels * 0, [], 1), 0.25, 0.4)
    alone = dict(zip(map(tuple, table.uv.tolist()), alone, strict=True))
    # half of fragment 2 lies over 5, but a quarter of its profile
    assert 0 < costs[2, 5] < alone[2, 5]


def test_nothing_has_no_costs():
    empty = np.zeros((2, 4, 4), int)
    table, ids, voxels = measured(empty, empty)
    profiles = join_profiles(ids, voxels, voxels, [table], 0.5)
    assert section_costs(table, profiles, 0.25, 0.4).shape == profiles.fragment.shape == (0,)
