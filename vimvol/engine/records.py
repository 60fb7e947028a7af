"""The segments of a ledger as objects: written once, folded into larger ones, read back whole or not at all."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from vimvol.engine.objects import Objects
from vimvol.engine.segments import Segment, decode, encode, join_segments, make_segment
from vimvol.errors import StorageError
from vimvol.geometry import Block

LOG = logging.getLogger(__name__)

SUFFIX = ".records"


@dataclass(frozen=True)
class Records:
    """All segments under one key of a stage.

    Attributes
    ----------
    objects
        Where all ledgers of a run are kept.
    stage
        Name of the stage.
    key
        Digest of everything that determines the stage's result; see `vimvol.engine.ledger.content_key`.
    """

    objects: Objects
    stage: str
    key: str

    @property
    def folder(self) -> str:
        """Folder of the records."""
        return f"{self.stage}/{self.key}"

    def fold(self, names: Sequence[str]) -> str:
        """Replace segments by one with all their records; return its name. A crash leaves doubles, no gap.

        Raises
        ------
        StorageError
            If one of them is damaged, or the storage fails.
        """
        parts = []
        for name in names:
            data = self.objects.get(name)
            try:
                parts.append(decode(data or b""))
            except ValueError:
                raise StorageError(_damaged(name)) from None
        merged = self.write(join_segments(parts))
        for name in names:
            self.objects.remove(name)
        return merged

    def write(self, segment: Segment) -> str:
        """Store a segment; return its name.

        Raises
        ------
        StorageError
            If it cannot be written.
        """
        name = f"{self.folder}/{uuid.uuid4().hex}{SUFFIX}"
        self.objects.put(name, encode(segment))
        return name

    def record(self, block: Block, result: dict[str, Any]) -> None:
        """Record one block as done, at once; call it after its data are written."""
        self.write(make_segment([(block, False, result)]))

    def segments(self) -> list[Segment]:
        """Return all that is recorded and intact.

        A run may fold segments meanwhile; then the reading starts again.
        """
        return [segment for _, segment in self.stored() if segment is not None]

    def stored(self) -> list[tuple[str, Segment | None]]:
        """Return name and content of every segment; none for the content of a damaged one."""
        for _ in range(20):
            found: list[tuple[str, Segment | None]] = []
            for name in self.objects.names(self.folder):
                if not name.endswith(SUFFIX):
                    continue
                path = f"{self.folder}/{name}"
                data = self.objects.get(path)
                if data is None:
                    break
                try:
                    found.append((path, decode(data)))
                except ValueError as error:
                    LOG.warning("%s: %s; its blocks are computed again", path, error)
                    found.append((path, None))
            else:
                return found
        raise StorageError(f"the ledger {self.folder} changes whenever it is read; run again, finished blocks are kept")

    def intact(self) -> list[Segment]:
        """Return all that is recorded; raise a `StorageError` if some of it is damaged."""
        found = []
        for name, segment in self.stored():
            if segment is None:
                raise StorageError(_damaged(name))
            found.append(segment)
        return found


def _damaged(name: str) -> str:
    return f"{name} is damaged; run the same command again, its blocks are computed again"
