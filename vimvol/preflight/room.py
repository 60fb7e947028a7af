"""Whether workers will have room for what they compute, as far as that is known before any is started."""

from __future__ import annotations

from vimvol.config.cluster import ClusterConfig, LocalCluster
from vimvol.engine.cluster.enough import Calls
from vimvol.engine.cluster.local import processes_of
from vimvol.engine.cluster.shares import memory_ahead
from vimvol.errors import InputError
from vimvol.preflight.announce import Tell, more_memory_text
from vimvol.report.amounts import memory_text

ENDED_AT = 0.95
"""Share of its limit at which Dask ends a worker process."""

BARE = 360 << 20
"""Bytes of memory of a worker process that has loaded what it computes with, but no network and no voxel: 365 MiB with
the PyTorch for CPUs and the smallest network. Below that none finishes anything."""

USUAL = (640 << 20, 1160 << 20)
"""Bytes that a worker took at the least and the most with the default network and blocks, see docs/engine.md."""


def check_room(config: ClusterConfig, workers: int | None, calls: Calls, tell: Tell) -> None:
    """Refuse workers that would have too little memory for any block; tell where that is likely.

    Parameters
    ----------
    config, workers, calls
        As `vimvol.engine.cluster.open_cluster` takes them.
    tell
        Told of the latter.

    Raises
    ------
    InputError
        If each would be ended before it has computed a block; or as `memory_ahead` does.
    """
    for resource, memory in memory_ahead(config, workers, calls).items():
        if ENDED_AT * memory >= USUAL[0]:
            continue
        more, whose = more_memory_text(config, resource), "each worker process"
        if isinstance(config, LocalCluster):
            count = processes_of(workers, calls)
            whose = f"each of {count} worker processes" if count > 1 else "the one worker process"
            if count == 1:
                more = "running on a machine, or in a job or container, that has more"
            elif usual := count * memory // USUAL[1]:
                more += f" ({usual} would have what is usual)"
            else:
                more += f" (one would have {memory_text(count * memory)})"
        text = f"{whose} would have {memory_text(memory)} of memory"
        if ENDED_AT * memory < BARE:
            raise InputError(
                f"{text} and takes {memory_text(BARE)} before its first block, so all would be ended and nothing "
                f"computed; give a worker more by {more}"
            )
        low, high = map(memory_text, USUAL)
        tell(
            f"warning: {text}, and {low} to {high} are usual, so blocks may not fit; if they do not, give a worker "
            f"more by {more}"
        )
