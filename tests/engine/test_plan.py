import pytest
from hypothesis import given
from hypothesis import strategies as st

from vimvol.engine.plan import FEWEST_SHARDS, default_shard, plan_stage
from vimvol.errors import ConfigError
from vimvol.geometry import Block, Grid

sizes = st.tuples(*[st.integers(1, 40)] * 3)
units = st.tuples(*[st.integers(1, 9)] * 3)
factors = st.tuples(*[st.integers(1, 4)] * 3)


@given(shape=sizes, unit=units, factor=factors)
def test_no_write_unit_is_shared(shape, unit, factor) -> None:
    block = tuple(u * f for u, f in zip(unit, factor, strict=True))
    plan = plan_stage("predict", shape, unit, block)
    owners: dict[tuple[int, ...], int] = {}
    written = 0
    for number, box in enumerate(plan):
        written += box.size
        for shard in Grid(shape, unit).overlapping(box):
            assert owners.setdefault(shard, number) == number
    assert written == shape[0] * shape[1] * shape[2]


@given(shape=sizes, unit=units, block=sizes)
def test_a_block_that_would_share_a_shard_is_refused(shape, unit, block) -> None:
    shares = any(b < s and b % u for s, u, b in zip(shape, unit, block, strict=True))
    if shares:
        with pytest.raises(ConfigError, match="no multiple of the shard"):
            plan_stage("predict", shape, unit, block)
    else:
        plan_stage("predict", shape, unit, block)


@given(shape=st.tuples(st.integers(1, 300), st.integers(1, 3000), st.integers(1, 3000)))
def test_default_shards_are_enough_for_some_workers_or_as_small_as_is_sensible(shape) -> None:
    chunk = (16, 128, 128)
    shard = default_shard(shape, chunk, (256, 256))
    assert all(s % c == 0 and s > 0 for s, c in zip(shard, chunk, strict=True))
    assert len(Grid(shape, shard)) >= FEWEST_SHARDS or (shard[0] == 16 and max(shard[1:]) <= 256)


@pytest.mark.parametrize(
    ("shape", "shard"),
    [
        ((1000, 10000, 10000), (32, 512, 512)),
        ((150, 250, 250), (16, 256, 256)),
        ((20, 512, 512), (16, 256, 256)),
        ((15, 1024, 1024), (16, 256, 512)),
    ],
)
def test_default_shards(shape, shard) -> None:
    assert default_shard(shape, (16, 128, 128), (256, 256)) == shard


@given(shape=sizes, unit=units, factor=factors, corners=st.tuples(sizes, sizes), others=st.tuples(sizes, sizes))
def test_a_region_has_the_blocks_that_meet_it_and_no_others(shape, unit, factor, corners, others) -> None:
    block = tuple(u * f for u, f in zip(unit, factor, strict=True))
    region, box = (
        Block(tuple(map(min, zip(*pair, strict=True))), tuple(map(max, zip(*pair, strict=True))))
        for pair in (corners, others)
    )
    whole, plan = plan_stage("a", shape, unit, block), plan_stage("a", shape, unit, block, region)
    found = list(plan)
    assert found == [b for b in whole if b.intersect(region).size]
    assert len(plan) == len(found)
    assert list(plan.meeting(box)) == [b for b in found if b.intersect(box).size]
    inside = region.clip(shape)
    assert sum(b.intersect(region).size for b in found) == inside.size


@given(shape=sizes, unit=units, data=st.data())
def test_a_block_is_found_by_its_number_and_voxels_add_up(shape, unit, data) -> None:
    begin = tuple(data.draw(st.integers(0, extent - 1)) for extent in shape)
    end = tuple(data.draw(st.integers(b + 1, extent)) for b, extent in zip(begin, shape, strict=True))
    for region in (None, Block(begin, end), Block(begin, begin)):
        plan = plan_stage("predict", shape, unit, region=region)
        assert [plan[number] for number in range(len(plan))] == list(plan)
        assert plan.voxels == sum(block.size for block in plan)
