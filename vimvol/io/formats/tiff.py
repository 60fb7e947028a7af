"""TIFF: a stack in one file, or a folder with one file a slice."""

from __future__ import annotations

import itertools
import math
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import tifffile
from numpy.typing import NDArray

from vimvol.address import is_url
from vimvol.errors import InputError, VimvolError
from vimvol.geometry import AXES
from vimvol.io.errors import one_line
from vimvol.io.formats.base import ArrayInfo, Backend, Kind, choose, missing_dataset, native_dtype, natural
from vimvol.io.formats.ngff import nanometers

_SUFFIXES = {".tif", ".tiff"}
_MAGIC = {b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"}


def matches_file(path: str) -> bool:
    """Tell whether a file starts as a TIFF or is named as one."""
    if is_url(path) or not Path(path).is_file():
        return False
    if Path(path).suffix.lower() in _SUFFIXES:
        return True
    with Path(path).open("rb") as file:
        return file.read(4) in _MAGIC


def arrays_file(path: str) -> list[ArrayInfo]:
    """List the image series of a file: one with an empty name, or several by their numbers."""
    with _opened(path) as file:
        single = len(file.series) == 1
        return [_info(path, file, series, "" if single else str(i)) for i, series in enumerate(file.series)]


def find_file(path: str, dataset: str, kind: Kind) -> ArrayInfo:
    """Return the series that is meant; see `vimvol.io.formats.base.Opener`."""
    inside = arrays_file(path)
    if not dataset:
        return choose(path, inside, kind)
    for info in inside:
        if info.dataset == dataset:
            return info
    raise missing_dataset(path, dataset, inside, kind)


def open_file(path: str, dataset: str) -> Backend:
    """Open a series for reading: mapped into memory where it lies in one piece, else decoded page by page."""
    file = tifffile.TiffFile(path)
    series = file.series[int(dataset or 0)]
    if series.dataoffset is not None:
        file.close()
        dtype = series.dtype.newbyteorder(file.byteorder)
        return _Mapped(path, dtype, series.dataoffset, tuple(series.shape))
    file.filehandle.set_lock(True)
    outer = series.shape[: series.ndim - series.keyframe.ndim]
    pages = _Pages(outer, lambda index, inner: _cut(series.pages[index], inner))
    weakref.finalize(pages, file.close)
    return pages


def state_file(path: str, dataset: str, portable: bool) -> str:  # noqa: ARG001 - one file holds all series
    """Return size and time of the file."""
    stat = Path(path).stat()
    return f"{stat.st_size}:{stat.st_mtime_ns}"


def matches_folder(path: str) -> bool:
    """Tell whether a folder holds TIFF files."""
    return not is_url(path) and Path(path).is_dir() and bool(_slices(path))


def arrays_folder(path: str) -> list[ArrayInfo]:
    """List the one volume of a folder, after a look at the header of every file.

    Raises
    ------
    InputError
        If a file holds more than one page, or differs from the first in shape or dtype.
    """
    files = _slices(path)
    infos = [arrays_file(str(file)) for file in files]
    stacks = [file for file, inside in zip(files, infos, strict=True) if not _is_slice(inside)]
    if stacks:
        raise InputError(_stacks_text(path, stacks, len(files) - len(stacks)))
    (first,) = infos[0]
    for file, (info,) in zip(files, infos, strict=True):
        if (info.shape, info.dtype) != (first.shape, first.dtype):
            raise InputError(
                f"{file} is {_sized(info)} but {files[0].name} is {_sized(first)}, so they are no stack; "
                "make all slices equal, or move other files away"
            )
    return [
        replace(
            first,
            axes="z" + first.axes,
            shape=(len(files), *first.shape),
            scale=None if first.scale is None else (first.scale[first.axes.index("y")], *first.scale),
            scale_known=False,  # no file tells how far the next is away
            chunks=None if first.chunks is None else (1, *first.chunks),
        )
    ]


def find_folder(path: str, dataset: str, kind: Kind) -> ArrayInfo:  # noqa: ARG001 - there is one array
    """Return the volume of a folder; see `vimvol.io.formats.base.Opener`."""
    inside = arrays_folder(path)
    if dataset:
        raise InputError(f"{path} is a folder of TIFF slices and has no dataset {dataset!r}; leave ':{dataset}' away")
    return inside[0]


def open_folder(path: str, dataset: str) -> Backend:  # noqa: ARG001 - there is one array
    """Open a folder for reading; each slice is opened when it is read."""
    files = _slices(path)

    def cut(index: int, inner: tuple[int | slice, ...]) -> NDArray[Any]:
        return np.asarray(open_file(str(files[index]), "")[inner])

    return _Pages((len(files),), cut)


def state_folder(path: str, dataset: str, portable: bool) -> str:  # noqa: ARG001 - there is one array
    """Return name, size and time of every file."""
    stats = [(file.name, file.stat()) for file in _slices(path)]
    return ";".join(f"{name}:{stat.st_size}:{stat.st_mtime_ns}" for name, stat in stats)


@dataclass(frozen=True)
class _Mapped:
    """An array that lies in a file in one piece; mapped anew for each part, so that no pages stay in memory."""

    path: str
    dtype: np.dtype[Any]
    offset: int
    shape: tuple[int, ...]

    def __getitem__(self, selection: tuple[int | slice, ...], /) -> NDArray[Any]:
        mapped = np.memmap(self.path, dtype=self.dtype, mode="r", offset=self.offset, shape=self.shape)
        return np.array(mapped[selection])


@dataclass(frozen=True)
class _Pages:
    """Pages along the outer axes, in C order; ``cut(page, selection)`` reads a part of one."""

    outer: tuple[int, ...]
    cut: Callable[[int, tuple[int | slice, ...]], NDArray[Any]]

    def __getitem__(self, selection: tuple[int | slice, ...], /) -> NDArray[Any]:
        along, inner = selection[: len(self.outer)], selection[len(self.outer) :]
        wanted = [[s] if isinstance(s, int) else range(*s.indices(n)) for s, n in zip(along, self.outer, strict=True)]
        kept = tuple(len(w) for w, s in zip(wanted, along, strict=True) if isinstance(s, slice))
        numbers = (
            sum(i * stride for i, stride in zip(index, self._strides, strict=True))
            for index in itertools.product(*wanted)
        )
        parts = [self.cut(number, inner) for number in numbers]
        return np.stack(parts).reshape(*kept, *parts[0].shape)

    @property
    def _strides(self) -> list[int]:
        return [math.prod(self.outer[i + 1 :]) for i in range(len(self.outer))]


def _cut(page: Any, inner: tuple[int | slice, ...]) -> NDArray[Any]:  # noqa: ANN401 - tifffile's page or frame
    """Decode the part of a page; only its strips or tiles that are needed, where the page is (y, x) or (y, x, c)."""
    keyframe = page.keyframe
    ys, xs = inner[0], inner[1]
    if keyframe.axes not in ("YX", "YXS") or not isinstance(ys, slice) or not isinstance(xs, slice):
        return np.asarray(page.asarray()[inner])
    y0, y1, _ = ys.indices(keyframe.shape[0])
    x0, x1, _ = xs.indices(keyframe.shape[1])
    out = np.zeros((y1 - y0, x1 - x0, keyframe.samplesperpixel), keyframe.dtype)
    high, wide = keyframe.chunks[:2]
    across = -(-keyframe.shape[1] // wide)
    for row, column in itertools.product(range(y0 // high, -(-y1 // high)), range(x0 // wide, -(-x1 // wide))):
        _paste(page, row * across + column, out, y0, x0)
    flat = out if keyframe.axes == "YXS" else out[..., 0]
    return np.asarray(flat[(slice(None), slice(None), *inner[2:])])


def _paste(page: Any, segment: int, out: NDArray[Any], y0: int, x0: int) -> None:  # noqa: ANN401
    """Decode a strip or tile and copy what lies inside ``out``, whose first voxel is (y0, x0) of the page."""
    handle = page.parent.filehandle
    with handle.lock:
        handle.seek(page.dataoffsets[segment])
        data = handle.read(page.databytecounts[segment])
    decoded, (_, _, y, x, _), shape = page.keyframe.decode(data, segment, jpegtables=page.jpegtables)
    if decoded is None:  # a segment that was never written
        return
    y1, x1 = min(y + shape[1], y0 + out.shape[0]), min(x + shape[2], x0 + out.shape[1])
    top, left = max(y, y0), max(x, x0)
    out[top - y0 : y1 - y0, left - x0 : x1 - x0] = decoded[0, top - y : y1 - y, left - x : x1 - x]


@contextmanager
def _opened(path: str) -> Iterator[Any]:
    try:
        with tifffile.TiffFile(path) as file:
            if not file.series:
                raise InputError(f"{path} holds no image; check how it was written")
            yield file
    except (OSError, VimvolError, MemoryError):
        raise
    except Exception as error:  # a damaged file makes tifffile fail in any way
        raise InputError(f"{path} is no intact TIFF ({one_line(error)}); copy it again or write it anew") from None


def _info(path: str, file: Any, series: Any, dataset: str) -> ArrayInfo:  # noqa: ANN401 - tifffile's objects
    if series.dataoffset is not None and series.dataoffset + series.nbytes > Path(path).stat().st_size:
        raise InputError(f"{path} is shorter than the {series.nbytes} bytes of its images; copy it again")
    axes = _axes(series.axes, series.shape)
    size = _ome_size(file) if file.is_ome else _imagej_size(file)
    page = tuple(series.keyframe.chunks)
    return ArrayInfo(
        dataset=dataset,
        axes=axes,
        shape=tuple(series.shape),
        dtype=native_dtype(series.dtype),
        scale=tuple(size.get(a, size["y"] if a == "z" else 1.0) for a in axes) if size else None,
        scale_known=bool(size) and ("z" in size or "z" not in axes),
        chunks=(1,) * (series.ndim - len(page)) + page,
    )


MOST_CHANNELS = 4
"""More pages that are called channels are slices: so writers call what they were told nothing about."""


def _axes(stored: str, shape: Sequence[int]) -> str:
    """Translate tifffile's axes; pages of unknown kind, or along time, are slices where no others are."""
    pages, samples = stored.rstrip("SYX"), stored[len(stored.rstrip("SYX")) :].replace("S", "C")
    if pages in ("I", "Q", "T") or (pages == "C" and shape[0] > MOST_CHANNELS):
        pages = "Z"
    axes = (pages + samples).lower()
    usable = len(set(axes)) == len(axes) and set(axes) <= set(AXES)
    return axes if usable else ""


def _imagej_size(file: Any) -> dict[str, float]:  # noqa: ANN401
    """Return nm by axis from ImageJ's unit, spacing and pixels per unit; empty where the unit is no length."""
    metadata = file.imagej_metadata or {}
    unit = nanometers(str(metadata.get("unit", "")).replace("\\u00B5", "µ"))
    if unit is None:
        return {}
    size = {}
    for axis, pixels_per_unit in zip("xy", file.pages[0].get_resolution(), strict=True):
        if pixels_per_unit > 0:
            size[axis] = unit / pixels_per_unit
    if isinstance(metadata.get("spacing"), int | float) and metadata["spacing"] > 0:
        size["z"] = unit * float(metadata["spacing"])
    return size if {"x", "y"} <= size.keys() else {}


def _ome_size(file: Any) -> dict[str, float]:  # noqa: ANN401
    """Return nm by axis from the physical sizes of OME-XML, in micrometers by default."""
    try:
        root = ElementTree.fromstring(file.ome_metadata)
    except ElementTree.ParseError:
        return {}
    pixels = root.find(".//{*}Pixels")
    given = {} if pixels is None else pixels.attrib
    size: dict[str, float] = {}
    for axis in "xyz":
        name = f"PhysicalSize{axis.upper()}"
        unit = nanometers(given.get(name + "Unit", "µm"))
        if unit is not None and name in given:
            size[axis] = float(given[name]) * unit
    return size if {"x", "y"} <= size.keys() else {}


def _slices(path: str) -> list[Path]:
    files = (f for f in Path(path).iterdir() if f.suffix.lower() in _SUFFIXES and not f.name.startswith("."))
    return sorted(files, key=lambda f: natural(f.name))


def _is_slice(inside: Sequence[ArrayInfo]) -> bool:
    """Tell whether a file that holds this is one slice."""
    return len(inside) == 1 and inside[0].axes in ("yx", "yxc")


def _stacks_text(path: str, stacks: Sequence[Path], slices: int) -> str:
    """Return why a folder with files of several pages is no stack of slices, and what to do."""
    names = f"{stacks[0].name}{f' and {len(stacks) - 1} more' if len(stacks) > 1 else ''}"
    hold = "hold" if len(stacks) > 1 else "holds"
    text = f"{names} in {path} {hold} more than one slice, so the folder is no stack of slices"
    file = f"give the path of one file, as {stacks[0]}"
    if not slices:
        return f"{text}; {file}"
    single = "the file that is one slice" if slices == 1 else f"the {slices} files that are one slice each"
    return f"{text}; {file}, or, to segment {single}, move the other{'s' if len(stacks) > 1 else ''} elsewhere"


def _sized(info: ArrayInfo) -> str:
    return f"{' x '.join(map(str, info.shape))} {info.dtype}"
