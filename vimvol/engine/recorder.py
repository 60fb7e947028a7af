"""Taking down what is done while a stage runs: records are gathered, written as segments, and these are folded."""

from __future__ import annotations

import logging
import math
import time
from types import TracebackType
from typing import Any

from vimvol.engine.ledger import SEGMENTS_TO_FOLD, Ledger
from vimvol.engine.segments import make_segment
from vimvol.errors import DiskFullError, StorageError
from vimvol.geometry import Block

LOG = logging.getLogger(__name__)

SECONDS_BETWEEN_SEGMENTS = 1.0
RECORDS_OF_SEGMENT = 4096
"""A segment is written after this time or with this many records, whichever comes first."""
SECONDS_BEFORE_RETRY = 0.25
TRIES = 8
"""Failed writes in a row after which the storage has failed for good."""


class Recorder:
    """Takes down records and writes them as segments, now and then; used by one thread.

    A context manager, which has written all of them when it is left.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._records: list[tuple[Block, bool, dict[str, Any]]] = []
        self._sizes: list[list[str]] = [[], [], []]
        self._last = -math.inf
        self._failed = 0

    def done(self, block: Block, result: dict[str, Any]) -> None:
        """Take down a finished block, whose data are flushed."""
        self._records.append((block, False, result))
        self.write()

    def failed(self, block: Block, error: dict[str, Any]) -> None:
        """Take down a block that failed for good."""
        self._records.append((block, True, error))
        self.write()

    def write(self, *, now: bool = False) -> None:
        """Write what was taken down, if it is time.

        Where that fails the records stay and are tried again a little later, ``now`` or `TRIES` times in a row.

        Raises
        ------
        DiskFullError
            If no space is left.
        StorageError
            If it cannot be written for good.
        """
        time_is_up = time.monotonic() - self._last >= SECONDS_BETWEEN_SEGMENTS
        if not self._records or not (now or time_is_up or len(self._records) >= RECORDS_OF_SEGMENT):
            return
        while self._records:
            self._last = time.monotonic()
            try:
                self._sizes[0].append(self._ledger.write(make_segment(self._records)))
                self._records.clear()
                self._fold()
            except DiskFullError:
                raise
            except StorageError as error:
                self._failed += 1
                if self._failed >= TRIES:
                    raise
                LOG.info("%s; tried again", error)
                if not now:
                    return
                time.sleep(SECONDS_BEFORE_RETRY)
            else:
                self._failed = 0

    def _fold(self) -> None:
        """Fold segments of one size into one of the next where there are enough.

        Where that fails they stay as they are: they hold the records just as well.
        """
        for small, large in zip(self._sizes, self._sizes[1:], strict=False):
            if len(small) < SEGMENTS_TO_FOLD:
                break
            names = small[:]
            small.clear()
            try:
                large.append(self._ledger.fold(names))
            except StorageError as error:
                LOG.info("%s; these records are left in %d segments", error, len(names))

    def __enter__(self) -> Recorder:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Write what is left, whatever ended the stage."""
        self.write(now=True)
