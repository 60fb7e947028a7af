"""zarr v2 and v3, plain or OME-Zarr, in a folder or behind a URL."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeAlias, cast

import zarr
from zarr.errors import ContainsArrayAndGroupError, NodeTypeValidationError

from vimvol.address import is_url
from vimvol.errors import InputError
from vimvol.geometry import are_axes
from vimvol.io.errors import one_line, storage_errors
from vimvol.io.formats import ngff
from vimvol.io.formats.base import (
    INTERNAL,
    ArrayInfo,
    Backend,
    Kind,
    attribute_geometry,
    choose,
    guess_axes,
    missing_dataset,
    names,
    native_dtype,
    natural,
    usable,
)
from vimvol.io.formats.files import stamps
from vimvol.io.storage import get_object, join, list_names, open_store

Node: TypeAlias = "zarr.Array[Any] | zarr.Group"

_METADATA = ("zarr.json", ".zarray", ".zgroup", ".zattrs", ".zmetadata")
_MOST_NODES = 1000
"""Arrays and groups that a listing visits at most; a container with more is named by DATASET."""
_PREFERRED_LABELS = "segmentation"


def matches(path: str) -> bool:
    """Tell whether a folder holds zarr metadata or is named as one; every URL that no other format takes is zarr."""
    if is_url(path):
        return True
    folder = Path(path)
    return folder.is_dir() and (folder.suffix == ".zarr" or any((folder / name).exists() for name in _METADATA[:3]))


def find(path: str, dataset: str, kind: Kind) -> ArrayInfo:
    """Return the array that is meant; see `vimvol.io.formats.base.Opener`."""
    node = _node(path, dataset)
    if node is None and not dataset:
        other = ", or put n5:// or precomputed:// before the URL" if is_url(path) else ""
        raise InputError(
            f"{path} holds no zarr array or group, so it cannot be read; give the folder with zarr.json or .zarray"
            + other
        )
    if node is None:
        raise missing_dataset(path, dataset, arrays(path), kind)
    if isinstance(node, zarr.Array):
        return _info(node, dataset, _level_of(path, dataset))
    if ngff.INCOMPLETE in node.attrs:
        raise InputError(f"{join(path, dataset)} was begun and never completed; run the command that writes it again")
    levels = ngff.levels(node.attrs)
    if levels and kind == "labels":
        labels = _labels(path, dataset)
        if labels is not None:
            return find(path, labels, "image")
    if levels:
        return _first_level(path, dataset, levels)
    listed = ngff.label_names(node.attrs)
    if len(listed) == 1:
        return find(path, join(dataset, listed[0]).strip("/"), kind)
    if dataset.split("/")[0] == INTERNAL:
        raise InputError(
            f"{join(path, dataset)} holds what a run works with; choose one of {names(usable(arrays(path), kind))}"
        )
    return choose(join(path, dataset), list(_walk(path, dataset, finest=True)), kind)


def arrays(path: str) -> list[ArrayInfo]:
    """List the arrays of a container, at most those of its first 1000 nodes."""
    node = _node(path, "")
    if node is None:
        return []
    if isinstance(node, zarr.Array):
        return [_info(node, "", _level_of(path, ""))]
    return list(_walk(path, "", finest=False))


def open_array(path: str, dataset: str) -> Backend:
    """Open an array for reading."""
    node = _node(path, dataset)
    if not isinstance(node, zarr.Array):
        raise InputError(f"{join(path, dataset)} is no zarr array any more; check whether it was moved or replaced")
    return cast(Backend, node)


def state(path: str, dataset: str, portable: bool) -> str:
    """Hash the metadata; and for a folder, name, size and time of its files, see `vimvol.io.formats.files.stamps`.

    Behind a URL a change of a chunk is not seen.
    """
    digest = hashlib.sha256()
    store = open_store(path)
    for name in _METADATA[:4]:
        digest.update(get_object(store, join(dataset, name).strip("/")) or b"-")
    if not is_url(path):
        for stamp in stamps(Path(path) / dataset, portable=portable):
            digest.update(stamp)
    return digest.hexdigest()


def _node(path: str, dataset: str) -> Node | None:
    """Open an array or group; none where there is neither."""
    where = join(path, dataset)
    with storage_errors(f"opening {where}"):
        try:
            return zarr.open(open_store(path), path=dataset, mode="r")
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError, NodeTypeValidationError, ContainsArrayAndGroupError) as error:
            raise InputError(
                f"{where} has damaged zarr metadata ({one_line(error)}); restore its zarr.json or .zarray"
            ) from None


def _labels(path: str, dataset: str) -> str | None:
    """Return the labels of an image that are meant; none where it has none."""
    group = join(dataset, "labels").strip("/")
    node = _node(path, group)
    listed = ngff.label_names(node.attrs) if isinstance(node, zarr.Group) else []
    if not listed:
        return None
    if len(listed) > 1 and _PREFERRED_LABELS not in listed:
        choices = ", ".join(f"{group}/{n}" for n in listed[:10])
        raise InputError(
            f"{join(path, dataset)} has {len(listed)} labels and none was chosen; append ':DATASET', one of {choices}"
        )
    return f"{group}/{listed[0] if len(listed) == 1 else _PREFERRED_LABELS}"


def _first_level(path: str, group: str, levels: list[ngff.Level]) -> ArrayInfo:
    dataset = join(group, levels[0].path).strip("/")
    node = _node(path, dataset)
    if not isinstance(node, zarr.Array):
        raise InputError(
            f"{join(path, group)} names an array {levels[0].path!r} that is not there, so the image is incomplete; "
            "write it again"
        )
    return _info(node, dataset, levels[0])


def _level_of(path: str, dataset: str) -> ngff.Level | None:
    """Return what the image around an array tells about it; none where no group above names it."""
    root, parts = path, dataset.split("/") if dataset else []
    if not parts:  # the path itself is the array: look one and two folders up
        root, *parts = _split(path)
    for depth in range(len(parts) - 1, -1, -1):
        group, tail = "/".join(parts[:depth]), "/".join(parts[depth:])
        with contextlib.suppress(InputError):
            node = _node(root, group)
            if isinstance(node, zarr.Group):
                for level in ngff.levels(node.attrs):
                    if level.path == tail:
                        return level
    return None


def _split(path: str) -> list[str]:
    if is_url(path):
        scheme, rest = path.split("://", 1)
        parts = rest.split("/")
        cut = max(1, len(parts) - 2)
        return [f"{scheme}://{'/'.join(parts[:cut])}", *parts[cut:]]
    local = Path(path)
    return [str(local.parent.parent), local.parent.name, local.name]


def _walk(path: str, start: str, *, finest: bool) -> Iterator[ArrayInfo]:
    """Yield the arrays below a group, depth first in natural order; ``finest``: of an image its first level only."""
    store = open_store(path)
    waiting: list[tuple[str, dict[str, ngff.Level]]] = [(start, {})]
    for _ in range(_MOST_NODES):
        if not waiting:
            return
        dataset, known = waiting.pop()
        node = _node(path, dataset)
        if isinstance(node, zarr.Array):
            yield _info(node, dataset, known.get(dataset))
        if not isinstance(node, zarr.Group):
            continue
        levels = ngff.levels(node.attrs)
        if levels and finest:
            yield _first_level(path, dataset, levels)
            continue
        known = known | {join(dataset, level.path).strip("/"): level for level in levels}
        children = [join(dataset, name).strip("/") for name in list_names(store, dataset) if not name.startswith(".")]
        waiting.extend((child, known) for child in sorted(children, key=natural, reverse=True))


def _info(array: zarr.Array[Any], dataset: str, level: ngff.Level | None) -> ArrayInfo:
    rank = len(array.shape)
    axes = level.axes if level is not None else _named_axes(array)
    axes = axes if len(axes) == rank else guess_axes(rank)
    scale: tuple[float, ...] | None
    translation: tuple[float, ...] | None
    if level is not None and len(level.scale) == rank:
        scale, translation, known = level.scale, level.translation, level.known
    else:
        scale, translation = attribute_geometry(array.attrs, axes)
        known = scale is not None
    return ArrayInfo(
        dataset=dataset,
        axes=axes,
        shape=tuple(array.shape),
        dtype=native_dtype(array.dtype),
        scale=scale,
        translation=translation,
        scale_known=known,
        chunks=tuple(array.chunks),
        shards=None if array.shards is None else tuple(array.shards),
    )


def _named_axes(array: zarr.Array[Any]) -> str:
    """Return axes from zarr v3's dimension names or xarray's attribute; empty where they are no volume's."""
    dimensions = getattr(array.metadata, "dimension_names", None) or array.attrs.get("_ARRAY_DIMENSIONS")
    if not isinstance(dimensions, list | tuple):
        return ""
    letters = "".join(str(d).lower() for d in dimensions)
    return letters if len(letters) == len(dimensions) and are_axes(letters) else ""
