"""Synthetic volumes that are drawn for a training, each of another kind.

A network that saw one or two microscopes learns how membranes look there; one that saw neurites of many sizes, with
thin and thick membranes and more and less noise, learns what a membrane is. What that is worth on specimens that were
not trained on: ``docs/training-study.md``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from vimvol.config import TrainDrawn
from vimvol.sample import Look, SampleSpec, generate

SECTIONS, ISOTROPIC = (8, 512, 512), (40, 256, 256)
"""Voxels (z, y, x) of a volume of thin sections, and of one with cubic voxels."""

STREAM = 7
"""Keeps these seeds apart from those of crops."""


def draw_volumes(drawn: TrainDrawn) -> Iterator[tuple[SampleSpec, NDArray[np.uint8], NDArray[np.uint64]]]:
    """Draw the volumes of a training, one after the other.

    Parameters
    ----------
    drawn
        How many, and the seed: equal ones give equal volumes.

    Yields
    ------
    spec
        What was drawn; two of three are sections of 30 to 50 nm with pixels of 4.6 nm, the third has voxels of 8 nm.
    raw
        (Z, Y, X) uint8, membranes dark.
    labels
        (Z, Y, X) uint64, the neurite of every voxel, without gaps.
    """
    for number in range(drawn.volumes):
        spec = _spec(number, np.random.default_rng((drawn.seed, STREAM, number)), looks=drawn.looks)
        yield spec, *generate(spec)


def _spec(number: int, rng: np.random.Generator, *, looks: bool) -> SampleSpec:
    noise, seed = float(rng.uniform(0.4, 1.8)), int(rng.integers(2**31))
    if number % 3 == 2:
        size, membrane = float(rng.uniform(110, 260)), float(rng.uniform(24, 44))
        spec = SampleSpec(ISOTROPIC, (8.0, 8.0, 8.0), seed, size, membrane, noise)
    else:
        size = float(np.exp(rng.uniform(math.log(110), math.log(420))))
        sizes = (float(rng.uniform(30, 50)), 4.6, 4.6)
        spec = SampleSpec(SECTIONS, sizes, seed, size, float(rng.uniform(18, 48)), noise)
    return replace(spec, look=_look(rng)) if looks else spec


def _look(rng: np.random.Generator) -> Look:
    """Draw a look: each number by itself, from what is missing to what is more than any recording has."""
    return Look(
        tones=float(rng.uniform(0.5, 3.0)),
        dark=float(rng.uniform(0.0, 0.3)),
        texture=float(rng.uniform(0.2, 1.6)),
        grains=float(rng.uniform(0.0, 1.5)),
        crowding=float(rng.uniform(0.2, 1.5)),
        mitochondria=float(rng.uniform(0.3, 1.4)),
        matrix=float(rng.uniform(50.0, 150.0)),
        cristae=float(rng.uniform(0.0, 1.3)),
        membrane=float(rng.uniform(10.0, 90.0)),
        patchy=float(rng.uniform(0.0, 1.2)),
        thickened=float(rng.uniform(0.0, 2.0)),
        reticulum=float(rng.uniform(0.0, 2.0)),
        blur=float(rng.uniform(0.5, 1.6)),
    )
