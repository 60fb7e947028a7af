"""What `vimvol train` can be told."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from vimvol.config.base import Fraction, NonNegative, Positive, Section, Shape2


class TrainVolume(Section):
    """One annotated volume and the slices of it that train and validate."""

    raw: str = Field(description="PATH[:DATASET] of the intensities, (z, y, x)")
    labels: str = Field(description="PATH[:DATASET] of the instances, (z, y, x); 0: membrane or not annotated")
    train: tuple[NonNegative, Positive] = Field(description="first slice, and the slice after the last, to train on")
    validate_: tuple[NonNegative, Positive] | None = Field(
        None, alias="validate", description="the same to validate on; always whole slices along z"
    )
    planes: tuple[Literal["z", "y", "x"], ...] = Field(
        ("z",), min_length=1, description="axes to slice for training; all three where the voxels are isotropic"
    )
    weight: float = Field(1.0, gt=0, description="share of the crops, relative to the other volumes")


class AugmentConfig(Section):
    """Random changes of a training crop; each a probability or a strength, 0 is off."""

    flip: bool = Field(True, description="flips and quarter turns")
    scale: float = Field(0.35, ge=0, lt=1, description="half of the crops are zoomed by 1 / (1 + scale) to 1 + scale")
    elastic: Fraction = Field(0.3, description="probability of an elastic deformation")
    contrast: Fraction = Field(0.6, description="probability of each change of gamma, contrast and brightness")
    noise: Fraction = Field(0.3, description="probability of additive Gaussian noise")
    blur: Fraction = Field(0.25, description="probability of a Gaussian blur, up to 2 voxels")
    illumination: Fraction = Field(0.3, description="probability of slow changes of brightness and contrast in a crop")


class TrainConfig(Section):
    """Everything that `vimvol train` can be told."""

    model: str = Field("vimunet-nano", description="an architecture that `vimvol models` lists")
    init: str | None = Field(
        None, description="weights to start from: a name that `vimvol models` lists, or a file; none: random ones"
    )
    out: str = Field(description="folder for checkpoints, logs and the exported weights")
    root: str = Field(".", description="folder that relative paths of the volumes start from")
    volumes: tuple[TrainVolume, ...] = Field(min_length=1)
    patch: Shape2 = Field((256, 256), description="voxels (y, x) of a training crop")
    batch: Positive = Field(4, description="crops an optimiser step")
    steps: Positive = Field(10_000, description="optimiser steps in all")
    learning_rate: float = Field(1e-3, gt=0, description="its peak, after the warm-up; a cosine takes it to 0")
    warmup: NonNegative = Field(200, description="steps over which the learning rate rises")
    weight_decay: float = Field(1e-2, ge=0)
    ema: float = Field(0.995, ge=0, lt=1, description="decay of the running average of the weights; 0: no average")
    boundary_width: Literal[2, 4, 6] = Field(2, description="thickness of the boundary that is learned, voxels")
    boundary_weight: float = Field(4.0, gt=0, description="of a boundary voxel in the cross-entropy, others have 1")
    fill: float = Field(5.0, ge=0, description="voxels by which instances grow into label 0, half a thick membrane")
    validate_every: Positive = Field(500, description="steps between validations, each with a checkpoint")
    validate_slices: Positive = Field(8, description="slices of every volume that a validation looks at, evenly spread")
    augment: AugmentConfig = AugmentConfig()
    seed: NonNegative = 0
    threads: NonNegative = Field(0, description="CPU threads; 0: all cores")
    precision: Literal["float32", "bfloat16"] = "float32"
    card: dict[str, str] = Field(default_factory=dict, description="notes for the model card, e.g. data and licence")
