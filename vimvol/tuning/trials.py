"""What a tuning has tried: the table of trials, and a note of what their scores depend on."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vimvol.config import SegmentConfig
from vimvol.errors import InputError
from vimvol.io.errors import storage_errors
from vimvol.io.objects import open_objects
from vimvol.tuning.tunable import Objective, Parameter


@dataclass(frozen=True)
class Trial:
    """Settings that were tried, and how good they are.

    Attributes
    ----------
    number
        0 are the settings that the tuning started from.
    values
        Value of every parameter by its key.
    score
        Mean of the objective over the volumes.
    seconds
        Wall time.
    """

    number: int
    values: Mapping[str, float]
    score: float
    seconds: float


def check_slices(path: Path, slices: tuple[int, int] | None) -> None:
    """Compare the slices with what an earlier call noted, before anything is done with them.

    Raises
    ------
    InputError
        If the trials were made on others.
    """
    with storage_errors(f"reading {path}"):
        before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    if "slices" not in before or before["slices"] == (slices and list(slices)):
        return
    other = before["slices"] and "{}:{}".format(*before["slices"])
    had, give = (f"--slices {other}", f"give --slices {other}") if other else ("all slices", "leave --slices out")
    raise InputError(
        f"{path.parent} holds trials of {had}, with whose scores those of others do not compare; {give} to go on, or "
        "name another folder"
    )


def check_same(
    path: Path,
    truths: Sequence[str],
    slices: tuple[int, int] | None,
    keys: Sequence[str],
    config: SegmentConfig,
    seed: int,
    objective: Objective,
) -> None:
    """Note in a file what the trials depend on, or compare with what an earlier call noted.

    Raises
    ------
    InputError
        If something has changed.
    """
    settings = config.model_dump(mode="json", exclude={"run"})
    now = {"settings": settings, "seed": seed, "ground truth": list(truths), "predictions": list(keys)}
    if objective.background != "ignore":
        now["rule of scoring"] = f"background {objective.background}"
    with storage_errors(f"writing {path}"):
        if not path.exists():  # in one step, or a call that is killed here would be the last in this folder
            open_objects(str(path.parent)).put(path.name, json.dumps({**now, "slices": slices}, indent=2).encode())
        before = json.loads(path.read_text(encoding="utf-8"))
    changed = next((name for name in now if before.get(name) != now[name]), None)
    if changed is not None:
        raise InputError(
            f"{path.parent} holds trials with other {changed}, whose scores do not compare; give another folder, or "
            "the same arguments to go on"
        )


def write_trials(path: Path, trials: Sequence[Trial], space: Sequence[Parameter]) -> None:
    """Write the table of trials, a CSV file, in one step.

    Raises
    ------
    StorageError
        If it cannot be written.
    """
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["trial", "score", "seconds", *(p.key for p in space)])
    rows.writerows([t.number, t.score, t.seconds, *(t.values[p.key] for p in space)] for t in trials)
    open_objects(str(path.parent)).put(path.name, text.getvalue().encode())


def read_trials(path: Path, space: Sequence[Parameter]) -> dict[int, Trial]:
    """Return the trials of an earlier call by number; none if there was none.

    Raises
    ------
    InputError
        If it is no such table, or one of other parameters.
    """
    if not path.exists():
        return {}
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return {trial.number: trial for trial in _rows(csv.DictReader(file), space)}
    except (OSError, ValueError, KeyError, TypeError):
        raise InputError(
            f"{path} holds no trials of these parameters, so the tuning cannot go on from it; give another folder"
        ) from None


def _rows(rows: csv.DictReader[str], space: Sequence[Parameter]) -> Iterator[Trial]:
    for row in rows:
        values = {p.key: float(row[p.key]) for p in space}
        yield Trial(int(row["trial"]), values, float(row["score"]), float(row["seconds"]))
