"""What `vimvol train` can be told."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from vimvol.config.base import Fraction, NonNegative, Positive, Section, Shape2


class TrainVolume(Section):
    """One annotated volume and the slices of it that train and validate."""

    raw: str = Field(description="PATH[:DATASET] of the intensities, (z, y, x)")
    labels: str = Field(description="PATH[:DATASET] of the instances, (z, y, x); 0: membrane or not annotated")
    train: tuple[NonNegative, Positive] | None = Field(
        default=None,
        description="first slice, and the slice after the last, to train on; none: the volume only validates",
        examples=[[0, 100]],
    )
    validate_: tuple[NonNegative, Positive] | None = Field(
        default=None,
        alias="validate",
        description="the same to validate on; always whole slices along z",
        examples=[[100, 125]],
    )
    test: tuple[NonNegative, Positive] | None = Field(
        default=None,
        description="the same to report on; a training only makes sure that it sees none of them",
        examples=[[112, 125]],
    )
    planes: tuple[Literal["z", "y", "x"], ...] = Field(
        default=("z",), min_length=1, description="axes to slice for training; all three where the voxels are isotropic"
    )
    weight: float = Field(default=1.0, gt=0, description="share of the crops, relative to the other data")


class TrainImages(Section):
    """Images with the outlines of their instances in COCO files, such as LIVECell."""

    folder: str = Field(description="folder of the images; its subfolders are searched")
    train: str = Field(description="COCO JSON of the images to train on")
    validate_: str | None = Field(default=None, alias="validate", description="the same to validate on")
    test: str | None = Field(default=None, description="the same to report on; not opened by a training")
    min_size: NonNegative = Field(default=50, description="pixels below which an instance counts as background")
    weight: float = Field(default=1.0, gt=0, description="share of the crops, relative to the other data")


class TrainDrawn(Section):
    """Synthetic volumes, drawn when a training begins, of many kinds; for what was not annotated."""

    volumes: Positive = Field(default=24, description="how many, each with other neurites, membranes and noise")
    looks: bool = Field(default=True, description="of other staining, organelles and sharpness, too")
    weight: float = Field(
        default=1.0, gt=0, description="share of the crops, of all of them, relative to the other data"
    )
    seed: NonNegative = Field(default=0, description="another one draws others")


class AugmentConfig(Section):
    """Random changes of a training crop; each a probability or a strength, 0 is off."""

    flip: bool = Field(default=True, description="flips and quarter turns")
    scale: float = Field(
        default=0.8, ge=0, le=3, description="half of the crops are zoomed by 1 / (1 + scale) to 1 + scale"
    )
    stretch: float = Field(default=0.2, ge=0, le=1, description="their axes are zoomed apart by 1 + stretch at most")
    elastic: Fraction = Field(default=0.3, description="probability of an elastic deformation")
    jump: Fraction = Field(default=0.1, description="probability that one part of a crop is shifted along a line")
    contrast: Fraction = Field(default=0.6, description="probability of each change of gamma, contrast and brightness")
    illumination: Fraction = Field(
        default=0.3, description="probability of slow changes of brightness and contrast in a crop"
    )
    equalise: Fraction = Field(default=0.2, description="probability of contrast that is evened out locally")
    stains: Fraction = Field(default=0.15, description="probability of folds, dirt and lost lines")
    coarsen: Fraction = Field(default=0.15, description="probability of detail as of voxels up to 3 times as wide")
    blur: Fraction = Field(default=0.25, description="probability of a Gaussian blur, up to 2 voxels")
    noise: Fraction = Field(default=0.4, description="probability of additive noise, fine or in grains")
    sharpen: Fraction = Field(default=0.15, description="probability of an unsharp mask")


class TrainConfig(Section):
    """Everything that `vimvol train` can be told."""

    model: str = Field(default="vimunet-nano", description="an architecture that `vimvol models` lists")
    options: dict[str, Any] = Field(default_factory=dict, description="options of the network that replace its own")
    init: str | None = Field(
        default=None,
        description="weights to start from: a name that `vimvol models` lists, or a file; one of Segment Anything "
        "starts the encoder of a UNETR; none: random ones",
    )
    out: str = Field(description="folder for checkpoints, logs and the exported weights")
    root: str = Field(default=".", description="folder that relative paths of the data start from")
    volumes: tuple[TrainVolume, ...] = Field(default=(), description="annotated volumes, a mapping each")
    images: tuple[TrainImages, ...] = Field(default=(), description="images with outlines, a mapping a folder")
    drawn: TrainDrawn | None = Field(default=None, description="synthetic volumes to train on besides; none: none")
    target: Literal["boundary", "foreground-boundary", "distances"] = Field(
        default="boundary",
        description="what is learned: boundaries between instances; foreground and boundaries; or foreground and "
        "distances to the centre and to the boundary of every instance",
    )
    boundary_width: Literal[2, 4, 6] = Field(default=2, description="thickness of the boundary that is learned, voxels")
    fill: float = Field(
        default=5.0,
        ge=0,
        description="voxels by which instances grow into label 0, half a thick membrane; of target boundary alone, "
        "others learn label 0 as background",
    )

    loss: Literal["dice-bce", "dice"] = Field(default="dice-bce", description="Dice plus cross-entropy, or Dice alone")
    boundary_weight: float = Field(
        default=4.0, gt=0, description="of a boundary voxel in the cross-entropy, others have 1"
    )
    patch: Shape2 = Field(default=(256, 256), description="voxels (y, x) of a training crop")
    batch: Positive = Field(default=4, description="crops an optimiser step, those of all devices together")
    steps: Positive = Field(default=10_000, description="optimiser steps in all")
    optimizer: Literal["adamw", "adam"] = Field(
        default="adamw", description="adamw decays weights apart from gradients"
    )
    learning_rate: float = Field(default=1e-3, gt=0, description="its peak, after the warm-up")
    warmup: NonNegative = Field(
        default=200, description="steps over which the learning rate rises, a fifth of all at most"
    )
    schedule: Literal["cosine", "plateau", "constant"] = Field(
        default="cosine",
        description="cosine: falls to 0 at the last step; plateau: is reduced when validation does not improve",
    )
    plateau_factor: float = Field(default=0.9, gt=0, lt=1, description="what a plateau multiplies the learning rate by")
    plateau_patience: NonNegative = Field(
        default=10, description="validations without improvement that are no plateau yet"
    )
    weight_decay: float = Field(
        default=1e-2, ge=0, description="of the weights of linear layers and convolutions alone"
    )
    clip: float = Field(default=1.0, ge=0, description="largest norm of the gradient; 0: any")
    ema: float = Field(
        default=0.995, ge=0, lt=1, description="decay of the running average of the weights; 0: no average"
    )
    augment: AugmentConfig = AugmentConfig()
    seed: NonNegative = Field(default=0, description="of weights, crops and their changes; another one draws others")

    validate_every: Positive = Field(default=500, description="steps between validations, each with a checkpoint")
    validate_slices: Positive = Field(
        default=8, description="slices or images of every source that a validation looks at, evenly spread"
    )
    monitor: Literal["msa", "loss"] = Field(
        default="msa",
        description="what makes a checkpoint the best, tells a plateau and stops early; loss skips the segmentation "
        "of validation slices; targets other than boundary always go by the loss",
    )
    patience: NonNegative = Field(
        default=0, description="validations without improvement that end the training; 0: none do"
    )
    calibrate: bool = Field(
        default=True, description="shift exported logits so that the best threshold of validation is .5"
    )
    pictures: NonNegative = Field(
        default=1, description="validations from one picture of predictions to the next; 0: none"
    )
    logger: Literal["csv", "tensorboard"] = Field(default="csv", description="tensorboard: its files beside the CSV")
    save_minutes: float = Field(default=10.0, gt=0, description="longest time between checkpoints, minutes")

    devices: Positive = Field(
        default=1, description="GPUs, or processes on a CPU, of every machine; the batch is divided"
    )
    nodes: Positive = Field(default=1, description="machines, started by SLURM or torchrun")
    precision: Literal["float32", "bfloat16", "float16"] = Field(
        default="float32",
        description="bfloat16, float16: mixed precision, the weights stay float32; float16 needs a GPU",
    )
    threads: NonNegative = Field(default=0, description="CPU threads; 0: all cores")
    workers: NonNegative | None = Field(
        default=None,
        description="processes that cut crops beside the training; 0: none; unset: as many as there are cores for",
    )
    card: dict[str, str] = Field(default_factory=dict, description="notes for the model card, e.g. data and licence")

    @model_validator(mode="after")
    def _fits(self) -> TrainConfig:
        if not self.volumes and not self.images:
            raise ValueError(
                "there is nothing to validate on but what is drawn; give an annotated volume, or images"
                if self.drawn
                else "there is nothing to train on; give volumes or images"
            )
        if not self.images and not self.drawn and all(volume.train is None for volume in self.volumes):
            raise ValueError("no volume says which slices to train on; give one of them train = [first, last + 1]")
        if self.batch % (self.devices * self.nodes):
            raise ValueError(
                f"batch = {self.batch} cannot be divided among {self.devices * self.nodes} devices; give a multiple"
            )
        return self
