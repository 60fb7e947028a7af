"""The record of a run: what it was, what it did stage by stage, and how it ended, in manifest and log."""

from __future__ import annotations

import contextlib
import platform
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from typing import Any

from vimvol.engine.journal import StageReport, Trouble
from vimvol.engine.performance import performance_report
from vimvol.engine.pool import Pool
from vimvol.engine.run import Progress
from vimvol.errors import VimvolError
from vimvol.geometry import Block
from vimvol.infer.predictor import Fallbacks
from vimvol.outputs.expected import Forecast, as_json
from vimvol.outputs.manifest import now, provenance
from vimvol.report.amounts import clock_text, disk_text, memory_text
from vimvol.report.jsonlog import JsonLog, ending
from vimvol.stages.job import Job

HEALED = tuple(Fallbacks(1, 1, 1).nonzero())
"""Names under which a block returns what it healed from."""

MEASURED = ("seconds", "cpu", "peak", "read", "written")
"""What is both forecast and measured of a stage."""


@dataclass(frozen=True)
class Telling:
    """Whom and what a run tells.

    Attributes
    ----------
    progress
        Who waits for it.
    log
        Its log.
    command
        What to record as the command.
    report
        Path of Dask's performance report; none: there is none.
    """

    progress: Progress
    log: JsonLog
    command: str = ""
    report: str | None = None

    def reported(self, pool: Pool) -> AbstractContextManager[None]:
        """Return the context that makes the performance report."""
        return contextlib.nullcontext() if self.report is None else performance_report(pool, self.report)


class RunJournal:
    """Takes down the stages of a run; see `vimvol.engine.journal.Journal`.

    Attributes
    ----------
    stages
        What was done, one a stage that this run had to do with.
    """

    def __init__(self, log: JsonLog) -> None:
        self.stages: list[dict[str, Any]] = []
        self._log = log
        self._expected: dict[str, dict[str, Any]] = {}
        self._stage = ""
        self._healed: Counter[str] = Counter()

    def expect(self, entry: dict[str, Any], ahead: Forecast, seconds: float) -> None:
        """Take down, also in the record of the run, what it is expected to take, and the time that telling it took."""
        entry["forecast"] = {**as_json(ahead), "sampling": round(seconds, 3)}
        stages = entry["forecast"]["stages"] if ahead.sampled else ()
        self._expected = {stage["name"]: {key: stage[key] for key in MEASURED} for stage in stages}
        self._log.write("forecast", **entry["forecast"])

    def stage(self, name: str, blocks: int, done: int, voxels: int) -> None:
        """Take down that a stage begins."""
        self._stage = name
        self._healed.clear()
        self._log.write("stage begins", stage=name, blocks=blocks, done=done, voxels=voxels)

    def done(self, block: Block, result: dict[str, Any]) -> None:
        """Take down what a block healed from, if anything."""
        healed = {name: result[name] for name in HEALED if name in result}
        if healed:
            self._healed.update(healed)
            self._log.write("healed", stage=self._stage, block=str(block), **healed)

    def trouble(self, what: Trouble, block: Block, error: str, trace: str = "") -> None:
        """Take down what went wrong with a block."""
        event = {"retry": "block tried again", "lost": "worker lost", "failed": "block failed"}[what]
        self._log.write(event, stage=self._stage, block=str(block), error=error, trace=trace)

    def finish(self, report: StageReport) -> None:
        """Take down the end of a stage."""
        numbers = asdict(report)
        numbers |= {**numbers.pop("usage"), **self._healed}
        done = {name: round(value, 3) if isinstance(value, float) else value for name, value in numbers.items()}
        if report.name in self._expected:
            done["forecast"] = self._expected[report.name]
        self.stages.append(done)
        self._log.write("stage ends", stage=done["name"], **{key: done[key] for key in done if key != "name"})


def new_run(job: Job, command: str, cluster: str) -> dict[str, Any]:
    """Return the record of a run that begins now."""
    return {
        "state": "running",
        "command": command,
        "cluster": cluster,
        "host": platform.node(),
        "config": job.config.model_dump(mode="json"),
        "model": {"name": job.network.checkpoint, "sha256": job.network.digest},
        "keys": job.keys,
        **provenance(),
    }


@contextlib.contextmanager
def recorded(entry: dict[str, Any], log: JsonLog, store: Callable[[], None]) -> Iterator[RunJournal]:
    """Record a run from its begin to its end, whatever ends it.

    Parameters
    ----------
    entry
        As `new_run` returned it; how the run ended and its stages are added.
    log
        Its log.
    store
        Writes what the entry is a part of; raises if this run may not.
    """
    start = time.perf_counter()
    log.write("run begins", **entry)
    journal = RunJournal(log)

    def end(error: BaseException | None) -> None:
        seconds = round(time.perf_counter() - start, 3)
        entry.update(ending(error), finished=now(), seconds=seconds, stages=journal.stages)

    try:
        yield journal
    except BaseException as error:
        end(error)
        with contextlib.suppress(VimvolError):  # what ended the run is told, not this
            store()
        raise
    end(None)
    store()


def compared(entry: dict[str, Any], ahead: Forecast) -> str:
    """Return what a run took beside what was forecast, as a line to tell; empty where nothing was.

    Parameters
    ----------
    entry
        The record of the run.
    ahead
        What was known before the sample was taken over: of it, how much earlier runs had left.
    """
    timed = [stage for stage in entry["stages"] if stage.get("forecast", {}).get("seconds") is not None]
    if not timed:
        return ""
    both = [(stage, stage["forecast"]) for stage in timed]
    seconds, written = (
        [sum(each[key] or 0 for each in side) for side in zip(*both, strict=True)] for key in ("seconds", "written")
    )
    workers = [(stage, told) for stage, told in both if stage["name"] not in ("solve", "sizes")]
    peak = [max((each["peak"] or 0 for each in side), default=0) for side in zip(*workers, strict=True)] or [0, 0]
    blocks, left = (sum(getattr(stage, name) for stage in ahead.stages) for name in ("blocks", "left"))
    what = "after the sample, stages took" if left == blocks else f"what was left, {left} of {blocks} blocks, took"
    others = [stage["name"] for stage in entry["stages"] if stage not in timed and stage["blocks"]]
    besides = f" (without {', '.join(others)}: not forecast)" if others else ""
    return (
        f"{what} {clock_text(seconds[0])}, {clock_text(seconds[1])} forecast{besides}; at most "
        f"{memory_text(peak[0])} a worker, {memory_text(peak[1])} forecast; wrote {disk_text(written[0])}, "
        f"{disk_text(written[1])} forecast"
    )
