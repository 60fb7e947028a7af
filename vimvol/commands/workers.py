"""The workers of a run, which keep none of its inputs open when it ends, and how its stages are run on them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from vimvol.config import RunConfig
from vimvol.config.cluster import ClusterConfig, read_cluster
from vimvol.engine.cluster import check_cluster, open_cluster
from vimvol.engine.cluster.enough import Calls
from vimvol.engine.journal import Journal, NoJournal
from vimvol.engine.lock import Lock
from vimvol.engine.pool import Pool
from vimvol.engine.run import Execution, Progress
from vimvol.errors import OutputExistsError
from vimvol.io.volume import forget_open
from vimvol.outputs.ownership import guard_of
from vimvol.preflight.announce import Tell, nobody, workers_text
from vimvol.preflight.room import check_room

OWN = ("local", "cuda")
"""Clusters whose processes end with the run, and are not waited for."""


@contextlib.contextmanager
def workers_of(
    cluster: str | ClusterConfig, workers: int | None, tell: Tell = nobody, *, calls: Calls
) -> Iterator[Pool]:
    """Yield the pool of a cluster, as `vimvol.engine.cluster.open_cluster` does; ``tell`` is told what is waited for.

    What is known of the memory of its workers is looked at before any is started, see `check_room`. Those of others
    outlive the run; a file that they keep open could not be written by its owner.
    """
    chosen = read_cluster(cluster) if isinstance(cluster, str) else cluster
    opened = open_cluster(chosen, workers, calls)
    check_room(chosen, workers, calls, tell)
    if text := workers_text(chosen, workers, calls):
        tell(text)
    with opened as pool:
        try:
            yield pool
        finally:
            if chosen.kind in OWN:
                forget_open()
            else:
                pool.everywhere(forget_open)


def execution_of(
    run: RunConfig, pool: Pool, lock: Lock, progress: Progress, journal: Journal | None = None
) -> Execution:
    """Return how the stages of a job are run by a process that holds the lock of its output, as long as it does."""
    return Execution(
        pool,
        progress,
        run.window,
        run.retries,
        deadline=run.deadline,
        check=lock.check,
        guard=guard_of(lock),
        journal=journal or NoJournal(),
    )


@contextlib.contextmanager
def told_first(cluster: ClusterConfig) -> Iterator[None]:
    """Tell of a cluster that cannot be had, rather than of an output that must not be replaced, which would come next.

    Raises
    ------
    InputError
        If the one is so where the other is.
    """
    try:
        yield
    except OutputExistsError:
        check_cluster(cluster)
        raise
