"""A log of a run for programs: one JSON object a line, written at once, appended to what earlier runs left."""

from __future__ import annotations

import datetime
import json
import logging
import threading
from pathlib import Path
from types import TracebackType

from vimvol.errors import InputError

PACKAGE = logging.getLogger("vimvol")


class JsonLog(logging.Handler):
    """The log, a context manager within which it also takes what the package says by `logging`.

    Every line has ``time`` (UTC) and ``event``; the last of a run is ``run ends``.

    Parameters
    ----------
    path
        File to append to; none: nothing is written.

    Raises
    ------
    InputError
        If it cannot be written.
    """

    def __init__(self, path: str | None) -> None:
        super().__init__(logging.INFO)
        self._file = None
        self._writing = threading.RLock()
        self._level = logging.NOTSET
        if path is not None:
            try:
                self._file = Path(path).open("ab", buffering=0)  # noqa: SIM115 - closed with the log
            except OSError as error:
                raise InputError(f"log {path} cannot be written ({error.strerror}); choose another path") from None

    def write(self, event: str, **fields: object) -> None:
        """Write a line. A log that cannot be written any more ends no run: the first failure is told, then no more."""
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
        line = json.dumps({"time": now, "event": event, **fields}, default=str) + "\n"
        with self._writing:
            if self._file is None:
                return
            try:
                self._file.write(line.encode())
            except OSError as error:
                self._file.close()
                self._file = None
                logging.getLogger(__name__).warning("the log ends here, it cannot be written (%s)", error.strerror)

    def emit(self, record: logging.LogRecord) -> None:
        """Write what the package said, and leave what it says to people where it would have gone."""
        self.write(record.levelname.lower(), text=record.getMessage(), source=record.name)
        if record.levelno >= logging.WARNING and not logging.getLogger().handlers and logging.lastResort is not None:
            logging.lastResort.handle(record)

    def __enter__(self) -> JsonLog:
        """Begin to listen."""
        if self._file is not None:
            self._level = PACKAGE.level
            PACKAGE.setLevel(logging.INFO)
            PACKAGE.addHandler(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Write how the run ended, and close."""
        self.write("run ends", **ending(error))
        if self in PACKAGE.handlers:
            PACKAGE.removeHandler(self)
            PACKAGE.setLevel(self._level)
        if self._file is not None:
            self._file.close()


def ending(error: BaseException | None) -> dict[str, str]:
    """Return how a run ended, by what it raised: ``complete``, ``failed`` with the error, or ``stopped``."""
    if error is None:
        return {"state": "complete"}
    if isinstance(error, Exception):
        return {"state": "failed", "error": f"{type(error).__name__}: {error}"}
    return {"state": "stopped"}
