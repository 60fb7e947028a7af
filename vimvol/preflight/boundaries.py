"""Where the boundaries of a run come from: a network, or an array that holds them already."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import nn

from vimvol.address import absolute, is_file
from vimvol.config import SegmentConfig
from vimvol.errors import InputError
from vimvol.infer.standardization import Standardization
from vimvol.io import Volume, open_volume
from vimvol.models import load_checkpoint, shipped
from vimvol.models.checkpoint import ModelSpec
from vimvol.segment.cells import METHODS
from vimvol.stages.job import Cells, Network


@dataclass(frozen=True)
class Boundaries:
    """Where boundaries come from.

    Attributes
    ----------
    network
        What a job knows of it.
    tile
        Voxels (y, x) of a tile.
    divisor
        Multiple that the window of a tile must have.
    standardization
        From intensities to network input; none: the volume is to be surveyed.
    voxel_sizes
        What the network was trained on, nm, (z, y, x) each; none where it is to see slices as they are.
    """

    network: Network
    tile: tuple[int, int]
    divisor: int
    standardization: Standardization | None
    voxel_sizes: tuple[tuple[float, float, float], ...] = ()


def find_boundaries(config: SegmentConfig, volume: Volume) -> tuple[SegmentConfig, Boundaries]:
    """Load the network of a configuration, or find the array that stands in its place.

    Returns
    -------
    SegmentConfig
        The configuration with paths that also hold in the folder of a worker elsewhere.
    Boundaries
        What was found.

    Raises
    ------
    InputError
        If it does not fit the volume or the configuration.
    """
    if config.predict.boundaries is not None:
        return _given(config, config.predict.boundaries, volume)
    model = config.predict.model
    if model not in shipped() and is_file(model):
        model = absolute(model)
        config = config.model_copy(update={"predict": config.predict.model_copy(update={"model": model})})
    loaded = load_checkpoint(model)
    spec = loaded.spec
    if spec.in_channels != 1:
        raise InputError(f"model {model} wants {spec.in_channels} channels, and EM has 1; take another")
    network = Network(
        model, loaded.sha256, spec.out_channels, boundary_channel(spec), cells_of(spec, config.segment.mode)
    )
    tile, divisor = _tile(loaded.model, config), _integer(loaded.model, "divisor")
    # a canvas has a fixed size, which a slice that is resampled may exceed
    sizes = () if _integer(loaded.model, "canvas") else spec.voxel_sizes
    return config, Boundaries(network, tile, divisor, _standardization(spec, volume.dtype), sizes)


def _given(config: SegmentConfig, address: str, volume: Volume) -> tuple[SegmentConfig, Boundaries]:
    """Return the array that holds the boundaries, as `find_boundaries` does a network."""
    given, classes = open_volume(address), config.predict.classes
    for name, usual in (("axes", "z"), ("augment", "none")):
        if (value := getattr(config.predict, name)) != usual:
            raise InputError(
                f"predict.boundaries = {given.address} are taken as they are, so predict.{name} = {value} would change "
                "nothing; leave one of both out"
            )
    if given.shape != volume.shape:
        raise InputError(
            f"predict.boundaries = {given.address} has shape {given.shape} and {volume.address} {volume.shape}, so "
            "they do not belong together; give boundaries of every voxel"
        )
    if given.channels != len(classes):
        raise InputError(
            f"predict.boundaries = {given.address} has {given.channels} channels, and predict.classes names "
            f"{len(classes)} ({', '.join(classes)}); name one class a channel, one of them 'boundary'"
        )
    spec = ModelSpec("given", out_channels=given.channels, classes=classes, normalize="none")
    network = Network(
        given.address,
        given.identity(),
        given.channels,
        boundary_channel(spec),
        cells_of(spec, config.segment.mode),
        given,
    )
    config = config.model_copy(update={"predict": config.predict.model_copy(update={"boundaries": given.address})})
    return config, Boundaries(network, config.predict.tile, 1, _standardization(spec, volume.dtype))


def _tile(model: nn.Module, config: SegmentConfig) -> tuple[int, int]:
    """Return the tile to use: as configured, but a network that pads every image to a canvas gets it filled."""
    canvas = _integer(model, "canvas")
    if not canvas:
        return config.predict.tile
    y, x = (canvas - 2 * halo for halo in config.predict.halo)
    if min(y, x) < 1:
        raise InputError(
            f"predict.halo = {config.predict.halo} leaves nothing of the network's canvas of {canvas} x {canvas}; "
            f"choose one below {canvas // 2}"
        )
    return y, x


def _integer(model: nn.Module, name: str) -> int:
    """Return an integer attribute of a network; 0 where it has none."""
    value = getattr(model, name, None)
    return value if isinstance(value, int) else 0


def boundary_channel(spec: ModelSpec) -> int:
    """Return the index of the channel that holds the boundaries.

    Raises
    ------
    InputError
        If the network has none.
    """
    names = [name.lower() for name in spec.classes]
    for name in ("boundary", "boundary distance"):
        if name in names:
            return names.index(name)
    if spec.out_channels == 1:
        return 0
    raise InputError(
        f"the network's classes {', '.join(spec.classes)} have no 'boundary', so there is nothing to segment by; "
        "choose a network with a boundary channel"
    )


def cells_of(spec: ModelSpec, mode: str) -> Cells | None:
    """Return how cells are made of what a network predicts; none if it knows no foreground.

    Raises
    ------
    InputError
        If whole bodies are wanted of a network for the cells of images.
    """
    names = [name.lower() for name in spec.classes]
    method = next((key for key, method in METHODS.items() if set(method.classes) <= set(names)), None)
    if method is None:
        return None
    if mode == "3d":
        raise InputError(
            f"the network's classes {', '.join(spec.classes)} make cells of slices, and segment.mode = 3d wants bodies "
            "that go on from slice to slice; add --set segment.mode=2d, or choose a network that predicts boundaries "
            "alone"
        )
    return Cells(method, tuple(names.index(name) for name in METHODS[method].classes))


def _standardization(spec: ModelSpec, dtype: str) -> Standardization | None:
    """Return the fixed scaling of a network that wants intensities in [0, 1]; none if the volume is to be surveyed."""
    if spec.normalize != "none":
        return None
    return Standardization((0.0,), (float(np.iinfo(dtype).max) if np.dtype(dtype).kind in "ui" else 1.0,))
