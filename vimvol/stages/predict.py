"""Stage predict: boundary probabilities of every voxel, across one axis or all three, or copied from where they are."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from dataclasses import dataclass
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt

from vimvol.config import PredictConfig
from vimvol.engine.plan import plan_stage
from vimvol.engine.turns import offers, turn
from vimvol.errors import DeviceLostError, InputError, VimvolError
from vimvol.geometry import Block, Index, round_up
from vimvol.infer.device import is_device_lost, resolve_device
from vimvol.infer.planes import predict_planes
from vimvol.infer.predictor import Fallbacks, Predictor
from vimvol.io import Volume
from vimvol.io.arrays import write_box
from vimvol.models import load_checkpoint
from vimvol.stages.job import Job
from vimvol.stages.region import context_of_missing, not_finite, read_tissue, wanted_voxels
from vimvol.stages.stage import Stage, boundaries_at

_LOADING = Lock()
"""Or two blocks that begin at once would both load the weights."""


@functools.lru_cache(maxsize=2)
def _predictor(checkpoint: str, digest: str, settings: PredictConfig) -> Predictor:
    """Return the predictor of this process; the weights are loaded once, for the first block."""
    loaded = load_checkpoint(checkpoint)
    if loaded.sha256 != digest:
        raise InputError(f"weights {checkpoint} changed during the run, so blocks would not fit; start the run again")
    device = resolve_device(settings.device)
    if settings.device == "auto" and device.type == "cpu" and offers("GPU"):
        raise InputError(
            "a worker offers a GPU and PyTorch finds none there, so it would predict on one core; give it a GPU and "
            "the PyTorch that fits it, or predict.device=cpu"
        )
    return Predictor(loaded.model, device, settings.precision, settings.batch, settings.augment)


@contextlib.contextmanager
def _device_may_fail() -> Iterator[None]:
    """Tell the engine, which knows no device, where what is raised within means that this process has lost its own.

    Raises
    ------
    DeviceLostError
        Then.
    """
    try:
        yield
    except Exception as error:
        if not is_device_lost(error):
            raise
        raise DeviceLostError(str(error).partition("\n")[0]) from error


@dataclass(frozen=True)
class PredictBlock:
    """Predicts and writes one block of the boundaries."""

    job: Job

    def __call__(self, block: Block) -> dict[str, Any]:
        """Read the block with its context, predict, write; a block without tissue costs no inference."""
        job, network = self.job, self.job.network
        target = Block((0, *block.begin), (network.channels, *block.end))
        wanted = wanted_voxels(job.roi, job.mask, block)
        if not wanted.any():
            write_box(job.boundaries, target, np.zeros(target.shape, np.uint8))
            return {}
        if network.given is not None:
            write_box(job.boundaries, target, read_given(network.given, block) * read_tissue(job, block))
            return {}
        origin = read_by_prediction(job, block)
        raw = job.source.read(origin)
        tissue = read_tissue(job, block, raw, origin)
        fallbacks = Fallbacks(not_finite=int((wanted & not_finite(raw[block.within(origin).slices])).sum()))
        with turn(), _device_may_fail():
            with _LOADING:
                predictor = _predictor(network.checkpoint, network.digest, job.config.predict)
            boundaries = predict_planes(
                predictor, raw, origin, block, job.planes, job.standardization, network.channels, fallbacks, tissue
            )
        write_box(job.boundaries, target, boundaries)
        return {**fallbacks.nonzero()}


def read_given(given: Volume, block: Block) -> npt.NDArray[np.uint8]:
    """Read a box of boundaries that are there already.

    Returns
    -------
    numpy.ndarray
        (c, z, y, x) probabilities, 0..255 for 0..1.

    Raises
    ------
    InputError
        If floats are no probabilities.
    """
    stored = given.read_channels(block)
    if stored.dtype == np.uint8:
        return stored
    if stored.dtype.kind == "u":
        return rounded(stored / np.float32(np.iinfo(stored.dtype).max))
    fits = (stored >= 0) & (stored <= 1)
    if not fits.all():
        raise InputError(
            f"{given.address} holds {stored[~fits][0]:g} in {block}, and a probability is 0 to 1; scale it, or store "
            "it as uint8"
        )
    return rounded(stored)


def rounded(probabilities: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """Return floats 0 to 1 as 0..255."""
    result: npt.NDArray[np.uint8] = np.rint(probabilities * np.float32(255)).astype(np.uint8)
    return result


def read_by_prediction(job: Job, block: Block) -> Block:
    """Return the box of intensities (z, y, x) that the prediction of a block depends on."""
    origin = context_of_missing(job, block)
    for plane in job.planes:
        origin = origin.hull(plane.region_for(block))
    return origin


def predict_stage(job: Job) -> Stage:
    """Return the stage predict."""
    given = job.network.given is not None
    return Stage(
        job,
        plan_stage("predict", job.shape, job.shard, _block(job), job.roi),
        PredictBlock(job),
        array=boundaries_at(job, 0),
        resource="CPU" if given or job.config.predict.device == "cpu" else "GPU",
        held=np.dtype(job.source.dtype).itemsize + job.network.channels,
    )


def _block(job: Job) -> Index | None:
    """Return the voxels (z, y, x) of a block; none: a shard."""
    if job.config.run.block is not None or len(job.planes) == 1:
        return job.config.run.block
    # whole tiles across every axis; a thin block would predict them again
    widest = [max(u, *(plane.cell[a] for plane in job.planes)) for a, u in enumerate(job.shard)]
    return tuple(round_up(w, u) for w, u in zip(widest, job.shard, strict=True))


def not_finite_text(job: Job) -> str:
    """Return how many intensities of those that were predicted are not finite; empty where all are."""
    if np.dtype(job.source.dtype).kind != "f":
        return ""
    with contextlib.suppress(VimvolError):  # no reason to fail in the end
        counts = ((block, result.get("not_finite", 0)) for block, result in predict_stage(job).ledger.entries())
        found = {block: count for block, count in counts if count}
        if total := sum(found.values()):
            first = min(found)
            return (
                f"{total} voxels of {job.source.address} are not finite (NaN or infinity), the first in {first}: they "
                "count as missing, and nothing is segmented there"
            )
    return ""
