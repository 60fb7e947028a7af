"""Dask's performance report: an HTML page that shows what every worker did when."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator
from pathlib import Path

import distributed

from vimvol.engine.cluster.connect import optional
from vimvol.engine.dask_pool import DaskPool
from vimvol.engine.pool import Pool
from vimvol.errors import InputError

LOG = logging.getLogger(__name__)


def check_report(path: str) -> None:
    """See to it that a report can be written in the end.

    Raises
    ------
    InputError
        If there is no such folder, or it cannot be written.
    MissingExtraError
        If what draws it is not installed.
    """
    if not Path(path).absolute().parent.is_dir() or Path(path).is_dir():
        raise InputError(f"performance report {path} cannot be written; name a file in a folder that is there")
    if not os.access(path if Path(path).exists() else Path(path).absolute().parent, os.W_OK):
        raise InputError(
            f"performance report {path} cannot be written, the right is missing or the disk read-only; "
            "choose another path"
        )
    optional("bokeh", "report", "a performance report")


@contextlib.contextmanager
def performance_report(pool: Pool, path: str) -> Iterator[None]:
    """Write a report of all that the pool computes within, also if that fails.

    Raises
    ------
    InputError
        If the pool has no Dask cluster.
    """
    if not isinstance(pool, DaskPool):
        raise InputError(
            "a performance report tells of worker processes, and with run.workers = 0 there are none; leave one out"
        )
    # inline: the page needs no network to be looked at
    with pool.client.as_current():
        report = distributed.performance_report(path, mode="inline")
        report.__enter__()
        try:
            yield
        finally:
            try:
                report.__exit__(None, None, None)
            except Exception as error:  # a scheduler that is gone cannot tell; what ended the run counts
                LOG.warning("no performance report: %s", error)
