"""Writing OME-Zarr 0.4 on zarr v2: copies, array by array, of images that are stored as 0.5, for older viewers.

Version 0.4 has no shards, so every chunk is an object. Metadata that make an image out of arrays come last, so an
interrupted copy is no image; it is repeated at the next try.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numcodecs  # type: ignore[import-untyped]
import numpy as np
import zarr

from vimvol.errors import InputError, OutputExistsError
from vimvol.geometry import Index
from vimvol.io.arrays import find_group, put_attributes
from vimvol.io.errors import storage_errors
from vimvol.io.formats import ngff
from vimvol.io.storage import join, make_node_durable, open_store

VERSION = "0.4"
"""Version of OME-Zarr that is written here."""


def levels_of(url: str) -> list[tuple[str, zarr.Array[Any]]]:
    """Return path and array of every level of an image, the full resolution first.

    Raises
    ------
    InputError
        If there is no image.
    StorageError
        If it cannot be read.
    """
    with storage_errors(f"opening {url}"):
        group = find_group(url)
        found = [] if group is None else ngff.levels(group.attrs)
        arrays = [] if group is None else [(level.path, group.get(level.path)) for level in found]
    whole = [(path, array) for path, array in arrays if isinstance(array, zarr.Array)]
    if not found or len(whole) != len(found):
        raise InputError(f"{url} is no OME-Zarr image, or levels are missing, so it cannot be copied; check the path")
    return whole


def missing_levels(source: str, target: str, *, chunk: Sequence[int], dtype: str | None = None) -> list[str]:
    """Return the paths of the levels of an image that its copy has no array of. Nothing is written.

    Parameters
    ----------
    source
        Path or URL of an OME-Zarr image.
    target
        Path or URL of the copy, which need not exist.
    chunk
        Voxels (z, y, x) of a chunk, clipped to each level; chunks hold one channel.
    dtype
        Name of a numpy dtype; none: that of the source.

    Raises
    ------
    InputError
        If ``source`` is no image.
    OutputExistsError
        If an array of another shape, dtype or chunk is there.
    StorageError
        If something cannot be read.
    """
    missing = []
    for path, array in levels_of(source):
        with storage_errors(f"opening {join(target, path)}"):
            group = find_group(target)
            there = None if group is None else group.get(path)
        if not isinstance(there, zarr.Array):
            missing.append(path)
            continue
        shape, kind, chunks = _layout(array, chunk, dtype)
        if (there.shape, there.dtype, there.chunks) != (shape, kind, chunks) or there.metadata.zarr_format != 2:
            raise OutputExistsError(
                f"{join(target, path)} is there as {there.dtype} of shape {there.shape} in chunks of {there.chunks}, "
                f"and {kind} of {shape} in {chunks} is wanted; choose another path, or remove it"
            )
    return missing


def create_copy(source: str, target: str, *, chunk: Sequence[int], dtype: str | None = None) -> None:
    """Create the arrays of a copy of an image, empty; those that are there already keep their data.

    Parameters and errors are those of `missing_levels`.

    Raises
    ------
    StorageError
        If the copy cannot be written.
    """
    missing = missing_levels(source, target, chunk=chunk, dtype=dtype)
    for path, array in levels_of(source):
        if path not in missing:
            continue
        shape, kind, chunks = _layout(array, chunk, dtype)
        with storage_errors(f"creating {join(target, path)}"):
            if find_group(target) is None:
                zarr.create_group(open_store(target, read_only=False), zarr_format=2)
            zarr.create_array(
                open_store(target, read_only=False),
                name=path,
                shape=shape,
                dtype=kind,
                chunks=chunks,
                # what every reader of zarr v2 knows; shuffling makes labels larger
                compressors=numcodecs.Blosc("zstd", clevel=1, shuffle=numcodecs.Blosc.NOSHUFFLE),
                filters=None,
                fill_value=0,
                zarr_format=2,
                chunk_key_encoding={"name": "v2", "separator": "/"},
            )
            make_node_durable(join(target, path))


def reopen_copy(target: str) -> None:
    """Take the metadata away that make the copy an image, before its arrays change; nothing where it is none yet."""
    with storage_errors(f"writing {target}"):
        group = find_group(target)
        if group is not None and "multiscales" in group.attrs:
            put_attributes(target, {}, without=("multiscales",))


def finish_copy(source: str, target: str) -> None:
    """Write the metadata that make the copy an image: those of the source, in the form of version 0.4."""
    with storage_errors(f"writing {target}"):
        group = find_group(source)
        attributes: Mapping[str, Any] = {} if group is None else ngff.ome(group.attrs)
        found: dict[str, Any] = {
            "multiscales": [{**multiscale, "version": VERSION} for multiscale in attributes["multiscales"]]
        }
        if "image-label" in attributes:
            found["image-label"] = {**attributes["image-label"], "version": VERSION}
        put_attributes(target, found, zarr_format=2)


def list_labels(target: str, names: Sequence[str]) -> list[str]:
    """Add names to the list of the labels in ``target/labels``; return all that are listed."""
    url = join(target, "labels")
    with storage_errors(f"writing {url}"):
        group = find_group(url)
        listed = [] if group is None else ngff.label_names(group.attrs)
        listed += [name for name in names if name not in listed]
        put_attributes(url, {"labels": listed}, zarr_format=2)
    return listed


def _layout(array: zarr.Array[Any], chunk: Sequence[int], dtype: str | None) -> tuple[Index, np.dtype[Any], Index]:
    """Return shape, dtype and chunk of the copy of an array."""
    front = (1,) * (array.ndim - 3)
    clipped = tuple(min(c, s) for c, s in zip(chunk, array.shape[-3:], strict=True))
    return array.shape, np.dtype(dtype or array.dtype), front + clipped
