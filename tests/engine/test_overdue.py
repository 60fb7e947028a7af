"""For how long calls have been running, without a cluster."""

import pytest

from vimvol.engine.overdue import Clock


class Time:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def time() -> Time:
    return Time()


def test_a_call_that_began_counts_from_there(time: Time) -> None:
    clock = Clock(time)
    time.now += 50
    clock.tell("a", "x", goes_on=True)
    time.now += 11
    assert clock.overdue({("a", "x"): 3}, lambda _: 10.0) == {("a", "x"): 11.0}
    assert clock.overdue({("a", "x"): 3}, lambda _: 12.0) == {}


def test_a_call_that_did_not_say_so_has_the_time_of_all_that_its_worker_has(time: Time) -> None:
    clock = Clock(time)
    assert clock.overdue({("a", "x"): 3}, lambda _: 10.0) == {}
    time.now += 29
    assert clock.overdue({("a", "x"): 3}, lambda _: 10.0) == {}
    time.now += 2
    assert clock.overdue({("a", "x"): 3}, lambda _: 10.0) == {("a", "x"): 31.0}


def test_a_call_that_went_to_another_worker_counts_anew(time: Time) -> None:
    clock = Clock(time)
    clock.tell("a", "x", goes_on=True)
    time.now += 20
    assert clock.overdue({("b", "x"): 1}, lambda _: 10.0) == {}
    time.now += 11
    assert clock.overdue({("b", "x"): 1}, lambda _: 10.0) == {("b", "x"): 11.0}


def test_waiting_for_a_turn_stops_the_clock(time: Time) -> None:
    clock = Clock(time)
    held = {("a", "x"): 2, ("a", "y"): 2}
    clock.tell("a", "x", goes_on=True)
    clock.tell("a", "y", goes_on=True)
    clock.tell("a", "y", goes_on=False)
    assert clock.overdue(held, lambda _: 10.0) == {}
    time.now += 11
    assert clock.overdue(held, lambda _: 10.0) == {("a", "x"): 11.0}
    clock.tell("a", "y", goes_on=True)
    time.now += 9
    assert set(clock.overdue(held, lambda _: 10.0)) == {("a", "x")}
