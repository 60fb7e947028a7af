"""HDF5 in CREMI's layout: ``resolution`` and ``offset`` in nm, (z, y, x), ``volumes/raw`` and ``volumes/labels``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py

from vimvol.errors import InputError
from vimvol.io.errors import one_line
from vimvol.io.formats.base import (
    ArrayInfo,
    Backend,
    Kind,
    attribute_geometry,
    choose,
    guess_axes,
    missing_dataset,
    native_dtype,
)
from vimvol.io.storage import is_url

_SUFFIXES = {".h5", ".hdf5", ".hdf", ".he5"}


def matches(path: str) -> bool:
    """Tell whether a file has HDF5's signature or is named as such a file."""
    return not is_url(path) and Path(path).is_file() and (Path(path).suffix in _SUFFIXES or h5py.is_hdf5(path))


def find(path: str, dataset: str, kind: Kind) -> ArrayInfo:
    """Return the array that is meant; see `vimvol.io.formats.base.Opener`."""
    wanted = dataset.strip("/")
    if wanted:
        with _open(path) as file:
            node = file.get(wanted)
            if isinstance(node, h5py.Dataset):
                return _info(wanted, node)
    inside = [a for a in arrays(path) if not wanted or a.dataset.startswith(wanted + "/")]
    if wanted and not inside:
        raise missing_dataset(path, dataset, arrays(path))
    return choose(f"{path}:{wanted}" if wanted else path, inside, kind)


def arrays(path: str) -> list[ArrayInfo]:
    """List the numeric datasets of a file in order of their names."""
    found: list[ArrayInfo] = []

    def visit(name: str, node: Any) -> None:  # noqa: ANN401 - h5py has no types
        if isinstance(node, h5py.Dataset) and node.dtype.kind in "uifb" and node.ndim:
            found.append(_info(name, node))

    with _open(path) as file:
        file.visititems(visit)
    return found


def open_array(path: str, dataset: str) -> Backend:
    """Open a dataset for reading; the file stays open as long as the dataset is referred to."""
    backend: Backend = _open(path)[dataset]
    return backend


def state(path: str, dataset: str) -> str:  # noqa: ARG001 - one file holds all datasets
    """Return size and time of the file."""
    stat = Path(path).stat()
    return f"{stat.st_size}:{stat.st_mtime_ns}"


def _open(path: str) -> h5py.File:
    try:
        return h5py.File(path, "r", locking="best-effort")  # many cluster file systems have no locks
    except OSError as error:
        if error.errno is not None:  # the system's errors; those of the file format have no number
            raise
        raise InputError(f"{path} is no intact HDF5 file ({one_line(error)}); copy it again or write it anew") from None


def _info(name: str, node: Any) -> ArrayInfo:  # noqa: ANN401 - h5py has no types
    axes = guess_axes(node.ndim)
    scale, translation = attribute_geometry(node.attrs, axes)
    return ArrayInfo(
        dataset=name,
        axes=axes,
        shape=tuple(node.shape),
        dtype=native_dtype(node.dtype),
        scale=scale,
        translation=translation,
        scale_known=scale is not None,
        chunks=None if node.chunks is None else tuple(node.chunks),
    )
