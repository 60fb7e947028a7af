"""Whose an output is: one run at a time writes it.

The lock is a small object in the output that names the run that holds it. A run on the same machine is alive if its
process is; of a run elsewhere its heartbeat tells, a number that grows every `BEAT` seconds. Whoever wants the lock
watches the number for a while instead of comparing times, so it does not matter what any clock says.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import platform
import threading
import time
import uuid
from dataclasses import asdict, dataclass, replace
from types import TracebackType

from vimvol.engine.blocks import reason_of
from vimvol.engine.objects import Objects
from vimvol.engine.processes import born, machine_id, user_name
from vimvol.errors import OutputBusyError, OutputLostError

LOG = logging.getLogger(__name__)

NAME = "lock"
BEAT = 10.0
WATCH = 60.0
"""Seconds without a beat after which a run on another machine counts as dead."""
SINCE = "%Y-%m-%d %H:%M:%S %z"
"""How the time at which a run began is written."""


@dataclass(frozen=True)
class Holder:
    """Who holds a lock.

    Attributes
    ----------
    token
        Different for every run.
    user, host, pid
        For the reader.
    since
        Local time at which the run began, for the reader.
    machine
        Tells machines apart, and containers and boots of one.
    born
        When the process began, in a unit of the machine; a process that got the same number later differs.
    beat
        Grows while the run is alive.
    """

    token: str
    user: str
    host: str
    pid: int
    since: str
    machine: str
    born: str
    beat: int = 0

    @classmethod
    def this_process(cls) -> Holder:
        """Return what this process enters."""
        pid = os.getpid()
        since = time.strftime(SINCE)
        return cls(uuid.uuid4().hex, user_name(), platform.node(), pid, since, machine_id(), born(pid) or "")

    def __str__(self) -> str:
        return f"{self.user}@{self.host}, process {self.pid}, since {self.since}"


def read_holder(objects: Objects) -> Holder | None:
    """Return who holds the lock; none if nobody does or it cannot be made out."""
    data = objects.get(NAME)
    return None if data is None else _decode(data)


def is_alive(holder: Holder) -> bool | None:
    """Tell whether the process of a holder is there; none where that cannot be seen from this machine."""
    if holder.machine != machine_id() or os.name != "posix":
        return None
    return born(holder.pid) == holder.born


@dataclass(frozen=True)
class Permit:
    """Tells on any machine whether a run still holds its output; goes to the workers with every task.

    Attributes
    ----------
    objects
        Where the lock is kept.
    output
        Name of the output, for messages.
    token
        Of the run.
    """

    objects: Objects
    output: str
    token: str

    def check(self) -> None:
        """Make sure, by one look at the storage, that the run holds the output.

        Raises
        ------
        OutputLostError
            If not: what a worker still computes for a run that was killed must not replace what another run wrote.
        """
        holder = read_holder(self.objects)
        if holder is None or holder.token != self.token:
            raise OutputLostError(
                f"the run that this belongs to does not hold {self.output} any more, so nothing is written; what is "
                "finished is kept, run the same command again to go on"
            )


def mark(objects: Objects, output: str) -> Permit:
    """Enter this process as who holds a folder of its own, that nobody else takes over; it goes with the folder.

    Raises
    ------
    StorageError
        If nothing can be written there.
    """
    me = Holder.this_process()
    objects.put(NAME, json.dumps(asdict(me)).encode())
    return Permit(objects, output, me.token)


class Lock:
    """The lock of one output: a context manager that holds it.

    Parameters
    ----------
    objects
        Where the lock is kept.
    output
        Name of the output, for messages.

    Raises
    ------
    OutputBusyError
        On entering, if a run that is alive holds it.
    """

    def __init__(self, objects: Objects, output: str) -> None:
        self._objects, self._output = objects, output
        self._me = Holder.this_process()
        self._lost = False
        self._good, self._trouble = time.monotonic(), ""
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="lock", daemon=True)

    @property
    def permit(self) -> Permit:
        """What lets a worker find out whether this lock is still held."""
        return Permit(self._objects, self._output, self._me.token)

    def refuse_if_held(self) -> None:
        """Refuse at once where a run on this machine holds the lock.

        Raises
        ------
        OutputBusyError
            If so.
        """
        holder = read_holder(self._objects)
        if holder is not None and is_alive(holder):
            raise self._busy(holder)

    def check(self) -> None:
        """Make sure that the lock is still held, and that who watches it elsewhere sees so.

        Raises
        ------
        OutputLostError
            If another run took it over, because this one was stopped for so long that it seemed dead, or may soon,
            because no beat could be written for half the time that a watcher waits.
        """
        if self._silent:
            # This process may have stood still, which did no harm yet if a beat succeeds now.
            self._try_beat()
        if self._lost:
            raise OutputLostError(
                f"another run took over {self._output} while this one stood still, so this one ends; what is finished "
                "is kept, and the other run goes on from there"
            )
        if self._silent:
            raise OutputLostError(
                f"for {time.monotonic() - self._good:.0f} s this run could not say that it holds {self._output} "
                f"({self._trouble}), so another may take it over, and this one ends; what is finished is kept, run the "
                "same command again to go on"
            )

    @property
    def _silent(self) -> bool:
        """Whether the last beat is so long ago that a watcher may soon take this run for dead."""
        return time.monotonic() - self._good > WATCH / 2

    def __enter__(self) -> Lock:
        """Take the lock."""
        self._take(NAME)
        now = read_holder(self._objects)
        if now is None or now.token != self._me.token:
            raise self._busy(now)
        self._good = time.monotonic()
        self._thread.start()
        return self

    def _take(self, name: str) -> None:
        """Become who wrote the object of this name; what a run left that ended without a word is replaced.

        Who replaces it first creates a claim named after the content to be replaced, which one alone can do, and then
        gives the claim the name of what it replaces. However slow the storage is between these steps, nobody else may
        replace the same content, and other content has another claim. A claim that was left behind is taken likewise.
        """
        while not self._objects.create(name, self._bytes()):
            before = self._objects.get(name)
            if before is None:  # given back a moment ago
                time.sleep(0.05)
                continue
            holder = _decode(before)
            if holder is not None and holder.token == self._me.token:
                return
            alive = is_alive(holder) if holder is not None else None
            if alive or (alive is None and self._beats(name, before)):
                raise self._busy(holder)
            claim = f"{NAME}.{hashlib.sha256(before).hexdigest()[:20]}"
            self._take(claim)
            if self._objects.get(name) != before:
                self._objects.remove(claim)
                continue
            LOG.warning("%s: a run that ended without a word held it (%s); going on", self._output, holder or "unknown")
            if self._objects.move(claim, name):
                return

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give the lock back."""
        self._end.set()
        self._thread.join()
        holder = read_holder(self._objects)
        if holder is not None and holder.token == self._me.token:
            self._objects.remove(NAME)

    def _beats(self, name: str, before: bytes) -> bool:
        """Watch whether a lock changes, for as long as a run elsewhere may take for a beat."""
        LOG.warning("%s: looking for %.0f s whether the run that holds it elsewhere is alive", self._output, WATCH)
        end = time.monotonic() + WATCH
        while time.monotonic() < end:
            time.sleep(min(1.0, WATCH / 10))
            if self._objects.get(name) != before:
                return True
        return False

    def _beat(self) -> None:
        while not self._lost and not self._end.wait(BEAT):
            self._try_beat()

    def _try_beat(self) -> None:
        """Let the number grow, or find that the lock is lost; what fails may succeed in a later beat, so it is told."""
        try:
            holder = read_holder(self._objects)
            if holder is None or holder.token != self._me.token:
                self._lost = True
                return
            self._me = replace(self._me, beat=self._me.beat + 1)
            self._objects.put(NAME, self._bytes())
        except Exception as error:  # without beats a run that is alive would be taken over
            self._trouble = reason_of(error)
            LOG.warning("the lock of %s could not be renewed: %s", self._output, self._trouble)
        else:
            self._good = time.monotonic()

    def _bytes(self) -> bytes:
        return json.dumps(asdict(self._me)).encode()

    def _busy(self, holder: Holder | None) -> OutputBusyError:
        return OutputBusyError(
            f"{self._output} is being written by another run ({holder or 'unknown'}), so two would mix; wait for it, "
            "stop it, or choose another output"
        )


def _decode(data: bytes) -> Holder | None:
    """Return the holder that an object names; none if it cannot be made out."""
    try:
        return Holder(**json.loads(data))
    except (ValueError, TypeError):
        return None
