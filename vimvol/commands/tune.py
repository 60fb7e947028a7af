"""Tuning: the settings of the post-processing that score best on volumes with ground truth.

Every trial is a run of the real stages on one output a volume, so what does not depend on the parameters, the
prediction above all, is computed once and kept. The draws follow from the seed and the scores before them, and the
table of trials is kept, so the same command goes on where it stopped.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import yaml
from numpy.typing import NDArray

from vimvol.commands.labels import check_truth
from vimvol.commands.score import score
from vimvol.commands.segment import segment_volume
from vimvol.config import SegmentConfig, load_config
from vimvol.errors import InputError, VimvolError
from vimvol.geometry import Block
from vimvol.io import Volume, open_volume
from vimvol.io.annotated import write_annotated
from vimvol.io.errors import storage_errors
from vimvol.io.storage import local_path
from vimvol.preflight.disk import check_writable
from vimvol.preflight.prepare import prepare
from vimvol.preflight.scale import check_voxel_size, check_voxel_size_known
from vimvol.report.progress import silent
from vimvol.report.trials import draw_trials
from vimvol.stages.job import Job
from vimvol.tuning.draws import Draws
from vimvol.tuning.trials import Trial, check_same, check_slices, read_trials, write_trials
from vimvol.tuning.tunable import OBJECTIVES, SPACES, Objective, Parameter

TRUTH = "truth"
"""Name of the ground truth among the labels of copied slices."""


@dataclass(frozen=True)
class Tuned:
    """What was found.

    Attributes
    ----------
    config, table, picture
        YAML of the best settings, for ``vimvol segment --config``; CSV of all trials; PNG of them.
    objective
        What was optimised.
    first, best
        The settings that it started from, and the best ones; the first if none were better.
    trials
        Number of trials.
    """

    config: Path
    table: Path
    picture: Path
    objective: Objective
    first: Trial
    best: Trial
    trials: int


class Told(Protocol):
    """Who is told of every trial."""

    def __call__(self, trial: Trial, best: Trial, left: float) -> None:
        """Take a trial, the best one so far, and the seconds that the rest will take at this pace."""


def tune(
    pairs: Sequence[tuple[str, str]],
    folder: str,
    config: SegmentConfig | None = None,
    *,
    slices: tuple[int, int] | None = None,
    trials: int = 40,
    seconds: float | None = None,
    seed: int = 0,
    workers: int | None = None,
    told: Told | None = None,
) -> Tuned:
    """Search for the post-processing that scores best.

    In 2d mode that is the largest mean segmentation accuracy, in 3d mode the smallest CREMI score of voxels at least 2
    from a boundary of the ground truth; the mean of all volumes. Label 0 of the ground truth is not judged, except
    where the network knows a background: then it counts as such.

    Parameters
    ----------
    pairs
        ``PATH[:DATASET]`` of intensities and of ground truth, (z, y, x), for every volume; none that the network was
        trained on, or the result suits only those.
    folder
        Where everything is written.
    config
        Settings to start from; what is not varied stays.
    slices
        First slice, and the one after the last, to segment and score; they are copied. None: all.
    trials
        Settings to try beside those, with those that an earlier call has tried; all of these count, though more.
    seconds
        Time after which no other trial begins; none: any.
    seed
        Of the draws.
    workers
        Worker processes of a trial; none: those of ``config``.
    told
        Who is told of every trial.

    Raises
    ------
    InputError
        If there is no volume, something given cannot be used, or the folder holds trials of another tuning.
    MissingExtraError
        If Optuna is not installed.
    StorageError, IncompleteRunError
        If writing or computing fails; finished trials are kept.
    """
    if not pairs:
        raise InputError("no volume is given, so nothing can be scored; give intensities and ground truth")
    config = config or SegmentConfig()
    if workers is not None:
        config = config.model_copy(update={"run": config.run.model_copy(update={"workers": workers})})
    target = local_path(folder)
    check_writable(str(target.absolute()))
    outputs = [str(target / f"volume-{i}.zarr") for i in range(len(pairs))]
    for pair in pairs:  # before a network is loaded, and the first of them predicted
        _check_pair(*_opened(pair, config), slices)
    first = prepare(pairs[0][0], outputs[0], config)
    for _, truth in pairs:
        _check_truth(truth, first, slices)
    space, objective = space_of(first), OBJECTIVES["cells" if first.network.cells else config.segment.mode]
    drawn = Draws(space, objective, seed)  # refuses to begin without Optuna
    table = target / "trials.csv"
    with storage_errors(f"creating {target}"):
        target.mkdir(parents=True, exist_ok=True)
    check_slices(target / "tuning.json", slices)
    if slices is not None:
        pairs = [_copied(pair, slices, target / f"slices-{i}.zarr", config) for i, pair in enumerate(pairs)]

    keys = [prepare(source, out, config).keys["predict"] for (source, _), out in zip(pairs, outputs, strict=True)]
    check_same(target / "tuning.json", [t for _, t in pairs], slices, keys, config, seed, objective)
    before = read_trials(table, space)
    start, done = time.monotonic(), []
    best = None
    kept = max(before, default=0)  # all of them count, though fewer are asked for, and none is ever lost
    for number in range(max(trials, kept) + 1):
        if seconds is not None and number > kept and time.monotonic() - start >= seconds:
            break
        values = _values(config, space) if number == 0 else drawn.draw()
        trial = before.get(number)
        if trial is None:
            trial = _tried(number, values, pairs, outputs, config, objective)
        elif trial.values != values:
            raise InputError(
                f"{table} holds other trials than this version of Optuna draws, so the tuning cannot go on; give "
                "another folder"
            )
        else:
            trial = replace(trial, values=values)  # of which the table does not tell integers
        if number:
            drawn.learn(trial.score)
        if best is None or (trial.score > best.score if objective.more_is_better else trial.score < best.score):
            best = trial
        done.append(trial)
        if number not in before:
            write_trials(table, done, space)
        if told is not None:
            left = max(trials - max(number, kept), 0)
            told(trial, best, sum(t.seconds for t in done) / len(done) * left)
    assert best is not None  # trial 0 always runs
    path = target / "best.yaml"
    _write_config(path, _with(config, best.values), best.values)
    picture = draw_trials(
        target / "trials.png", [t.score for t in done], [t.values for t in done], objective.metric, best.number
    )
    return Tuned(path, table, picture, objective, done[0], best, len(done) - 1)


def _check_truth(address: str, job: Job, slices: tuple[int, int] | None) -> None:
    """Refuse a ground truth that the trials cannot be judged by."""
    truth = open_volume(address, prefer="labels")
    begin, end = slices or (0, truth.shape[0])
    region = Block((begin, 0, 0), (end, *truth.shape[1:])).clip(truth.shape)
    check_truth(truth, region if job.roi is None else region.intersect(job.roi), linked=not job.flat)


def _opened(pair: tuple[str, str], config: SegmentConfig) -> tuple[Volume, Volume]:
    raw = open_volume(pair[0], axes=config.input.axes, voxel_size=config.input.voxel_size)
    return raw, open_volume(pair[1], prefer="labels")


def _check_pair(raw: Volume, truth: Volume, slices: tuple[int, int] | None) -> None:
    """Refuse a ground truth of another shape, and slices that are not there."""
    if raw.shape != truth.shape:
        raise InputError(
            f"{raw.address} has shape {raw.shape} and ground truth {truth.address} {truth.shape} (z, y, x), so voxels "
            "do not correspond; crop one to the other"
        )
    (begin, end), depth = slices or (0, raw.shape[0]), raw.shape[0]
    if not 0 <= begin < end <= depth:
        raise InputError(
            f"slices {begin}:{end} are not all in {raw.address}, which has {depth}, 0:{depth}; give the first, and the "
            "one after the last, of those to try settings on"
        )


def _copied(pair: tuple[str, str], slices: tuple[int, int], path: Path, config: SegmentConfig) -> tuple[str, str]:
    """Copy slices of a volume and its ground truth into an OME-Zarr; return their addresses in it."""
    raw, truth = _opened(pair, config)
    begin, end = slices
    check_voxel_size(raw, config)
    check_voxel_size_known(raw, config)
    part = Block((begin, 0, 0), (end, *raw.shape[1:]))
    copies = str(path), f"{path}:labels/{TRUTH}/0"
    intensities, labels = raw.read(part), truth.read_labels(part)
    if not _holds(copies, intensities, labels, raw.voxel_size):
        write_annotated(path, intensities, labels, raw.voxel_size, TRUTH)
    return copies


def _holds(
    copies: tuple[str, str], intensities: NDArray[Any], labels: NDArray[Any], voxel_size: tuple[float, ...]
) -> bool:
    """Tell whether an earlier call has left these copies: written again, they would count as another input."""
    try:
        raw, truth = open_volume(copies[0]), open_volume(copies[1], prefer="labels")
        if (raw.shape, raw.dtype, raw.voxel_size) != (intensities.shape, intensities.dtype.name, voxel_size):
            return False
        whole = Block.whole(raw.shape)
        return np.array_equal(raw.read(whole), intensities) and np.array_equal(truth.read_labels(whole), labels)
    except VimvolError:
        return False


def space_of(job: Job) -> tuple[Parameter, ...]:
    """Return what is varied of a volume's segmentation."""
    if job.network.cells is not None:
        return SPACES[f"cells: {job.network.cells.method}"]
    seeds = job.config.fragments.seeds
    if seeds != "distance":
        return SPACES[seeds]
    if job.learned is not None:
        return SPACES["learned"]
    return SPACES["sections" if job.sectioned else seeds]


def _tried(
    number: int,
    values: Mapping[str, float],
    pairs: Sequence[tuple[str, str]],
    outputs: Sequence[str],
    config: SegmentConfig,
    objective: Objective,
) -> Trial:
    start = time.perf_counter()
    found = []
    for (source, truth), out in zip(pairs, outputs, strict=True):
        settings = _with(config, values)
        segment_volume(source, out, settings, overwrite=True, progress=silent(), command="vimvol tune")
        scores = score(out, truth, config.segment.mode, background=objective.background)["scores"]
        found.append(scores[objective.protocol][objective.metric])
    return Trial(number, values, sum(found) / len(found), round(time.perf_counter() - start, 3))


def _with(config: SegmentConfig, values: Mapping[str, float]) -> SegmentConfig:
    """Return the configuration with other values of the parameters."""
    flat = {
        f"{section}.{key}": v for section, part in config.model_dump(mode="json").items() for key, v in part.items()
    }
    return load_config(SegmentConfig, None, flat | dict(values))


def _values(config: SegmentConfig, space: Sequence[Parameter]) -> dict[str, float]:
    """Return the values that a configuration has."""
    data = config.model_dump(mode="json")
    return {p.key: data[p.key.split(".")[0]][p.key.split(".")[1]] for p in space}


def _write_config(path: Path, config: SegmentConfig, varied: Iterable[str]) -> None:
    """Write what was varied or differs from the defaults, but for how the work is scheduled."""
    data = config.model_dump(mode="json", exclude_defaults=True, exclude={"run"})
    for section, name in (key.split(".") for key in varied):
        data.setdefault(section, {})[name] = getattr(getattr(config, section), name)
    with storage_errors(f"writing {path}"):
        path.write_text(yaml.safe_dump(data, sort_keys=False), encoding="utf-8")
