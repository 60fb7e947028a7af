"""Tables that were read last, kept for the next block that wants them."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from numpy.typing import NDArray

Table = dict[str, NDArray[Any]]

BYTES = 64 * 2**20
"""What one `Recent` keeps at the most."""


class Recent:
    """Keeps tables in the order in which they were last asked for, within so many bytes.

    Neighbouring blocks of a stage read the same tables: the blocks of one call share what is kept, and in the process
    of the run those of all calls. It is for tables that are not written again once they were read, as those of one run.
    A copy for another process begins empty.

    Parameters
    ----------
    limit
        Bytes of all tables that are kept; a larger table is read every time.
    """

    def __init__(self, limit: int = BYTES) -> None:
        self._limit = limit
        self._kept: OrderedDict[str, Table] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[type[Recent], tuple[int]]:
        return Recent, (self._limit,)

    def get(self, name: str, read: Callable[[], Table]) -> Table:
        """Return a table: the one that is kept under a name, else what ``read`` returns.

        Its columns are shared, and cannot be written to.
        """
        with self._lock:
            if (kept := self._kept.get(name)) is not None:
                self._kept.move_to_end(name)
                return kept
        table = read()
        for column in table.values():
            column.flags.writeable = False
        if (size := _bytes(table)) > self._limit:  # it would push out all others, and then itself
            return table
        with self._lock:
            if name not in self._kept:
                self._kept[name] = table
                self._bytes += size
            while self._bytes > self._limit:
                self._bytes -= _bytes(self._kept.popitem(last=False)[1])
        return table


def _bytes(table: Table) -> int:
    return sum(column.nbytes for column in table.values())
