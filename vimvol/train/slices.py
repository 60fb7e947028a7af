"""Annotated slices to learn from: volumes held in memory, and images that are read one by one."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import tifffile
from numpy.typing import NDArray

from vimvol.errors import InputError
from vimvol.train.coco import CocoImage, draw_instances
from vimvol.train.targets import grow_instances


@dataclass(frozen=True)
class Slice:
    """One slice with its instances.

    Attributes
    ----------
    raw
        (y, x) intensities as stored.
    labels
        (y, x) int32 instances, 0 between them.
    mean, std
        What the intensities are standardised by: `moments` of the volume, or of the image.
    """

    raw: NDArray[Any]
    labels: NDArray[np.int32]
    mean: float
    std: float

    def standardised(self) -> NDArray[np.float32]:
        """Return the intensities with the mean taken off, in units of the standard deviation."""
        raw: NDArray[np.float32] = self.raw.astype(np.float32)
        return (raw - np.float32(self.mean)) / np.float32(self.std)


class Source(Protocol):
    """Annotated slices: a volume, cut along one axis, or a set of images."""

    @property
    def name(self) -> str:
        """Of the volume or folder, for logs."""
        ...

    def __len__(self) -> int:
        """Return how many slices there are."""
        ...

    def read(self, index: int) -> Slice:
        """Return a slice."""
        ...


@dataclass(frozen=True)
class Sections:
    """Parallel slices of one volume in memory.

    Attributes
    ----------
    name
        Of the volume, for logs.
    raw
        (n, y, x) intensities as stored.
    labels
        (n, y, x) int32 instances; grown into the gaps (`grow_instances`) for training, as annotated for validation.
    mean, std
        `moments` of the whole volume; the predictor standardises by the same.
    voxel_size
        Of the volume, nm, (z, y, x), however it is sliced.
    """

    name: str
    raw: NDArray[Any]
    labels: NDArray[np.int32]
    mean: float
    std: float
    voxel_size: tuple[float, float, float]

    def __len__(self) -> int:
        return len(self.raw)

    def read(self, index: int) -> Slice:
        """Return a slice; a view, not to be changed."""
        return Slice(self.raw[index], self.labels[index], self.mean, self.std)


@dataclass(frozen=True)
class ImageFolder:
    """Images in files, with their instances as outlines; nothing but the outlines is kept in memory.

    Attributes
    ----------
    name
        Of the folder and the annotations, for logs.
    images, paths
        Annotations and files, in the same order.
    min_size
        Pixels below which an instance becomes background.
    fill
        Pixels by which instances grow into the gaps (`grow_instances`), for training; 0: as annotated, for validation.
    """

    name: str
    images: tuple[CocoImage, ...]
    paths: tuple[str, ...]
    min_size: int
    fill: float = 0.0

    def __len__(self) -> int:
        return len(self.images)

    def read(self, index: int) -> Slice:
        """Read an image and draw its instances.

        Raises
        ------
        InputError
            If it cannot be read, has another shape than the annotations say, or holds values that are not finite.
        """
        path, annotated = self.paths[index], self.images[index]
        try:
            raw = _read_image(path)
        except (OSError, ValueError, SyntaxError) as error:  # what the readers raise for damaged files
            raise InputError(f"image {path} cannot be read ({error}); fetch it again") from None
        if raw.shape != annotated.shape:
            raise InputError(
                f"image {path} has shape {raw.shape} and its annotations {annotated.shape}; give images of one channel "
                "and the annotations that belong to them"
            )
        mean, std = moments(raw, f"image {path}")
        return Slice(raw, grow_instances(draw_instances(annotated, self.min_size), self.fill), mean, std or 1.0)


def moments(raw: NDArray[Any], name: str) -> tuple[float, float]:
    """Return mean and standard deviation of intensities, but for those of 0, which are padding.

    The predictor leaves these out by default, too (``input.missing``): a network that was trained on volumes with black
    margins would otherwise see other contrasts there.

    Parameters
    ----------
    raw
        (z, y, x) or (y, x) intensities; where all are 0, both values are.
    name
        What they are, for the error.

    Raises
    ------
    InputError
        If one is not finite.
    """
    sections = raw if raw.ndim == 3 else raw[np.newaxis]
    count, total, squares = 0, 0.0, 0.0
    for section in sections:  # slice by slice: in float64 a volume takes eight times the memory
        data = section[section != 0]
        if data.dtype.kind == "f" and not np.isfinite(data).all():
            raise InputError(
                f"{name} holds NaN or infinity, so nothing can be learned from it; store 0 there, which counts as "
                "padding"
            )
        count, total = count + data.size, total + float(data.sum(dtype=np.float64))
    mean = total / max(count, 1)
    for section in sections:
        squares += float(np.square(section[section != 0].astype(np.float64) - mean).sum())
    return mean, math.sqrt(squares / max(count, 1))


def _read_image(path: str) -> NDArray[Any]:
    if path.lower().endswith((".tif", ".tiff")):
        return np.asarray(tifffile.imread(path))
    from skimage import io

    return np.asarray(io.imread(path))
