"""Stage predict: boundary probabilities of every voxel, across one axis or all three, or copied from where they are."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from dataclasses import dataclass
from threading import Lock
from typing import Any

import numpy as np

from vimvol.config import PredictConfig
from vimvol.engine.turns import offers, turn
from vimvol.errors import DeviceLostError, InputError
from vimvol.geometry import Block
from vimvol.infer.device import is_device_lost, resolve_device
from vimvol.infer.planes import predict_planes
from vimvol.infer.predictor import Fallbacks, Predictor
from vimvol.io.arrays import write_box
from vimvol.models import load_checkpoint
from vimvol.stages.boundaries import read_given
from vimvol.stages.job import Job
from vimvol.stages.region import context_of_missing, not_finite, read_tissue, wanted_voxels

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


def read_by_prediction(job: Job, block: Block) -> Block:
    """Return the box of intensities (z, y, x) that the prediction of a block depends on."""
    origin = context_of_missing(job, block)
    for plane in job.planes:
        origin = origin.hull(plane.region_for(block))
    return origin
