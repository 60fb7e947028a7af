"""From an address, ``PATH[:DATASET]``, to a volume."""

from __future__ import annotations

import contextlib
import itertools
import os
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np

from vimvol.address import absolute, check_there, is_url, parse_address, with_format, without_format
from vimvol.errors import InputError
from vimvol.geometry import USABLE_AXES, are_axes
from vimvol.io.errors import as_given, storage_errors
from vimvol.io.formats import OPENERS
from vimvol.io.formats.base import IMAGE_DTYPES, ArrayInfo, Kind, Opener, natural
from vimvol.io.volume import Volume

Number = TypeVar("Number", int, float)

SPACE = "zyx"
MOST_LOOKED_AT, MOST_TOLD = 1000, 10
"""Entries of a folder that is no volume which are looked at for volumes, and volumes that are told."""


@as_given()
def open_volume(
    address: str | os.PathLike[str],
    *,
    axes: str | None = None,
    voxel_size: Sequence[float] | None = None,
    prefer: Kind = "image",
) -> Volume:
    """Open a volume of any supported format.

    Parameters
    ----------
    address
        ``PATH[:DATASET]``. Without DATASET: of an OME-Zarr image, a precomputed volume or an N5 group of scales the
        finest; of CREMI's layout ``volumes/raw``; else the only array. URLs are zarr, but for those with ``.n5`` in
        them, and those after ``n5://`` or ``precomputed://``, e.g. ``precomputed://gs://bucket/path``.
    axes
        Names of the stored axes, slowest first, e.g. ``"zyx"``; none: from the metadata, else by rank: ``yx``, ``zyx``,
        ``czyx``, ``tczyx``.
    voxel_size
        nm along (z, y, x); none: from the metadata, else 1 and `Volume.voxel_size_known` is false.
    prefer
        ``"image"`` wants uint8, uint16 or float32. ``"labels"`` wants integers, and without DATASET takes of an
        OME-Zarr image its only labels or those named ``segmentation``, of CREMI's layout
        ``volumes/labels/neuron_ids``. ``"mask"`` takes booleans and all numbers.

    Raises
    ------
    InputError
        If there is no such path or dataset, none was chosen of several, the format is unknown, the file is damaged, or
        axes, shape, voxel size or dtype do not fit, or the right to read it is missing.
    StorageError
        If the storage fails.
    """
    address = os.fspath(address)
    check_there(address)
    path, dataset = parse_address(address)
    path, name, opener = _located(absolute(path))
    with storage_errors(f"opening {address}"):
        info = opener.find(path, dataset, prefer)
    where = f"{path}:{info.dataset}" if info.dataset else path
    axes = _checked_axes(where, info, axes)
    _check_dtype(where, info.dtype, prefer)
    size, known = _voxel_size(where, info, axes, voxel_size)
    stored = dict(zip(axes, info.shape, strict=True))
    return Volume(
        url=path,
        dataset=info.dataset,
        format=name,
        axes=axes,
        shape=(stored.get("z", 1), stored["y"], stored["x"]),
        channels=stored.get("c", 1),
        dtype=info.dtype,
        voxel_size=size,
        offset=_offset(info, axes),
        voxel_size_known=known,
        chunks=None if info.chunks is None else _pick(axes, info.chunks, 1),
        shards=None if info.shards is None else _pick(axes, info.shards, 1),
        opening=uuid.uuid4().hex,
    )


@as_given()
def describe(address: str) -> list[ArrayInfo]:
    """List the arrays of a container; with DATASET, those at or below it.

    Raises
    ------
    InputError
        If there is no such path or dataset, the format is unknown, the file is damaged, or the right to read it is
        missing.
    StorageError
        If the storage fails.
    """
    check_there(address)
    path, dataset = parse_address(address)
    path, _, opener = _located(absolute(path))
    with storage_errors(f"listing {address}"):
        arrays = opener.arrays(path)
        if not dataset and not arrays and is_url(path):
            raise InputError(f"{path} is no array, and what is below cannot be listed; append ':DATASET', or check it")
        if not dataset:
            return arrays
        below = [a for a in arrays if a.dataset == dataset or a.dataset.startswith(dataset + "/")]
        return below or [opener.find(path, dataset, "image" if is_url(path) else "mask")]  # of all kinds that are there


def _located(path: str) -> tuple[str, str, Opener]:
    """Return path or URL as a volume keeps it, and name and opener of its format.

    A path is kept without the name of a format before it, so that it is told from others as a path is; a URL with it,
    where it is not zarr.
    """
    plain = without_format(path)
    wanted = path.removesuffix(plain).removesuffix("://")
    remote = is_url(plain)
    with storage_errors(f"opening {path}"):
        for name, opener in OPENERS.items():
            if wanted in ("", name) and opener.matches(path if remote else plain):
                return (with_format(name, plain) if remote else plain), name, opener
    if wanted:
        raise InputError(f"{plain} is not of the format {wanted}; leave '{wanted}://' away, or check the path")
    raise InputError(_unknown_text(path))


def _unknown_text(path: str) -> str:
    """Return why a path of no known format cannot be opened, and what of a folder can be instead."""
    known = f"give one of: {', '.join(OPENERS)}"
    if not Path(path).is_dir():
        return f"{path} is of no known format; {known}"
    with storage_errors(f"listing {path}"):
        inside = sorted((each.name for each in itertools.islice(Path(path).iterdir(), MOST_LOOKED_AT)), key=natural)
    if not inside:
        return f"{path} is an empty folder, so there is nothing to open; {known}"
    found = []
    for name in inside:
        with contextlib.suppress(OSError):  # of what may not be read
            if any(opener.matches(f"{path}/{name}") for opener in OPENERS.values()):
                found.append(name)
    if not found:
        return f"{path} is of no known format, nor is anything that lies in it; {known}"
    more = f" and {len(found) - MOST_TOLD} more" if len(found) > MOST_TOLD else ""
    if len(found) == 1:
        return f"{path} is of no known format itself; in it lies {found[0]}; give {path}/{found[0]}"
    return (
        f"{path} is of no known format itself; in it lie {', '.join(found[:MOST_TOLD])}{more}; give the path of one, "
        f"as {path}/{found[0]}"
    )


def _checked_axes(where: str, info: ArrayInfo, given: str | None) -> str:
    """Return the axes that hold, the given ones first."""
    rank = len(info.shape)
    axes = info.axes if given is None else given.lower()
    shape = " x ".join(map(str, info.shape))
    if given is not None and len(given) != rank:
        raise InputError(
            f"axes {given!r} name {len(given)} axes, but {where} has {rank} ({shape}); give one letter for each"
        )
    if not axes:
        raise InputError(
            f"{where} has the shape {shape} and is no volume; choose an array of 2 to 5 axes, or name its axes"
        )
    if not are_axes(axes):
        raise InputError(f"axes {axes!r} of {where} do not fit; use {USABLE_AXES}")
    stored = dict(zip(axes, info.shape, strict=True))
    if stored.get("t", 1) > 1:
        raise InputError(
            f"{where} has {stored['t']} time points (axes {axes}), not one volume; extract one, or name the axes"
        )
    if 0 in info.shape:
        raise InputError(f"{where} has the shape {shape} and holds no voxel; check how it was written")
    return axes


def _check_dtype(where: str, dtype: str, kind: Kind) -> None:
    if kind == "labels" and np.dtype(dtype).kind not in "ui":
        raise InputError(f"{where} is {dtype}, but labels are integers; choose the labels or convert them to uint64")
    if kind == "image" and dtype not in IMAGE_DTYPES:
        target = "float32" if np.dtype(dtype).kind == "f" else "uint8 or uint16"
        wide = np.dtype(dtype).kind in "ui" and np.dtype(dtype).itemsize > 2
        advice = "if these are labels, give the raw data; if they are intensities, " if wide else ""
        raise InputError(
            f"{where} is {dtype}, but an image is {', '.join(IMAGE_DTYPES)}; {advice}convert it to {target}"
        )


def _voxel_size(
    where: str, info: ArrayInfo, axes: str, given: Sequence[float] | None
) -> tuple[tuple[float, float, float], bool]:
    if given is not None:
        if len(given) != 3 or not all(0 < v < float("inf") for v in given):
            raise InputError(
                f"voxel size {tuple(given)} for {where} does not fit; give three positive numbers, nm along z,y,x"
            )
        return (float(given[0]), float(given[1]), float(given[2])), True
    found = _in_space(info, axes, info.scale)
    if not {"y", "x"} <= found.keys():
        return (1.0, 1.0, 1.0), False
    known = info.scale_known and ("z" in found or "z" not in axes)
    return (found.get("z", found["y"]), found["y"], found["x"]), known


def _offset(info: ArrayInfo, axes: str) -> tuple[float, float, float]:
    found = _in_space(info, axes, info.translation)
    return found.get("z", 0.0), found.get("y", 0.0), found.get("x", 0.0)


def _in_space(info: ArrayInfo, axes: str, values: Sequence[float] | None) -> dict[str, float]:
    """Return the values of z, y, x where the axes that hold may not be those of the metadata.

    These go in their order to as many axes of space; else each to its place, and where the metadata have a channel or
    time there is none.
    """
    if values is None:
        return {}
    named = info.axes or axes
    space = [axis for axis in axes if axis in SPACE]
    there = [value for name, value in zip(named, values, strict=True) if name in SPACE]
    if len(space) == len(there):
        return dict(zip(space, there, strict=True))
    places = zip(axes, named, values, strict=True)
    return {axis: value for axis, name, value in places if axis in SPACE and name in SPACE}


def _pick(axes: str, values: Sequence[Number], default: Number) -> tuple[Number, Number, Number]:
    by_axis = dict(zip(axes, values, strict=True))
    return by_axis.get("z", default), by_axis["y"], by_axis["x"]
