"""A Dask cluster that is already there."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path

import distributed
from distributed.utils import silence_logging_cmgr

from vimvol.config.cluster import AddressCluster
from vimvol.engine.cluster.connect import register
from vimvol.engine.cluster.enough import Calls
from vimvol.engine.dask_pool import DaskPool
from vimvol.engine.pool import Pool
from vimvol.errors import InputError


@contextlib.contextmanager
def address(config: AddressCluster, workers: int | None, calls: Calls | None) -> Iterator[Pool]:  # noqa: ARG001
    """Connect to the scheduler at an address, or to the one that wrote a file; its workers are those that are there."""
    where = config.address or f"the address in {config.scheduler_file}"
    if config.scheduler_file is not None and not Path(config.scheduler_file).is_file():
        raise InputError(f"scheduler file {config.scheduler_file} does not exist; start dask scheduler with it first")
    keys = {"tls_ca_file": config.ca_file, "tls_client_cert": config.cert_file, "tls_client_key": config.key_file}
    given = {key: value for key, value in keys.items() if value is not None}
    try:
        client = distributed.Client(
            address=config.address,
            scheduler_file=config.scheduler_file,
            security=distributed.Security(**given) if given else None,
            set_as_default=False,
            timeout=20,
        )
    except (OSError, ValueError, TypeError, TimeoutError) as error:
        raise InputError(f"no Dask scheduler answers at {where} ({error}); start one or correct the address") from None
    # What fails comes back to the run, which tells it in one line.
    with silence_logging_cmgr(logging.CRITICAL), client:
        if not client.nthreads():
            raise InputError(f"the Dask cluster at {where} has no workers, so nothing would run; start some first")
        register(client)
        yield DaskPool(client)
