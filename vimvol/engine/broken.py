"""Workers whose device is broken for good: a process that is started anew for each fails like the one before."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from vimvol.engine.pool import Resource
from vimvol.errors import IncompleteRunError

LOG = logging.getLogger(__name__)

Workers = dict[str, dict[str, Any]]
"""What the scheduler knows of workers."""

CALLS_TO_BREAK = 3
"""Different calls in a row of which processes of a worker lose their device, none having ended between, before the
worker is left out. A block that breaks any device is tried by several processes, and is a single call."""
SECONDS_ALONE = 600.0
"""For which others that were there are waited for, where none is there besides workers that are left out."""


@dataclass(frozen=True)
class DeviceFailure:
    """What a worker process tells before it ends.

    Attributes
    ----------
    cause
        What the device's library says.
    worker
        What stays the same of all processes of this worker: the address of its nanny; of one without, its own.
    name
        Name of the worker, as its cluster knows it.
    returns
        Whether a process is started anew.
    finished
        Whether a call that wanted this resource had ended in the process before.
    resource
        What the call wants of a worker.
    """

    cause: str
    worker: str
    name: str
    returns: bool
    finished: bool
    resource: Resource | None


class Keep(Protocol):
    """Sees to it that workers that were lost come back; called now and then."""

    def __call__(self) -> None:
        """Look after them."""

    def give_up(self, name: str) -> None:
        """Do without the worker of this name from now on."""

    def expects(self, name: str) -> bool:
        """Tell whether others like the worker of this name, which may have been given up, are still asked for."""
        ...


class BrokenWorkers:
    """Leaves workers out whose device is broken for good; one thread tells of devices, another looks after workers.

    Parameters
    ----------
    keep
        Who brings lost workers back; none: nobody but their nannies.
    now
        The time, in seconds.
    """

    def __init__(self, keep: Keep | None = None, now: Callable[[], float] = time.monotonic) -> None:
        self._keep, self._now = keep, now
        self._calls: dict[str, set[Hashable]] = {}
        self._left_out: dict[str, DeviceFailure] = {}
        self._given_up: set[str] = set()
        self._seen: Workers = {}
        self._alone_since: dict[Resource | None, float] = {}

    def tell(self, key: Hashable, failure: DeviceFailure) -> bool:
        """Take notice of a device that failed in a call; return whether its worker is left out from now on."""
        calls = self._calls.setdefault(failure.worker, set())
        if failure.finished:
            calls.clear()
        calls.add(key)
        if failure.worker not in self._left_out and (len(calls) >= CALLS_TO_BREAK or not failure.returns):
            self._left_out[failure.worker] = failure
            LOG.warning("worker %s is left out from now on, its device seems to be broken for good", failure.name)
        return failure.worker in self._left_out

    def see(self, workers: Workers) -> None:
        """Take notice of workers that are there."""
        self._seen |= _by_worker(workers)

    def leave_out(self, workers: Callable[[], Workers], retire: Callable[[list[str]], object]) -> None:
        """Close workers that are left out, and make sure that there are others for what they were needed for.

        Parameters
        ----------
        workers
            Returns what the scheduler knows of every worker, by its address; not asked while all is well.
        retire
            Closes workers for good, by their addresses.

        Raises
        ------
        IncompleteRunError
            If nobody is left.
        """
        failures = list(self._left_out.values())
        if not failures:
            return
        for failure in failures:
            if self._keep is not None and failure.worker not in self._given_up:
                self._keep.give_up(failure.name)
            self._given_up.add(failure.worker)
        present = workers()
        if broken := [address for address, known in present.items() if _lasting(address, known) in self._left_out]:
            retire(broken)
        for failure in failures:
            self._check(failure, _by_worker(present), len(failures))

    def _check(self, failure: DeviceFailure, present: Workers, count: int) -> None:
        """Make sure that whatever wants what this worker had is, or will be, computed by others."""
        kind, now = failure.resource, self._now()
        if self._others(present, kind) or (self._keep is not None and self._keep.expects(failure.name)):
            self._alone_since.pop(kind, None)
        elif not self._others(self._seen, kind) or now - self._alone_since.setdefault(kind, now) > SECONDS_ALONE:
            raise IncompleteRunError(_nobody(failure, count))

    def _others(self, workers: Workers, resource: Resource | None) -> bool:
        """Tell whether one of these, by what stays the same of it, has a resource and is not left out."""
        return any(
            worker not in self._left_out and (resource is None or known.get("resources", {}).get(resource))
            for worker, known in workers.items()
        )


def _by_worker(workers: Workers) -> Workers:
    return {_lasting(address, known): known for address, known in workers.items()}


def _lasting(address: str, known: Mapping[str, Any]) -> str:
    """Return what stays the same of all processes of a worker, given what the scheduler knows of the one that is."""
    return str(known.get("nanny") or address)


def _nobody(failure: DeviceFailure, count: int) -> str:
    which = "no worker is left" if failure.resource is None else f"no worker with a {failure.resource} is left"
    all_of_them = f"of all {count} the devices failed" if count > 1 else "its device failed"
    how = "again and again, no block ending between" if failure.returns else "and nothing starts it anew"
    return (
        f"{which}: {all_of_them}, last that of {failure.name} at {failure.worker} {how} ({failure.cause}); finished "
        "blocks are kept: mend that device or choose others, and run the same command again to go on"
    )
