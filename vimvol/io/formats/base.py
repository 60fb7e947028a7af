"""What every format tells about an array, and what an opener must offer."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import le
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from vimvol.errors import InputError

Kind = Literal["image", "labels", "mask"]
"""What the caller wants: intensities, integer ids, or numbers of any kind that are not 0 where something is."""

INTERNAL = "vimvol"
"""Folder of an output in which a run keeps what it works with: no volume that anybody would name."""
IMAGE_DTYPES = ("uint8", "uint16", "float32")

_GUESSES = {2: "yx", 3: "zyx", 4: "czyx", 5: "tczyx"}
_PREFERRED: dict[Kind, str] = {"image": "volumes/raw", "labels": "volumes/labels/neuron_ids", "mask": "volumes/mask"}


class Backend(Protocol):
    """An open array, indexed by integers and slices along its stored axes."""

    def __getitem__(self, selection: Any, /) -> Any:  # noqa: ANN401 - zarr, h5py and tifffile each have their own
        """Return the selected part as a numpy array."""


@dataclass(frozen=True)
class ArrayInfo:
    """One array of a container; all tuples follow the stored axes.

    Attributes
    ----------
    dataset
        Its path inside the container; empty where the container is the array.
    axes
        Names of the stored axes, slowest first, out of `vimvol.geometry.AXES`; empty where neither metadata nor the
        rank tell.
    shape, chunks, shards
        In voxels; chunks and shards are none where the format has none.
    dtype
        In native byte order, e.g. ``"uint8"``.
    scale, translation
        Size of a voxel and position of the first, nm along space axes; none where the metadata do not say.
    scale_known
        Whether the scale has a unit; without, its numbers are taken as nm.
    """

    dataset: str
    axes: str
    shape: tuple[int, ...]
    dtype: str
    scale: tuple[float, ...] | None = None
    translation: tuple[float, ...] | None = None
    scale_known: bool = False
    chunks: tuple[int, ...] | None = None
    shards: tuple[int, ...] | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of the array before compression."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize

    @property
    def voxel_size(self) -> tuple[float, float, float] | None:
        """Size of a voxel in nm, (z, y, x); none where unknown."""
        return None if self.scale is None else spatial(self.axes, self.scale)


@dataclass(frozen=True)
class Opener:
    """How one format is recognised, listed and read.

    Attributes
    ----------
    matches
        Tells from an existing path or a URL whether it is this format, cheaply.
    find
        ``find(path, dataset, kind)`` returns the array that is meant, where ``dataset`` is empty the one to prefer;
        raises `InputError` where there is none, or several.
    arrays
        Lists the arrays inside.
    open
        ``open(path, dataset)`` opens an array by its `ArrayInfo.dataset` for reading.
    state
        ``state(path, dataset, portable)`` returns a text that changes when the stored bytes do, as far as that can be
        told cheaply; ``portable``: one that is the same for a copy on another disk which has the times of the original.
    """

    matches: Callable[[str], bool]
    find: Callable[[str, str, Kind], ArrayInfo]
    arrays: Callable[[str], list[ArrayInfo]]
    open: Callable[[str, str], Backend]
    state: Callable[[str, str, bool], str]


def spatial(axes: str, values: Sequence[float]) -> tuple[float, float, float]:
    """Pick the values of (z, y, x); without a z axis, z takes the value of y: one slice of isotropic voxels."""
    by_axis = dict(zip(axes, values, strict=True))
    return by_axis.get("z", by_axis["y"]), by_axis["y"], by_axis["x"]


def guess_axes(rank: int) -> str:
    """Return the axes of an array without metadata; empty for a rank that is no volume's."""
    return _GUESSES.get(rank, "")


def natural(name: str) -> list[tuple[int, int, str]]:
    """Return a sort key by which ``s2`` comes before ``s10``."""
    return [(0, int(p), "") if p.isdigit() else (1, 0, p) for p in re.findall(r"[0-9]+|[^0-9]+", name)]


def native_dtype(dtype: Any) -> str:  # noqa: ANN401 - whatever numpy understands
    """Return the name of a dtype without its byte order."""
    return str(np.dtype(dtype).newbyteorder("="))


def attribute_geometry(
    attributes: Mapping[str, Any], axes: str
) -> tuple[tuple[float, ...] | None, tuple[float, ...] | None]:
    """Read the CREMI attributes ``resolution`` (or ``voxel_size``) and ``offset``, nm along the last axes.

    Returns
    -------
    tuple
        Scale and translation along ``axes``, each none where the attribute is missing or no list of numbers.
    """
    scale = _vector(attributes.get("resolution", attributes.get("voxel_size")), len(axes), 1.0)
    if scale is not None and not all(s > 0 for s in scale):
        scale = None
    return scale, _vector(attributes.get("offset"), len(axes), 0.0)


def _vector(value: Any, rank: int, default: float) -> tuple[float, ...] | None:  # noqa: ANN401 - what a file holds
    try:
        numbers: NDArray[np.float64] = np.asarray(value, dtype=np.float64).ravel()
    except (TypeError, ValueError):
        return None
    if value is None or numbers.size == 0 or not np.isfinite(numbers).all():
        return None
    if numbers.size > rank:
        numbers = numbers[-rank:]
    return (default,) * (rank - numbers.size) + tuple(float(n) for n in numbers)


def choose(path: str, arrays: Sequence[ArrayInfo], kind: Kind) -> ArrayInfo:
    """Return the array that is meant where the address names none.

    That is ``volumes/raw`` or ``volumes/labels/neuron_ids`` of CREMI's layout, or the only array that could be a volume
    (for labels: the only one of integers).

    Raises
    ------
    InputError
        If there is none, or several.
    """
    for info in arrays:
        if info.dataset == _PREFERRED[kind]:
            return info
    volumes = [a for a in arrays if a.axes]
    if kind == "labels" and len(volumes) > 1:
        volumes = [a for a in volumes if np.dtype(a.dtype).kind in "ui"]
    if len(volumes) == 1:
        return volumes[0]
    if not arrays:
        raise InputError(f"{path} holds no array, so there is nothing to read; check the path")
    raise InputError(
        f"{path} holds {len(arrays)} arrays and none was chosen; append ':DATASET', one of "
        f"{names(usable(arrays, kind))}"
    )


def usable(arrays: Sequence[ArrayInfo], kind: Kind) -> Sequence[ArrayInfo]:
    """Return of the arrays of a container those that somebody may have meant; all of them where there are none.

    Levels of a pyramid are only there as the finest. Where some arrays lie in a folder ``labels``, labels are those.
    """
    shapes = {array.dataset: array.shape for array in arrays}
    found = []
    for array in arrays:
        folder, _, last = array.dataset.rpartition("/")
        finest = shapes.get(f"{folder}/0", ()) if last.isdigit() else ()
        coarse = len(finest) == len(array.shape) and array.shape != finest and all(map(le, array.shape, finest))
        if array.axes and not coarse and array.dataset.split("/")[0] != INTERNAL:
            found.append(array)
    if kind == "labels":
        found = [array for array in found if np.dtype(array.dtype).kind in "ui"]
        found = [array for array in found if "labels" in array.dataset.split("/")] or found
    elif kind == "image":
        found = [array for array in found if array.dtype in IMAGE_DTYPES] or found
    return found or arrays


def missing_dataset(path: str, dataset: str, arrays: Sequence[ArrayInfo], kind: Kind) -> InputError:
    """Return the error for a dataset that is not there; it lists those that are and may be meant."""
    if not arrays:
        return InputError(f"{path} has no dataset {dataset!r} and holds no array; check the path")
    if not arrays[0].dataset:
        return InputError(f"{path} is one array and has no dataset {dataset!r}; leave ':{dataset}' away")
    arrays = usable(arrays, kind)
    meant = _meant(dataset, arrays)
    hint = f"did you mean {meant!r}? " if meant else ""
    return InputError(f"{path} has no dataset {dataset!r}; {hint}choose one of {names(arrays)}")


def _meant(dataset: str, arrays: Sequence[ArrayInfo]) -> str:
    """Return the array, or the image, of this name that lies in another folder, or whose name is near; else nothing."""
    known = [array.dataset.removesuffix("/0") for array in arrays]
    inside = [name for name in known if name.endswith(f"/{dataset}")]
    return next(iter(inside or difflib.get_close_matches(dataset, known, n=1, cutoff=0.8)), "")


def names(arrays: Sequence[ArrayInfo], most: int = 10) -> str:
    """Return the names of the arrays with shape and dtype, at most ten, on one line."""
    shown = [f"{a.dataset or '(root)'} ({' x '.join(map(str, a.shape))} {a.dtype})" for a in arrays[:most]]
    more = len(arrays) - most
    return ", ".join(shown) + (f" and {more} more" if more > 0 else "")
