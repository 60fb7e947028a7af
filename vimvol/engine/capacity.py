"""How many calls the workers of a Dask cluster run at once, and what each has for them; workers come and go."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Any

import distributed

from vimvol.engine.pool import SHARE, Resource, Room

LOG = logging.getLogger(__name__)

Workers = dict[str, dict[str, Any]]
"""What the scheduler knows of every worker, by its address."""


class Capacity:
    """Counts the workers of a cluster and what they declare.

    Parameters
    ----------
    client
        Of the cluster.
    see
        Told of the workers whenever they are others.
    offered
        What workers will declare who are still to come.
    """

    def __init__(
        self, client: distributed.Client, see: Callable[[Workers], object], offered: Iterable[Resource] = ()
    ) -> None:
        self.slots = 1
        self._client, self._see = client, see
        self._resources: dict[Resource, int] = dict.fromkeys(offered, 1)
        self._threads: dict[str, int] = {}

    def count(self) -> None:
        """Take notice of which workers there are."""
        threads: dict[str, int] = self._client.nthreads()
        if threads and threads != self._threads:
            for gone in sorted(self._threads.keys() - threads.keys()):
                LOG.info("worker %s is gone", gone)
            self._threads = threads
            self.slots = max(1, sum(threads.values()))
            workers = self.workers()
            self._see(workers)
            has = [known.get("resources", {}) for known in workers.values()]
            for resource, share in SHARE.items():
                if total := sum(of.get(resource, 0) for of in has):
                    # Where all workers of a resource are away for a while, their calls wait for them.
                    self._resources[resource] = max(1, int(total / share))

    def workers(self) -> Workers:
        """Return what the scheduler knows of every worker."""
        # releases of distributed from 2025.4 to 2026.6 tell of five unless asked for all
        return dict(self._client.scheduler_info(n_workers=-1)["workers"])

    def declares(self, resource: Resource | None) -> bool:
        """Tell whether some worker declares a resource, or will."""
        return resource in self._resources

    def slots_for(self, resource: Resource | None) -> int:
        """Return how many calls that want this resource can run at the same time."""
        return self.slots if resource is None else self._resources.get(resource, self.slots)

    def room_for(self, resource: Resource | None) -> Room:
        """Return what the smallest worker process has that runs calls which want this resource."""
        workers = list(self.workers().values())
        if resource in self._resources and resource is not None:
            having = [worker for worker in workers if worker.get("resources", {}).get(resource)]
            calls = [int(worker["resources"][resource] / SHARE[resource]) for worker in having]
        else:
            having, calls = workers, [worker["nthreads"] for worker in workers]
        limits = [worker["memory_limit"] for worker in having if worker["memory_limit"]]
        return Room(int(min(limits, default=0)), max(1, *calls, 1))
