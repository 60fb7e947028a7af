"""N5: a folder, or what is behind a URL, of groups and arrays with ``attributes.json``; x first."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from vimvol.address import is_url, without_format
from vimvol.errors import InputError, VimvolError
from vimvol.io.formats import stores
from vimvol.io.formats.base import ArrayInfo, Backend, Kind, choose, missing_dataset, natural
from vimvol.io.formats.files import entries, stamps
from vimvol.io.formats.n5_metadata import Chain, geometry
from vimvol.io.storage import NODE_METADATA, join

_ATTRIBUTES = "attributes.json"
_TELLING = {"n5", "dimensions", "multiscales", "pixelResolution", "downsamplingFactors", "scales", "painteraData"}
"""Attributes of which N5 containers, their groups and arrays have at least one."""
_DTYPES = {f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)} | {"float32", "float64"}
_MOST_NODES = 1000
"""Arrays and groups that a listing visits at most."""
_MOST_LEVELS = 32
_COMPRESSIONS = ["raw", "gzip", "bzip2", "xz", "blosc", "zstd"]
"""What tensorstore reads."""
_ANY_BLOSC = {"cname": "lz4", "clevel": 5, "shuffle": 1}
"""What tensorstore must be told of blosc to open an array; when it reads a chunk, that itself says it."""


def matches(path: str) -> bool:
    """Tell whether a path or URL says that it is N5 or a folder in one, or a folder's attributes do."""
    if without_format(path) != path:
        return path.startswith("n5:")
    if is_url(path):
        return any(part.endswith(".n5") for part in path.split("/")) and not path.endswith(".zarr")
    folder = Path(path)
    if not folder.is_dir():
        return False
    if folder.suffix == ".n5":
        return True
    if not folder.suffix and any(p.suffix == ".n5" for p in folder.parents):
        return not any((folder / name).exists() for name in NODE_METADATA)  # else it is zarr
    try:
        return (folder / _ATTRIBUTES).is_file() and bool(_TELLING & _attributes(path, "").keys())
    except InputError:
        return False


def find(path: str, dataset: str, kind: Kind) -> ArrayInfo:
    """Return the array that is meant; see `vimvol.io.formats.base.Opener`."""
    for name in (dataset, join(dataset, "s0").strip("/")):  # of a group of scales the finest
        attributes = _attributes(path, name)
        if "dimensions" in attributes:
            info = _info(path, name, attributes)
            open_array(path, name)
            return info
    where = join(path, dataset)
    folder = stores.local_folder(path)
    if folder is None:
        raise InputError(f"{where} is no N5 array, and what is below a URL is not listed; append ':DATASET'")
    if dataset and not (folder / dataset).is_dir():
        raise missing_dataset(path, dataset, arrays(path), kind)
    found = choose(where, list(_walk(path, dataset, finest=True)), kind)
    open_array(path, found.dataset)
    return found


def arrays(path: str) -> list[ArrayInfo]:
    """List the arrays of a container, at most those of its first 1000 nodes; behind a URL itself or its scales."""
    if stores.local_folder(path) is not None:
        return list(_walk(path, "", finest=False))
    found = []
    for name in ("", *(f"s{level}" for level in range(_MOST_LEVELS))):
        attributes = _attributes(path, name)
        if "dimensions" in attributes:
            found.append(_info(path, name, attributes))
        elif name or found:
            break
    return found


def open_array(path: str, dataset: str) -> Backend:
    """Open an array for reading."""
    where = join(path, dataset)
    attributes = _attributes(path, dataset)
    if "dimensions" not in attributes:
        raise InputError(f"{where} is no N5 array any more; check whether it was moved or replaced")
    metadata = {name: attributes.get(name) for name in ("dimensions", "blockSize", "dataType")}
    metadata["compression"] = compression = _compression(attributes)
    if compression["type"] not in _COMPRESSIONS:
        raise InputError(
            f"{where} is compressed by {compression['type']!r}, which is none of {', '.join(_COMPRESSIONS)}; write it "
            "anew with one of these"
        )
    try:
        return stores.open_array(path, dataset, {"driver": "n5", "metadata": metadata})
    except ValueError as error:
        raise InputError(f"{where} cannot be read ({error}); restore its {_ATTRIBUTES}") from None


def state(path: str, dataset: str, portable: bool) -> str:
    """Hash the attributes; and of a folder, name, size and time of its files, see `vimvol.io.formats.files.stamps`.

    Behind a URL a change of a chunk is not seen.
    """
    digest = hashlib.sha256(json.dumps(_attributes(path, dataset), sort_keys=True).encode())
    folder = stores.local_folder(path)
    for stamp in () if folder is None else stamps(folder / dataset, portable=portable):
        digest.update(stamp)
    return digest.hexdigest()


def _attributes(path: str, dataset: str) -> Mapping[str, Any]:
    """Return the attributes of an array or group, empty where there are none."""
    name = join(dataset, _ATTRIBUTES).strip("/")
    found = stores.read_json(path, name)
    if found is not None and not isinstance(found, Mapping):
        raise InputError(f"{join(path, name)} holds no attributes but {type(found).__name__}; restore it")
    return found or {}


def _chain(path: str, dataset: str, own: Mapping[str, Any]) -> Chain:
    """Return the attributes of an array and of the groups around it, two above the container among them."""
    found: list[tuple[str, Mapping[str, Any]]] = [("", own)]
    parts = dataset.split("/") if dataset else []
    above = without_format(path).rstrip("/").split("/")
    scheme = path.removesuffix(without_format(path))
    for up in range(1, len(parts) + 3):
        outside = up - len(parts)
        tail = "/".join([*above[len(above) - max(0, outside) :], *parts[max(0, -outside) :]])
        root = path if outside <= 0 else scheme + "/".join(above[:-outside])
        if outside > 0 and ("n5" in found[-1][1] or not _has_folder(root)):  # the attribute of the outermost group
            break
        try:
            found.append((tail, _attributes(root, "/".join(parts[: max(0, -outside)]))))
        except (OSError, VimvolError):  # it could but tell the size of voxels
            found.append((tail, {}))
    return found


def _has_folder(path: str) -> bool:
    plain = without_format(path)
    return len(plain.split("/")) > 3 if is_url(plain) else len(plain) > 1


def _walk(path: str, start: str, *, finest: bool) -> Iterator[ArrayInfo]:
    """Yield the arrays below a folder, depth first in natural order; ``finest``: of scales only the first."""
    folder = stores.local_folder(path) or Path(path)
    waiting = [start]
    for _ in range(_MOST_NODES):
        if not waiting:
            return
        dataset = waiting.pop()
        attributes = _attributes(path, dataset)
        if "dimensions" in attributes:
            yield _info(path, dataset, attributes)
            continue
        names = [e.name for e in entries(folder / dataset) if e.is_dir() and not e.name.startswith(".")]
        first = join(dataset, "s0").strip("/")
        if finest and "s0" in names and "dimensions" in _attributes(path, first):
            names = ["s0"]
        waiting.extend(join(dataset, name).strip("/") for name in sorted(names, key=natural, reverse=True))


def _info(path: str, dataset: str, attributes: Mapping[str, Any]) -> ArrayInfo:
    where = join(path, dataset)
    shape, chunks = (_extents(where, attributes, name) for name in ("dimensions", "blockSize"))
    dtype = attributes.get("dataType")
    if not isinstance(dtype, str) or dtype not in _DTYPES or len(shape) != len(chunks):
        told = f"dataType {dtype!r}, dimensions {list(shape)}, blockSize {list(chunks)}"
        raise InputError(f"{where} has damaged attributes ({told}); restore its {_ATTRIBUTES}")
    chain = _chain(path, dataset, attributes)
    if any(each.get("isLabelMultiset") is True for _, each in chain[:2]):
        raise InputError(
            f"{where} holds several labels a voxel (isLabelMultiset), and one is wanted; export it with one each"
        )
    found = geometry(chain, len(shape))
    return ArrayInfo(
        dataset=dataset,
        axes=found.axes,
        shape=shape,
        dtype=str(np.dtype(dtype)),
        scale=found.scale,
        translation=found.translation,
        scale_known=found.known,
        chunks=chunks,
    )


def _extents(where: str, attributes: Mapping[str, Any], name: str) -> tuple[int, ...]:
    values = attributes.get(name)
    if not isinstance(values, list) or not all(type(v) is int and v >= 0 for v in values):
        raise InputError(f"{where} has damaged attributes ({name} {values!r}); restore its {_ATTRIBUTES}")
    return tuple(values)


def _compression(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Return how chunks are compressed, without what only writers need and tensorstore may not know."""
    given = attributes.get("compression")
    if not isinstance(given, Mapping):  # as N5 wrote it before version 2
        given = {"type": attributes.get("compressionType")}
    kind = given.get("type")
    if kind == "gzip":
        return {"type": kind, "useZlib": bool(given.get("useZlib"))}
    return {"type": kind, **(_ANY_BLOSC if kind == "blosc" else {})}
