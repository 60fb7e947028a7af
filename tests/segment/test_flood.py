import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from vimvol.segment.flood import flood


def plainly_flooded(heights, seeds, mask):
    """The method as it is described, voxel by voxel, with a stack for every level."""
    labels = np.where(mask, seeds, 0)
    stacks = {level: [] for level in sorted(set(heights[mask].tolist()))}
    for voxel in np.ndindex(heights.shape):
        if labels[voxel]:
            stacks[heights[voxel]].append(voxel)
    for level, stack in stacks.items():
        while stack:
            voxel = stack.pop()
            for axis in range(heights.ndim):
                for step in (-1, 1):
                    near = tuple(v + step * (a == axis) for a, v in enumerate(voxel))
                    inside = all(0 <= n < s for n, s in zip(near, heights.shape, strict=True))
                    if inside and mask[near] and not labels[near]:
                        labels[near] = labels[voxel]
                        stacks[max(level, heights[near])].append(near)
    return labels


@st.composite
def reliefs(draw):
    shape = draw(hnp.array_shapes(min_dims=2, max_dims=3, max_side=9))
    low = draw(st.integers(-40, 40))
    heights = draw(hnp.arrays(np.int16, shape, elements=st.integers(low, low + 6)))
    few = st.sampled_from([0, 0, 0, 0, 1, 2, 3, 40000])
    seeds = draw(hnp.arrays(np.uint32, shape, elements=few))
    mask = draw(hnp.arrays(np.bool_, shape, elements=st.sampled_from([True, True, True, False])))
    return heights, seeds, mask


@given(reliefs())
@example((np.zeros((1, 1), np.int16), np.ones((1, 1), np.uint32), np.zeros((1, 1), bool)))
@settings(max_examples=150)
def test_water_takes_the_order_that_is_described(relief):
    heights, seeds, mask = relief
    assert (flood(heights, seeds, mask) == plainly_flooded(heights, seeds, mask)).all()
    everywhere = np.ones_like(mask)
    assert (flood(heights.astype(np.float32), seeds) == plainly_flooded(heights, seeds, everywhere)).all()


@pytest.mark.parametrize(
    ("shape", "levels"), [((40, 50), 3), ((12, 20, 30), 3), ((12, 20, 30), 4000), ((90, 90), 40000)]
)
def test_long_queues_are_emptied_in_order_too(shape, levels):
    rng = np.random.default_rng(0)
    heights = rng.integers(0, levels, shape).astype(np.float32)
    seeds = np.where(rng.random(shape) < 0.1, rng.integers(1, 99, shape), 0).astype(np.uint32)
    expected = plainly_flooded(heights, seeds, np.ones(shape, bool))
    assert (flood(heights, seeds) == expected).all()


@given(reliefs())
def test_a_seed_that_no_water_leaves_changes_nothing(relief):
    # so fragments that are freed can be flooded again with all others as seeds
    heights, seeds, _ = relief
    labels = flood(heights, seeds)
    assert (flood(heights, labels) == labels).all()


def test_nothing_is_flooded_without_seeds():
    assert (flood(np.zeros((3, 4), np.float32), np.zeros((3, 4), np.uint32)) == 0).all()
    assert flood(np.zeros((0, 4), np.float32), np.zeros((0, 4), np.uint32)).shape == (0, 4)


@pytest.mark.parametrize(
    ("seeds", "mask", "message"),
    [
        (np.zeros((3, 5), np.uint32), None, "not of one shape"),
        (np.zeros((3, 4), np.uint32), np.ones((2, 4), bool), "not of one shape"),
    ],
)
def test_shapes_that_differ_are_refused(seeds, mask, message):
    with pytest.raises(ValueError, match=message):
        flood(np.zeros((3, 4), np.float32), seeds, mask)


def test_too_many_voxels_for_the_queues_are_refused():
    heights = np.broadcast_to(np.float32(0), (2**20, 2**12))
    with pytest.raises(ValueError, match="too many to flood at once"):
        flood(heights, np.broadcast_to(np.uint32(1), heights.shape))
