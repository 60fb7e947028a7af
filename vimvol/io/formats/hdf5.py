"""HDF5 in CREMI's layout: ``resolution`` and ``offset`` in nm, (z, y, x), ``volumes/raw`` and ``volumes/labels``."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from vimvol.address import is_url
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

_SUFFIXES = {".h5", ".hdf5", ".hdf", ".he5"}
_SAMPLES, _SAMPLE = 256, 1 << 17
"""Parts of a large dataset that `state` looks at, and bytes of each; of one with fewer bytes it looks at all."""


def matches(path: str) -> bool:
    """Tell whether a file has HDF5's signature or is named as such a file."""
    return not is_url(path) and Path(path).is_file() and (Path(path).suffix in _SUFFIXES or h5py.is_hdf5(path))


def find(path: str, dataset: str, kind: Kind) -> ArrayInfo:
    """Return the array that is meant; see `vimvol.io.formats.base.Opener`."""
    wanted = dataset.strip("/")
    if wanted:
        with _open(path) as file:
            node = file.get(wanted)
            if isinstance(node, h5py.Dataset) and node.shape is None:
                raise InputError(f"{path}:{wanted} is an empty dataset without a shape; choose one that holds an array")
            if isinstance(node, h5py.Dataset):
                return _info(wanted, node)
    inside = [a for a in arrays(path) if not wanted or a.dataset.startswith(wanted + "/")]
    if wanted and not inside:
        raise missing_dataset(path, dataset, arrays(path), kind)
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


def state(path: str, dataset: str, portable: bool) -> str:  # noqa: ARG001 - it is the same on any disk
    """Hash layout and place of a dataset in its file, and its stored bytes, of a large one a sample of these.

    Other datasets may come and go. Where the stored bytes cannot be told, as those of a virtual dataset, it is size and
    time of the file.
    """
    with _open(path) as file:
        node = file.get(dataset)
        stored = _stored(node) if isinstance(node, h5py.Dataset) and not file.userblock_size else None
        if stored is None:
            stat = Path(path).stat()
            return f"{stat.st_size}:{stat.st_mtime_ns}"
        layout = (node.shape, node.dtype.str, node.chunks, node.compression, node.compression_opts, node.shuffle)
        digest = hashlib.sha256(f"{layout} {node.scaleoffset} {node.fillvalue!r}".encode())
    digest.update(stored.tobytes())
    with Path(path).open("rb") as plain:
        for offset, size in _sample(stored[:, 0], stored[:, 1]):
            plain.seek(offset)
            digest.update(plain.read(size))
    return digest.hexdigest()


def _stored(node: Any) -> NDArray[np.int64] | None:  # noqa: ANN401 - h5py has no types
    """Return offset and bytes of every piece of a dataset in its file (n, 2 and more); none where nothing tells."""
    if node.is_virtual or node.external:
        return None
    layout = node.id.get_create_plist().get_layout()
    pieces: list[tuple[int, ...]] = []
    if layout == h5py.h5d.CHUNKED:
        node.id.chunk_iter(lambda at: pieces.append((at.byte_offset, at.size, at.filter_mask, *at.chunk_offset)))
    elif layout != h5py.h5d.CONTIGUOUS:
        return None
    elif (offset := node.id.get_offset()) is not None:
        pieces.append((offset, node.id.get_storage_size()))
    return np.array(sorted(pieces), np.int64).reshape(len(pieces), -1) if pieces else np.zeros((0, 2), np.int64)


def _sample(offsets: NDArray[np.int64], sizes: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Yield offset and bytes of the pieces, as far as they are few; else of parts spread evenly over all bytes."""
    ends = np.cumsum(sizes)
    total = int(sizes.sum())
    if total <= _SAMPLES * _SAMPLE:
        yield from zip(offsets.tolist(), sizes.tolist(), strict=True)
        return
    for number in range(_SAMPLES):
        place = number * (total - 1) // (_SAMPLES - 1)
        piece = int(np.searchsorted(ends, place, side="right"))
        size = int(sizes[piece])
        begin = max(0, min(place - int(ends[piece]) + size, size - _SAMPLE))
        yield int(offsets[piece]) + begin, min(size, _SAMPLE)


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
