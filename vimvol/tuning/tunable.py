"""What a tuning varies, and what it makes as good as possible."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Parameter:
    """What is varied: a key of `SegmentConfig`, and the grid of its values.

    Attributes
    ----------
    key
        ``section.key``.
    low, high, step
        Smallest and largest value, and the distance between two; integers for an integer setting.
    """

    key: str
    low: float
    high: float
    step: float


FRAGMENTS = (
    Parameter("fragments.threshold", 0.1, 0.9, 0.05),
    Parameter("fragments.sigma_seeds", 0.0, 4.0, 0.5),
    Parameter("fragments.sigma_weights", 0.0, 3.0, 0.5),
    Parameter("fragments.alpha", 0.5, 1.0, 0.05),
    Parameter("fragments.min_size", 0, 100, 25),
    Parameter("segment.min_size", 0, 200, 25),
)
"""Fragments from boundaries, to be joined by multicut."""
BOUNDARIES = (*FRAGMENTS, Parameter("agglomerate.beta", 0.05, 0.95, 0.05))
"""... by mean boundaries."""
LEARNED = (*FRAGMENTS, Parameter("agglomerate.beta_learned", 0.05, 0.95, 0.05))
"""... by learned costs."""
SECTIONS = (*BOUNDARIES, Parameter("agglomerate.beta_across", 0.05, 0.95, 0.05))
"""Fragments of single slices, joined to neurons across sections."""
CONNECTED = (
    Parameter("fragments.threshold", 0.1, 0.9, 0.05),
    Parameter("segment.min_size", 0, 200, 25),
)
"""Connected components below a threshold."""
CELLS = (
    Parameter("cells.foreground", 0.2, 0.8, 0.05),
    Parameter("cells.seed", 0.2, 0.8, 0.05),
    Parameter("segment.min_size", 0, 200, 25),
)
DISTANCES = (
    Parameter("cells.foreground", 0.2, 0.8, 0.05),
    Parameter("cells.center", 0.2, 0.8, 0.05),
    Parameter("cells.boundary", 0.2, 0.8, 0.05),
    Parameter("cells.smoothing", 0.0, 3.2, 0.4),
    Parameter("segment.min_size", 0, 200, 25),
)
SPACES: dict[str, tuple[Parameter, ...]] = {
    "distance": BOUNDARIES,
    "learned": LEARNED,
    "sections": SECTIONS,
    "components": CONNECTED,
    "cells: components": CELLS,
    "cells: distances": DISTANCES,
}
"""What is varied, by how segments come about."""


@dataclass(frozen=True)
class Objective:
    """What is to be as good as possible.

    Attributes
    ----------
    protocol, metric
        Of the scores of `vimvol.commands.score.score`.
    more_is_better
        Whether the larger value wins.
    background
        What label 0 of the ground truth is; see `vimvol.commands.score.score`.
    """

    protocol: str
    metric: str
    more_is_better: bool
    background: str = "ignore"


OBJECTIVES = {
    "2d": Objective("slices", "mean_segmentation_accuracy", True),
    "3d": Objective("volume, band 2", "cremi", False),
    "cells": Objective("slices", "mean_segmentation_accuracy", True, "keep"),
}
"""By the mode; ``cells`` where the network tells them from a background."""
