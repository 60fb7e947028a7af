"""What bounds the threads of a worker, and lets it use the memory that it has; the same for every kind of cluster."""

from __future__ import annotations

import os
import sys

import distributed
import threadpoolctl

THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "NUMBA_NUM_THREADS",
    "ZARR_THREADING__MAX_WORKERS",
    # glibc's heaps, of which only the main one, here that of all threads, can keep large arrays.
    "MALLOC_ARENA_MAX",
)
"""What bounds the threads of each library; all of them take every core if nobody says otherwise."""

ENVIRONMENT = dict.fromkeys(THREAD_VARIABLES, "1")
"""Environment of every worker that is started."""

SETTINGS = {
    "distributed.worker.daemon": False,
    # One block holds most of what a worker needs; pausing it at a fixed share would only dead-lock the window.
    "distributed.worker.memory.pause": False,
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    # To look at every stack 100 times a second, and at every event loop 50 times, took a tenth of a core with two
    # workers, and nobody looked at the outcome.
    "distributed.worker.profile.enabled": False,
    "distributed.admin.tick.interval": "500ms",
}
"""Dask's configuration of every worker that is started, and of a scheduler in this process."""


SETTINGS_HERE = {
    **SETTINGS,
    "distributed.nanny.pre-spawn-environ": ENVIRONMENT,
    # A process that takes longer than Dask's 15 s to be there again, on a busy machine, would be given up for good, and
    # without any other the run would wait for ever.
    "distributed.deploy.lost-worker-timeout": "1h",
}
"""The same where the processes of this machine are started."""


def remote_environment() -> dict[str, str]:
    """Return environment variables that give a worker elsewhere `ENVIRONMENT` and `SETTINGS`."""
    settings = {f"DASK_{key.upper().replace('.', '__')}": str(value) for key, value in SETTINGS.items()}
    return {**ENVIRONMENT, **settings}


class BoundThreads(distributed.WorkerPlugin):
    """Makes every worker compute a block with one thread, also one that somebody else has started."""

    name = "vimvol-threads"

    def setup(self, worker: distributed.Worker) -> None:  # noqa: ARG002 - the interface of Dask
        """Bound the libraries that are loaded, and by the environment those that are not yet."""
        os.environ.update(ENVIRONMENT)
        threadpoolctl.threadpool_limits(1)
        if "torch" in sys.modules:
            sys.modules["torch"].set_num_threads(1)
