import itertools
import math

import pytest

from vimvol.engine.pace import MOST_BLOCKS_OF_CALL, REMEMBERED, SHORTEST_DEADLINE, SLOWER_THAN_OTHERS, Pace

PADDING, TISSUE = 0.01, 200.0


def learned(*seconds: float, deadline: float | None = None, sampled: float = 0.0) -> Pace:
    pace = Pace(deadline, sampled)
    for value in seconds:
        pace.learn(value)
    return pace


def test_long_blocks_go_one_by_one_and_short_ones_share_a_call() -> None:
    assert learned(*[5.0] * 20).blocks_of_call(100_000, 8) == 1
    assert learned(*[0.1] * 20).blocks_of_call(100_000, 8) in (4, 5)
    assert learned(*[1e-6] * 20).blocks_of_call(100_000, 8) == MOST_BLOCKS_OF_CALL


def test_nothing_is_shared_before_anything_is_known_or_where_workers_would_idle() -> None:
    assert Pace().blocks_of_call(100_000, 8) == 1
    assert learned(*[1e-6] * 20).blocks_of_call(16, 8) == 1
    assert learned(*[1e-6] * 20).blocks_of_call(64, 8) == 4


def test_a_block_has_a_generous_time_before_enough_is_known() -> None:
    pace, large = learned(*[1.0] * 4), 128 * 2048 * 2048
    assert [pace.allowed(1, patience, 4096) for patience in (0, 0.5, 1)] == pytest.approx([3600, 7200, 14400])
    assert pace.allowed(1, voxels=large) == 1e-3 * large
    assert pace.allowed(1, 1.0, voxels=large) == 4e-3 * large
    assert learned(PADDING, 7 * TISSUE).allowed(1) == 20 * 7 * TISSUE
    pace.learn(1.0)
    assert pace.allowed(1, voxels=large) == SHORTEST_DEADLINE[0]


def test_a_sample_shortens_the_time_of_first_tries_before_enough_is_known() -> None:
    assert learned(sampled=1.0).allowed(1, voxels=4096) == 600
    assert learned(*[PADDING] * 3, sampled=TISSUE).allowed(1) == 20 * TISSUE
    assert learned(sampled=1.0).allowed(1, 1.0, 4096) == pytest.approx(4 * 3600)
    assert learned(PADDING, 7 * TISSUE, sampled=1.0).allowed(1) == 20 * 7 * TISSUE


@pytest.mark.parametrize("before", [5, 99, 100, 101, 995])
def test_the_slowest_decides_and_not_most(before: int) -> None:
    pace = learned(*[PADDING] * before, TISSUE, *[PADDING] * 4)
    assert pace.allowed(1) == SLOWER_THAN_OTHERS[0] * TISSUE
    assert pace.allowed(1, 1.0) == pytest.approx(SLOWER_THAN_OTHERS[1] * TISSUE)


def test_a_sample_counts_among_the_slowest_for_good() -> None:
    for blocks in (5, 100, 2 * REMEMBERED):
        assert learned(*[PADDING] * blocks, sampled=TISSUE).allowed(1) == SLOWER_THAN_OTHERS[0] * TISSUE


def test_a_block_that_was_ended_gets_far_more_time_and_most_in_its_last_try() -> None:
    padding, tissue = learned(*[PADDING] * 50), learned(*[TISSUE] * 50)
    assert [padding.allowed(1, patience) for patience in (0, 1)] == pytest.approx(SHORTEST_DEADLINE)
    assert padding.allowed(1, 0.5) == pytest.approx(math.sqrt(math.prod(SHORTEST_DEADLINE)))
    for pace in (padding, tissue):
        times = [pace.allowed(1, tried / 4) for tried in range(5)]
        assert all(later > 1.4 * earlier for earlier, later in itertools.pairwise(times))


def test_one_block_of_a_call_may_be_slow() -> None:
    """The others are taken for ordinary, or a call of many that hangs would be waited for without end."""
    pace = learned(*[TISSUE] * 3, *[PADDING] * 900)
    assert pace.allowed(256) == pytest.approx(pace.allowed(1), rel=0.2)
    pace = learned(*[TISSUE] * 50)
    assert pace.allowed(3) == pytest.approx(3 * pace.allowed(1))


def test_what_was_slow_long_ago_is_forgotten() -> None:
    pace = learned(TISSUE, *[1.0] * (REMEMBERED - 1))
    assert pace.allowed(1) == SLOWER_THAN_OTHERS[0] * TISSUE
    for _ in range(100):
        pace.learn(1.0)
    assert pace.allowed(1) == SHORTEST_DEADLINE[0]


def test_a_configured_deadline_holds_from_the_first_block_and_in_every_try() -> None:
    assert learned(deadline=7).allowed(1) == 7
    assert learned(deadline=7).allowed(4) == 28
    assert learned(*[TISSUE] * 200, deadline=7).allowed(1, 1.0) == 7


def test_the_pace_follows_a_change() -> None:
    pace = learned(*[0.001] * 1000)
    assert pace.blocks_of_call(100_000, 8) == MOST_BLOCKS_OF_CALL
    for _ in range(500):
        pace.learn(20.0)
    assert pace.blocks_of_call(100_000, 8) == 1
    assert pace.allowed(1) == SLOWER_THAN_OTHERS[0] * 20.0
