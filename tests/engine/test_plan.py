import pytest
from hypothesis import given
from hypothesis import strategies as st

from vimvol.engine.plan import plan_stage, repeated_work
from vimvol.errors import ConfigError
from vimvol.geometry import Grid

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


def test_repeated_work_counts_tiles_that_blocks_cut() -> None:
    assert repeated_work((4, 8, 8), (4, 4, 4), (1, 4, 4)) == 1.0
    assert repeated_work((4, 8, 8), (4, 4, 8), (1, 8, 8)) == 2.0
