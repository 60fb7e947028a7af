"""From a Dask cluster to the pool that a run computes on."""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import logging
import signal
import time
from collections.abc import Iterable, Iterator
from types import ModuleType

import distributed

from vimvol.engine.broken import Keep
from vimvol.engine.cluster.threads import BoundThreads
from vimvol.engine.dask_pool import DaskPool
from vimvol.engine.pool import Pool, Resource
from vimvol.errors import InputError, MissingExtraError, install_text

LOG = logging.getLogger(__name__)

SECONDS_BETWEEN_LOOKS = 5.0
"""For the first worker."""
SECONDS_BETWEEN_LINES = 60.0
"""That tell that no worker is there yet."""


@contextlib.contextmanager
def connected(
    cluster: distributed.Client | object,
    waiting_for: str,
    keep: Keep | None = None,
    offered: Iterable[Resource] = (),
) -> Iterator[Pool]:
    """Yield the pool of a cluster that was started for this run, once its first worker is there.

    Parameters
    ----------
    cluster
        The cluster.
    waiting_for
        What to say that is waited for.
    keep
        Called now and then while workers are waited for and while blocks are computed: sees to it that workers that
        were lost come back, and tells what is waited for.
    offered
        What the workers that were asked for will declare: a call that wants it waits for them.
    """
    with distributed.Client(cluster, set_as_default=False) as client:
        register(client)
        begin = told = time.monotonic()
        while True:
            try:
                client.wait_for_workers(1, timeout=SECONDS_BETWEEN_LOOKS)
                break
            except TimeoutError:
                now = time.monotonic()
                if keep is not None:
                    keep()
                elif now - told > SECONDS_BETWEEN_LINES:
                    told = now
                    LOG.warning(
                        "no worker for %.0f min: still waiting for the first of %s", (now - begin) / 60, waiting_for
                    )
        if keep is not None:
            keep()
        yield DaskPool(client, keep, offered)


def offered_by(cpu: object | None, gpu: object | None) -> tuple[Resource, ...]:
    """Return what the workers of these pools declare; none of a pool: there is no such pool."""
    pools: tuple[tuple[Resource, object | None], ...] = (("CPU", cpu), ("GPU", gpu))
    return tuple(resource for resource, pool in pools if pool is not None)


def register(client: distributed.Client) -> None:
    """Bound the threads of all workers, those that come later, too.

    Raises
    ------
    InputError
        If the workers cannot load vimvol, or have another version than this process.
    """
    try:
        client.register_plugin(BoundThreads())
    except (ImportError, AttributeError) as error:
        raise InputError(
            f"the workers of the Dask cluster cannot load vimvol ({error}), so nothing would run there; install the "
            "same version where they run"
        ) from None
    _check_versions(client)


def _check_versions(client: distributed.Client) -> None:
    """Refuse workers that are there and have another version than this process; what tells none is let be."""
    own = _own_version()
    if own is None:
        return
    # a function of the standard library, since an older vimvol has none of its own that tells this
    for worker, version in client.run(importlib.metadata.version, "vimvol", on_error="ignore").items():
        if version != own:
            raise InputError(
                f"worker {worker} has vimvol {version}, and this process {own}, so blocks would not fit; install the "
                "same version where the workers run, and start them again"
            )


def _own_version() -> str | None:
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        return importlib.metadata.version("vimvol")
    return None


def security(wanted: bool) -> distributed.Security | None:
    """Return certificates made for this run; none if not wanted.

    Raises
    ------
    MissingExtraError
        If what makes them is not installed.
    """
    if not wanted:
        return None
    optional("cryptography", "tls", "TLS")
    made: distributed.Security = distributed.Security.temporary()
    return made


def optional(module: str, extra: str, what: str) -> ModuleType:
    """Return a module of an extra.

    Raises
    ------
    MissingExtraError
        If it is not installed.
    """
    before = signal.getsignal(signal.SIGINT)
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtraError(
            f"{what} needs {module}, which cannot be loaded ({error}); {install_text(extra)}"
        ) from None
    finally:
        # dask-jobqueue 0.9 makes Ctrl-C a silent success as soon as it is imported.
        if signal.getsignal(signal.SIGINT) is not before:
            signal.signal(signal.SIGINT, before)
