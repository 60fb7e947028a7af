"""The workers of a run, which keep none of its inputs open when it ends."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from vimvol.config.cluster import ClusterConfig
from vimvol.engine.cluster import open_cluster
from vimvol.engine.pool import Pool
from vimvol.io.volume import forget_open


@contextlib.contextmanager
def workers_of(cluster: str | ClusterConfig, workers: int | None) -> Iterator[Pool]:
    """Yield the pool of a cluster, as `vimvol.engine.cluster.open_cluster` does.

    Workers may outlive the run; a file that they keep open could not be written by its owner.
    """
    with open_cluster(cluster, workers) as pool:
        try:
            yield pool
        finally:
            pool.everywhere(forget_open)
