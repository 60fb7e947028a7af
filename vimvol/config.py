"""What can be configured: one frozen model a stage, loaded from YAML and ``key=value`` overrides.

Units and axis order are part of every field's description. Unknown keys are refused and the valid
ones listed. Paths are plain strings; they are opened by the stages, not here.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from vimvol.errors import ConfigError

Positive = Annotated[int, Field(ge=1)]
NonNegative = Annotated[int, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Shape2 = tuple[Positive, Positive]
Shape3 = tuple[Positive, Positive, Positive]
Halo2 = tuple[NonNegative, NonNegative]
Halo3 = tuple[NonNegative, NonNegative, NonNegative]


class Section(BaseModel):
    """Base of all configuration: frozen, and no key that it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


class InputConfig(Section):
    """How to read the input where its metadata do not say."""

    axes: str | None = Field(None, description="axis names of the stored array, slowest first, e.g. 'zyx'")
    voxel_size: tuple[float, float, float] | None = Field(None, description="nm along z, y, x")
    missing: float | None = Field(
        0, description="intensity of lost sections and padding; squares of 15 x 15 such voxels become background"
    )


class PredictConfig(Section):
    """Boundary prediction, slice by slice."""

    model: str = Field("vimunet-nano", description="a name that `vimvol models` lists, or the path of a checkpoint")
    tile: Shape2 = Field((512, 512), description="voxels (y, x) that one forward pass contributes to a slice")
    halo: Halo2 = Field((32, 32), description="voxels (y, x) of context on every side of a tile")
    batch: Positive = Field(1, description="tiles a forward pass; more on a GPU")
    precision: Literal["float32", "bfloat16"] = "float32"
    device: str = Field("auto", description="auto, cpu, cuda, cuda:N or mps")
    normalize: Literal["volume", "slice"] = Field(
        "volume", description="whose mean and standard deviation standardise the intensities"
    )


class SegmentSection(Section):
    """What is segmented."""

    mode: Literal["2d", "3d"] = Field("3d", description="3d: whole neurons; 2d: the instances of every slice by itself")
    min_size: NonNegative = Field(25, description="voxels below which a segment becomes background, 0")


class FragmentsConfig(Section):
    """Watershed fragments (supervoxels) from boundaries."""

    dimension: Literal["auto", "2d", "3d"] = Field(
        "auto",
        description="watershed by slice or by volume; auto: 3d where z is sampled at most twice as coarsely as x",
    )
    seeds: Literal["distance", "components"] = Field(
        "distance",
        description="distance: maxima of the distance to boundaries, joined by multicut; components: connected voxels "
        "below the threshold, in 2d mode the instances of the paper",
    )
    threshold: Fraction = Field(0.4, description="boundary probability above which a voxel counts as boundary")
    sigma_seeds: float = Field(2.0, ge=0, description="Gaussian on the distances before their maxima are taken, voxels")
    sigma_weights: float = Field(1.0, ge=0, description="Gaussian on the boundaries for the watershed heights, voxels")
    alpha: Fraction = Field(0.9, description="weight of the boundaries against the distances in the watershed heights")
    min_size: NonNegative = Field(
        25, description="voxels below which a fragment is given to its neighbours; not for components"
    )
    tile: Shape3 | None = Field(
        None,
        description="voxels (z, y, x) of one watershed; none: (1, 512, 512) or (32, 256, 256), within a shard",
    )
    halo: Halo3 | None = Field(
        None, description="voxels (z, y, x) of context on every side of it; none: (0, 64, 64) or (8, 32, 32)"
    )


class AgglomerateConfig(Section):
    """From fragments to segments by multicut."""

    solver: str = Field("kernighan-lin", description="an entry of vimvol.segment.multicut.SOLVERS")
    beta: float = Field(0.15, gt=0, lt=1, description="prior probability of a cut; higher splits more, lower merges")
    size_weighting: bool = Field(True, description="scale an edge's cost by its number of voxel pairs")


class OutputConfig(Section):
    """How the result is stored."""

    chunk: Shape3 = Field((16, 128, 128), description="voxels (z, y, x) that are compressed together")
    shard: Shape3 | None = Field(
        None,
        description="voxels (z, y, x) of one file or object, a multiple of the chunk; none: (32, 512, 512), less where "
        "a volume is so small that workers would idle",
    )
    levels: Annotated[int, Field(ge=1, le=16)] | None = Field(
        None, description="levels of the pyramid; none: until a level is at most 256 voxels wide"
    )


class RunConfig(Section):
    """How the work is scheduled; none of it changes the result."""

    workers: NonNegative | None = Field(None, description="worker processes; none: one a core; 0: this process")
    block: Shape3 | None = Field(
        None, description="voxels (z, y, x) of one task; a multiple of the shard; none: the shard"
    )
    window: Positive | None = Field(None, description="tasks in flight; none: 4 a worker")
    retries: NonNegative = Field(2, description="times that a block is tried again")


class SegmentConfig(Section):
    """Everything that `vimvol segment` can be told."""

    input: InputConfig = InputConfig()
    predict: PredictConfig = PredictConfig()
    segment: SegmentSection = SegmentSection()
    fragments: FragmentsConfig = FragmentsConfig()
    agglomerate: AgglomerateConfig = AgglomerateConfig()
    output: OutputConfig = OutputConfig()
    run: RunConfig = RunConfig()


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
    blur: Fraction = Field(0.25, description="probability of a Gaussian blur")


class TrainConfig(Section):
    """Everything that `vimvol train` can be told."""

    model: str = Field("vimunet-nano", description="an architecture that `vimvol models` lists")
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


ConfigT = TypeVar("ConfigT", bound=Section)


def load_config(
    kind: type[ConfigT], path: str | None = None, overrides: Sequence[str] | Mapping[str, Any] = ()
) -> ConfigT:
    """Read a configuration from a YAML file and overrides.

    Parameters
    ----------
    kind
        The configuration model to fill.
    path
        YAML file with any part of it; none: defaults only.
    overrides
        ``section.key=value`` texts (value in YAML), or a mapping from ``section.key`` to a value; later ones win.

    Raises
    ------
    ConfigError
        If the file is missing or no YAML, a key is unknown or a value does not fit.
    """
    data = _read_yaml(path) if path is not None else {}
    pairs = overrides.items() if isinstance(overrides, Mapping) else [_split(text) for text in overrides]
    for key, value in pairs:
        _put(data, key, value)
    return parse_config(kind, data, source=path or "the command line")


def parse_config(kind: type[ConfigT], data: Mapping[str, Any], source: str = "the configuration") -> ConfigT:
    """Validate a mapping as a configuration; errors become one line of `ConfigError`."""
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        raise ConfigError(_explain(kind, error, source)) from None


def _read_yaml(path: str) -> dict[str, Any]:
    try:
        data = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"configuration {path} does not exist; give the path of a YAML file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"configuration {path} cannot be read ({error}); give a readable YAML file") from None
    except yaml.YAMLError as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"configuration {path} is not valid YAML ({reason}); correct it") from None
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise ConfigError(
            f"configuration {path} holds a {type(data).__name__}, not sections; write 'section: {{key: value}}'"
        )
    return data


def _split(text: str) -> tuple[str, Any]:
    key, found, value = text.partition("=")
    if not found or not key:
        raise ConfigError(f"override {text!r} has no 'key=value' form; write it as section.key=value")
    try:
        return key.strip(), yaml.safe_load(value)
    except yaml.YAMLError:
        raise ConfigError(f"override {text!r} has a value that is not valid YAML; quote it") from None


def _put(data: dict[str, Any], key: str, value: Any) -> None:  # noqa: ANN401 - any YAML value
    *parents, last = key.split(".")
    for parent in parents:
        child = data.setdefault(parent, {})
        if not isinstance(child, dict):
            raise ConfigError(f"key {key!r} goes through {parent!r}, which is a value and no section; shorten it")
        data = child
    data[last] = value


def _explain(kind: type[Section], error: ValidationError, source: str) -> str:
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    more = error.error_count() - 1
    rest = f" ({more} more like this)" if more else ""
    if first["type"] == "extra_forbidden":
        valid = _valid_keys(kind, first["loc"][:-1])
        close = difflib.get_close_matches(str(first["loc"][-1]), valid, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        return f"unknown key {where!r} in {source}{rest}; {hint}valid keys here: {', '.join(valid)}"
    if first["type"] == "missing":
        return f"key {where!r} is missing in {source}{rest}; add it"
    return f"{where} = {first['input']!r} in {source} does not fit{rest}: {first['msg']}"


def _valid_keys(kind: type[Section], location: Sequence[int | str]) -> list[str]:
    """Return the keys of the section at a location inside a configuration model."""
    current: type[BaseModel] = kind
    for part in location:
        if isinstance(part, int):
            continue
        field = next((f for n, f in current.model_fields.items() if part in (n, f.alias)), None)
        inner = _section_in(field.annotation) if field is not None else None
        if inner is None:
            break
        current = inner
    return [f.alias or n for n, f in current.model_fields.items()]


def _section_in(annotation: Any) -> type[BaseModel] | None:  # noqa: ANN401 - typing objects have no common type
    """Return the configuration model inside an annotation such as ``tuple[TrainVolume, ...]``."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in getattr(annotation, "__args__", ()):
        found = _section_in(argument)
        if found is not None:
            return found
    return None
