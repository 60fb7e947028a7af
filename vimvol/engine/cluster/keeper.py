"""Seeing to it that the jobs that are asked for are there, and telling where they are not."""

from __future__ import annotations

import logging
import time
from collections import Counter
from typing import Any

import distributed

from vimvol.engine.cluster.queue import LISTS, jobs_in_queue
from vimvol.errors import IncompleteRunError

LOG = logging.getLogger(__name__)

SECONDS_LOST = 20.0
"""A job whose workers were there and are gone for so long, or that the batch system does not know for so long, is
lost."""
SECONDS_BETWEEN_QUESTIONS = 10.0
"""To the batch system, for jobs whose workers have not come."""
SECONDS_BETWEEN_LINES = 60.0
"""That tell for how long there has been no worker."""
TRIES = 3
"""Times in a row that a job is submitted again of which no worker came."""


class Keeper:
    """Submits jobs again that are lost: cancelled, out of wall time, or by a lost node; called now and then.

    A job that leaves the queue before a worker came of it was cancelled, or failed as it began. While others are there
    it is submitted again, a few times. Where none is, somebody wants the run to end, or no job will ever do.

    Parameters
    ----------
    cluster
        Of a class of dask-jobqueue.
    kind
        Key of `vimvol.engine.cluster.queue.LISTS`.
    """

    def __init__(self, cluster: Any, kind: str) -> None:  # noqa: ANN401 - a class of the library
        self._cluster, self._kind = cluster, kind
        self._seen: set[str] = set()
        self._gone: dict[str, float] = {}
        self._missed: dict[str, float] = {}
        self._tries: Counter[str] = Counter()
        self._given_up: dict[str, Any] = {}
        self._queue: frozenset[str] | None = None
        self._asked = -SECONDS_BETWEEN_QUESTIONS
        self._alone_since = self._told = time.monotonic()

    def __call__(self) -> None:
        """Look after the jobs.

        Raises
        ------
        IncompleteRunError
            If there is no worker, and the batch system knows none of the jobs any more.
        """
        now = time.monotonic()
        present = {str(worker["name"]) for worker in self._cluster.scheduler_info["workers"].values()}
        lost, waiting = self._sorted(present, now)
        vanished = self._vanished(waiting, now)
        if present:
            self._alone_since = self._told = now
        elif vanished and not lost and vanished == set(self._cluster.worker_spec):
            raise IncompleteRunError(
                f"{LISTS[self._kind][0]} knows no job of {self._kind} of this run any more ({len(vanished)} asked "
                "for), and no worker came: they were cancelled, or failed as they began, which their output in "
                "log_folder tells; finished blocks are kept, run the same command again to go on"
            )
        elif now - self._told > SECONDS_BETWEEN_LINES:
            self._told = now
            LOG.warning(self._waiting_text(waiting, now))
        for name in sorted(vanished):
            if self._tries[name] == TRIES:
                LOG.warning("job %s left the queue %d times before a worker came, and is given up", name, TRIES + 1)
            self._tries[name] += 1
        self._submit([*lost, *(name for name in sorted(vanished) if self._tries[name] <= TRIES)])

    def give_up(self, name: str) -> None:
        """Cancel the job of one worker, and submit it no more: it would get the same node and device again.

        Parameters
        ----------
        name
            Of the worker; that of a process of several of a job is none of a job, and nothing is done.
        """
        spec = self._cluster.worker_spec.pop(name, None)
        if spec is not None:
            self._given_up[name] = spec.get("options")
            self._cluster.sync(_cancel, self._cluster, name)

    def expects(self, name: str) -> bool:
        """Tell whether jobs of the same pool as a worker that was given up are asked for."""
        options = self._given_up.get(name)
        return any(spec.get("options") == options for spec in self._cluster.worker_spec.values())

    def _sorted(self, present: set[str], now: float) -> tuple[list[str], dict[str, str]]:
        """Return jobs that had workers and are lost, and the numbers of those that never had any."""
        lost, waiting = [], {}
        for name, spec in list(self._cluster.worker_spec.items()):
            members = {f"{name}{suffix}" for suffix in spec.get("group", [""])}
            job = self._cluster.workers.get(name)  # once: the cluster scales in a thread of its own
            if members & present:
                self._seen.add(name)
                self._gone.pop(name, None)
                self._tries.pop(name, None)
            elif name in self._seen or job is None:
                # The cluster gives up a lost job by itself, but not one of several processes, and replaces neither.
                if now - self._gone.setdefault(name, now) > SECONDS_LOST:
                    lost.append(name)
            else:
                waiting[name] = str(job.job_id)
        return lost, waiting

    def _vanished(self, waiting: dict[str, str], now: float) -> set[str]:
        """Return which jobs the batch system has not known for a while."""
        if waiting and now - self._asked > SECONDS_BETWEEN_QUESTIONS:
            self._queue, self._asked = jobs_in_queue(self._kind), now
        queue = self._queue
        unknown = set() if queue is None else {name for name, number in waiting.items() if number not in queue}
        self._missed = {name: self._missed.get(name, now) for name in unknown}
        return {name for name, since in self._missed.items() if now - since > SECONDS_LOST}

    def _waiting_text(self, waiting: dict[str, str], now: float) -> str:
        command, asked = LISTS[self._kind][0], len(self._cluster.worker_spec)
        queued = len(waiting) - len(self._missed)
        there = f"{command} does not answer" if self._queue is None else f"{queued} in the queue by {command}"
        minutes = (now - self._alone_since) / 60
        return f"no worker for {minutes:.0f} min: jobs of {self._kind} asked for: {asked}, {there}"

    def _submit(self, names: list[str]) -> None:
        """Submit jobs again."""
        if not names:
            return
        try:
            self._cluster.sync(_resubmit, self._cluster, names)
        except RuntimeError as error:
            LOG.warning(
                "a lost job could not be submitted again (%s); this is tried again", " ".join(str(error).split())
            )
            self._gone |= dict.fromkeys(names, time.monotonic())
        else:
            LOG.warning("submitted again what was lost: %s", ", ".join(names))
            self._seen -= set(names)
            for name in names:
                self._gone.pop(name, None)
                self._missed.pop(name, None)


async def _resubmit(cluster: Any, names: list[str]) -> None:  # noqa: ANN401 - a class of the library
    for name in names:
        if (job := cluster.workers.pop(name, None)) is not None:
            await job.close()
    await submitted(cluster)


async def _cancel(cluster: Any, name: str) -> None:  # noqa: ANN401 - a class of the library
    if (job := cluster.workers.pop(name, None)) is not None:
        await job.close()


async def submitted(cluster: Any) -> None:  # noqa: ANN401 - a class of the library
    """Submit the jobs that are wanted and not there.

    Raises
    ------
    RuntimeError
        If the batch system refuses them.
    """
    try:
        await cluster
    except RuntimeError:
        for job in cluster.workers.values():
            if job.job_id is None:  # else the cluster, when it is closed, takes offence at one that never started
                job.status = distributed.Status.failed
        raise
