"""Computing the blocks of a stage where they are sent: what every pool runs."""

from __future__ import annotations

import pickle
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from vimvol.engine.turns import seconds_waited
from vimvol.engine.usage import METER, Usage
from vimvol.errors import DeviceLostError, DiskFullError, InputError, OutputLostError
from vimvol.geometry import Block

BlockTask = Callable[[Block], dict[str, Any]]
"""Computes and writes one block; picklable; returns a small JSON-serialisable result for the ledger."""

FATAL = (InputError, DiskFullError, OutputLostError, DeviceLostError)
"""Errors that no other block would escape; the last one only in this process."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one block: its small result or the error, how long it took, and what of its process."""

    seconds: float
    result: dict[str, Any] | None
    error: Exception | None = None
    trace: str = ""
    usage: Usage = field(default_factory=Usage)


def compute_blocks(task: BlockTask, blocks: Sequence[Block], stage: str = "") -> list[Outcome]:
    """Compute blocks of a stage one after the other.

    What a block raises is part of its outcome, and the next one goes on, except after errors that no other block
    would escape. The time in which it waits for its turn to compute is no part of what it took.

    Raises
    ------
    DeviceLostError
        If a block raises it: the process is of no use any more, see `vimvol.engine.turns.run_call`.
    """
    outcomes = []
    METER.begin(stage)
    try:
        for block in blocks:
            start, waited = time.perf_counter(), seconds_waited()
            try:
                result, error, trace = task(block), None, ""
            except DeviceLostError:
                raise
            except Exception as raised:
                result, error, trace = None, _portable(raised), traceback.format_exc(limit=-6)
            seconds = time.perf_counter() - start - (seconds_waited() - waited)
            outcomes.append(Outcome(seconds, result, error, trace, METER.take()))
            if isinstance(error, FATAL):
                break
    finally:
        METER.end()
    return outcomes


def _portable(error: Exception) -> Exception:
    """Return an error that reaches another process as it is, or one that tells the same."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(reason_of(error))
    return error


def reason_of(error: Exception) -> str:
    """Return type and text of an error on one line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
