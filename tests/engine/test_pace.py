import math

from vimvol.engine.pace import MOST_BLOCKS_OF_CALL, SHORTEST_DEADLINE, Pace


def learned(*seconds: float, deadline: float | None = None) -> Pace:
    pace = Pace(deadline)
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


def test_the_deadline_follows_the_slower_ones_of_the_others() -> None:
    assert learned(1.0, 1.0).allowed(1) == math.inf
    assert learned(*[0.01] * 50).allowed(1) == SHORTEST_DEADLINE
    pace = learned(*[20.0] * 95, *[1000.0] * 3)
    assert 200 <= pace.allowed(1) < 1000
    assert pace.allowed(3) == 3 * pace.allowed(1)


def test_a_configured_deadline_holds_from_the_first_block() -> None:
    assert learned(deadline=7).allowed(1) == 7
    assert learned(deadline=7).allowed(4) == 28


def test_the_pace_follows_a_change() -> None:
    pace = learned(*[0.001] * 1000)
    for _ in range(500):
        pace.learn(2.0)
    assert pace.blocks_of_call(100_000, 8) == 1
    assert pace.allowed(1) > SHORTEST_DEADLINE - 1
