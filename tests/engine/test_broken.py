"""Which workers are left out because of their devices, without a cluster."""

import logging

import pytest

from vimvol.engine.broken import SECONDS_ALONE, BrokenWorkers, DeviceFailure
from vimvol.errors import IncompleteRunError


class Time:
    now = 100.0

    def __call__(self) -> float:
        return self.now


class Keeper:
    def __init__(self, *waiting: str) -> None:
        self.waiting, self.given_up = waiting, []

    def __call__(self) -> None:
        pass

    def give_up(self, name: str) -> None:
        self.given_up.append(name)

    def expects(self, name: str) -> bool:
        return bool(self.waiting)


def failure(name: str = "a", *, finished: bool = False, returns: bool = True) -> DeviceFailure:
    return DeviceFailure("CUDA error", f"nanny of {name}", name, returns, finished, "GPU")


def workers(gpus: str, cpus: str = "") -> dict:
    """What a scheduler knows; names are letters, and the process of a worker has an address of its own."""
    kinds = [*((name, "GPU") for name in gpus), *((name, "CPU") for name in cpus)]
    return {f"tcp://{name}": {"nanny": f"nanny of {name}", "resources": {kind: 1}} for name, kind in kinds}


def broken(names: str, keeper: Keeper | None = None, now: Time | None = None) -> BrokenWorkers:
    found = BrokenWorkers(keeper, now or Time())
    for name in names:
        for key in range(3):
            found.tell(key, failure(name))
    return found


def test_a_block_that_breaks_devices_and_a_device_that_works_again_leave_no_worker_out() -> None:
    found = BrokenWorkers()
    assert not any(found.tell("x", failure()) for _ in range(9))
    assert not found.tell("y", failure())
    assert not any(found.tell(key, failure(finished=True)) for key in range(9))
    assert not found.tell("y", failure())
    assert found.tell("z", failure())
    assert found.tell("x", failure(finished=True))


def test_who_is_not_started_anew_is_left_out_at_once() -> None:
    assert BrokenWorkers().tell("x", failure(returns=False))


def test_workers_that_are_left_out_are_closed_whenever_they_come(caplog) -> None:
    keeper = Keeper()
    with caplog.at_level(logging.WARNING):
        found = broken("a", keeper)
    assert len(caplog.records) == 1
    closed = []
    for present in ("ab", "b", "ab"):
        found.leave_out(lambda there=present: workers(there), closed.append)
    assert closed == [["tcp://a"], ["tcp://a"]]
    assert keeper.given_up == ["a"]


def test_nobody_is_asked_while_all_is_well() -> None:
    found = BrokenWorkers()
    found.tell("x", failure())
    found.leave_out(lambda: pytest.fail("asked"), lambda _: None)


def test_workers_without_the_resource_and_those_left_out_are_no_others() -> None:
    with pytest.raises(IncompleteRunError, match="no worker with a GPU is left: its device failed, last that of a at"):
        broken("a").leave_out(lambda: workers("a", "c"), lambda _: None)
    found = broken("ab")
    found.see(workers("ab", "c"))
    with pytest.raises(IncompleteRunError, match="of all 2 the devices failed"):
        found.leave_out(lambda: workers("", "c"), lambda _: None)


def test_others_that_were_there_are_waited_for_a_while_and_jobs_that_wait_for_as_long_as_they_do() -> None:
    time, keeper = Time(), Keeper("job")
    for each in (broken("a", now=time), broken("a", keeper, time)):
        each.see(workers("ab"))
        for _ in range(2):
            each.leave_out(lambda: workers("b"), lambda _: None)
            each.leave_out(lambda: workers(""), lambda _: None)
            time.now += SECONDS_ALONE - 1
            each.leave_out(lambda: workers(""), lambda _: None)
    time.now += SECONDS_ALONE + 1
    each.leave_out(lambda: workers(""), lambda _: None)
    keeper.waiting = ()
    each.leave_out(lambda: workers(""), lambda _: None)
    time.now += SECONDS_ALONE + 1
    with pytest.raises(IncompleteRunError):
        each.leave_out(lambda: workers(""), lambda _: None)
