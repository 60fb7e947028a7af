"""What is done: one small file a block, written after the block's data.

Records live under ``<folder>/<stage>/<key>/``; the key is a digest of all that determines the stage's result
(configuration, weights, input, geometry, and the key of the stage before). One key a stage is kept: when a stage
begins under a new key, the records of the old one go first, because its data are about to be overwritten.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vimvol.errors import DiskFullError, StorageError
from vimvol.geometry import Block


def content_key(*parts: object) -> str:
    """Return a digest of JSON-serialisable parts, equal for equal content and in any process."""
    text = json.dumps(parts, sort_keys=True, default=str, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:20]


@dataclass(frozen=True)
class Ledger:
    """The records of one stage.

    Attributes
    ----------
    folder
        Folder of all ledgers of a run.
    stage
        Name of the stage.
    key
        Digest of everything that determines the stage's result; see `content_key`.
    """

    folder: str
    stage: str
    key: str

    @property
    def _path(self) -> Path:
        return Path(self.folder) / self.stage / self.key

    def begin(self) -> None:
        """Forget what was done under other keys, and be ready to record.

        Raises
        ------
        StorageError
            If the folder cannot be written.
        """
        try:
            stage = self._path.parent
            if stage.is_dir():
                for other in stage.iterdir():
                    if other.name != self.key:
                        shutil.rmtree(other)
            self._path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(f"ledger {self._path} cannot be written ({error}); make the folder writable") from None

    def done(self) -> set[str]:
        """Return the names (see `block_name`) of all finished blocks."""
        if not self._path.is_dir():
            return set()
        return {entry.name[:-5] for entry in os.scandir(self._path) if entry.name.endswith(".json")}

    def results(self) -> dict[str, dict[str, Any]]:
        """Return the small result that every finished block recorded, by the block's name."""
        return {name: json.loads((self._path / f"{name}.json").read_text()) for name in sorted(self.done())}

    def record(self, block: Block, result: dict[str, Any]) -> None:
        """Record a block as done; call it after its data are written.

        Raises
        ------
        StorageError
            If the record cannot be written.
        """
        target = self._path / f"{block_name(block)}.json"
        draft = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
        try:
            with draft.open("w") as file:
                json.dump(result, file)
                file.flush()
                os.fsync(file.fileno())
            draft.replace(target)
            if os.name == "posix":  # elsewhere a folder cannot be opened
                folder = os.open(self._path, os.O_RDONLY)
                try:
                    os.fsync(folder)
                finally:
                    os.close(folder)
        except OSError as error:
            kind = DiskFullError if error.errno in (errno.ENOSPC, errno.EDQUOT) else StorageError
            with contextlib.suppress(OSError):
                draft.unlink(missing_ok=True)
            raise kind(
                f"ledger record {target}: {error.strerror}; free space or write elsewhere, then run again"
            ) from None


def block_name(block: Block) -> str:
    """Return the name under which a block is recorded, e.g. ``0-32_512-1024_0-512``."""
    return "_".join(f"{begin}-{end}" for begin, end in zip(block.begin, block.end, strict=True))
