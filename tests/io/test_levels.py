"""Pyramids and storage shapes."""

import itertools
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vimvol.errors import InputError
from vimvol.io import pyramid, storage_shapes

shapes = st.tuples(*[st.integers(1, 5000)] * 3)
sizes = st.tuples(*[st.sampled_from([1.0, 4.0, 4.6, 8.0, 30.0, 40.0, 50.0])] * 3)


@settings(deadline=None)
@given(shapes, sizes, st.none() | st.integers(1, 9), st.integers(1, 600))
def test_every_level_follows_from_the_first(shape, voxel_size, levels, smallest):
    plan = pyramid(shape, voxel_size, levels, smallest)
    assert (plan[0].shape, plan[0].factor, plan[0].translation) == (shape, (1, 1, 1), (0, 0, 0))
    for below, level in itertools.pairwise(plan):
        steps = [a // b for a, b in zip(level.factor, below.factor, strict=True)]
        assert set(steps) <= {1, 2}
        assert 2 in steps
        assert level.shape == tuple(math.ceil(s / f) for s, f in zip(below.shape, steps, strict=True))
        assert all(s > 1 for s, f in zip(below.shape, steps, strict=True) if f == 2)
    for level in plan:
        assert level.shape == tuple(math.ceil(s / f) for s, f in zip(shape, level.factor, strict=True))
        assert level.scale == tuple(v * f for v, f in zip(voxel_size, level.factor, strict=True))
        # the centre of the first cell of f voxels, against the centre of the first voxel
        centres = [sum(range(f)) / f * v if f < 2000 else None for v, f in zip(voxel_size, level.factor, strict=True)]
        assert all(c is None or t == pytest.approx(c) for t, c in zip(level.translation, centres, strict=True))
    if levels is None:
        assert max(plan[-1].shape) <= smallest or len(plan) == 16
        assert all(max(level.shape) > smallest for level in plan[:-1])
    else:
        assert len(plan) == levels or max(plan[-1].shape) == 1


@settings(deadline=None)
@given(st.tuples(*[st.integers(2, 5000)] * 3), sizes)
def test_no_other_choice_of_axes_is_closer_to_cubes(shape, voxel_size):
    level = pyramid(shape, voxel_size, 2)[1]

    def ratio(scale):
        return max(scale) / min(scale)

    choices = [tuple(v * (2 if number >> i & 1 else 1) for i, v in enumerate(voxel_size)) for number in range(1, 8)]
    assert ratio(level.scale) == pytest.approx(min(ratio(c) for c in choices))


def test_slices_stay_until_the_plane_is_as_coarse():
    factors = [level.factor for level in pyramid((125, 12500, 12500), (40, 4, 4))]
    assert factors == [(1, 1, 1), (1, 2, 2), (1, 4, 4), (1, 8, 8), (2, 16, 16), (4, 32, 32), (8, 64, 64)]
    assert [level.factor for level in pyramid((500, 500, 500), (8, 8, 8))] == [(1, 1, 1), (2, 2, 2)]
    assert [level.factor for level in pyramid((1, 600, 600), (4, 4, 4))] == [(1, 1, 1), (1, 2, 2), (1, 4, 4)]


@pytest.mark.parametrize(
    "arguments", [((0, 1, 1), (1, 1, 1)), ((1, 1, 1), (0, 1, 1)), ((1, 1), (1, 1, 1)), ((1, 1, 1), (1, 1, 1), 0)]
)
def test_no_pyramid(arguments):
    with pytest.raises(ValueError, match="no pyramid"):
        pyramid(*arguments)


@settings(deadline=None)
@given(shapes, st.tuples(*[st.integers(1, 200)] * 3), st.tuples(*[st.integers(1, 8)] * 3))
def test_storage_fits(shape, chunk, multiple):
    shard = tuple(c * m for c, m in zip(chunk, multiple, strict=True))
    chunks, shards = storage_shapes(shape, chunk, shard)
    for s, given_chunk, given_shard, c, d in zip(shape, chunk, shard, chunks, shards, strict=True):
        assert d % c == 0
        assert c == min(given_chunk, s)
        assert d <= given_shard
        assert d == given_shard or s <= d < s + c  # as asked for, or no larger than needed
    assert storage_shapes(shape, chunks, shards) == (chunks, shards)


def test_a_shard_must_hold_whole_chunks():
    with pytest.raises(InputError, match=r"shard \(32, 500, 512\) is no multiple .*e.g. \(32, 512, 512\)"):
        storage_shapes((99, 999, 999), (16, 128, 128), (32, 500, 512))
    with pytest.raises(InputError, match="below 1"):
        storage_shapes((99, 999, 999), (0, 128, 128), (32, 512, 512))
