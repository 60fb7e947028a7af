"""Neuroglancer's precomputed volumes: a folder, or what is behind a URL, with ``info``; x first, sizes in nm."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vimvol.address import is_url, without_format
from vimvol.errors import InputError
from vimvol.io.formats import stores
from vimvol.io.formats.base import ArrayInfo, Backend, Kind, missing_dataset
from vimvol.io.formats.files import stamps
from vimvol.io.formats.ngff import finite
from vimvol.io.storage import join

_DTYPES = {f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)} | {"float32"}
_COMPRESSED = (".gz", ".br", ".zstd", ".xz")
"""Endings of chunks that CloudVolume has compressed as files, which nothing but CloudVolume finds there."""
_MOST_CHUNKS = 1000
"""Files of a scale whose names are looked at."""


def matches(path: str) -> bool:
    """Tell whether a path or URL says that it is precomputed, or a folder holds an ``info`` with scales."""
    if without_format(path) != path:
        return path.startswith("precomputed:")
    if is_url(path) or not (Path(path) / "info").is_file():
        return False
    try:
        info = stores.read_json(path, "info")
    except InputError:
        return False
    return isinstance(info, Mapping) and isinstance(info.get("scales"), list)


def find(path: str, dataset: str, kind: Kind) -> ArrayInfo:
    """Return the scale of this key, without one the finest; see `vimvol.io.formats.base.Opener`."""
    volume = _volume(path)
    key = dataset or _finest(volume)["key"]
    if key not in _keys(volume):
        raise missing_dataset(path, dataset, arrays(path), kind)
    info = _info(path, volume, key)
    _check_chunks(path, key)
    open_array(path, key)
    return info


def arrays(path: str) -> list[ArrayInfo]:
    """List the scales in their order, which is from fine to coarse."""
    volume = _volume(path)
    return [_info(path, volume, key) for key in _keys(volume)]


def open_array(path: str, dataset: str) -> Backend:
    """Open a scale for reading."""
    volume = _volume(path)
    if dataset not in _keys(volume):
        raise InputError(f"{path} has no scale {dataset!r} any more; check whether it was replaced")
    return _open(path, volume, dataset)


def state(path: str, dataset: str, portable: bool) -> str:
    """Hash what is told of a scale; and of a folder, name, size and time of its files, see `files.stamps`.

    Behind a URL a change of a chunk is not seen.
    """
    volume = _volume(path)
    told = [volume.get("data_type"), volume.get("num_channels"), _scale(volume, dataset)]
    digest = hashlib.sha256(json.dumps(told, sort_keys=True).encode())
    folder = _folder(path, dataset)
    for stamp in () if folder is None else stamps(folder, portable=portable):
        digest.update(stamp)
    return digest.hexdigest()


def _volume(path: str) -> Mapping[str, Any]:
    """Return ``info``.

    Raises
    ------
    InputError
        If there is none, or it describes no volume but meshes, skeletons or nothing.
    """
    volume = stores.read_json(path, "info")
    if volume is None:
        raise InputError(f"{path} has no 'info', so it is no precomputed volume; give the folder that holds it")
    if not isinstance(volume, Mapping) or not _keys(volume):
        raise InputError(f"{join(path, 'info')} lists no scales of a volume; give the folder of the volume itself")
    return volume


def _scales(volume: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    listed = volume.get("scales")
    named = (s for s in listed if isinstance(s, Mapping)) if isinstance(listed, list) else ()
    return [s for s in named if isinstance(s.get("key"), str)]


def _keys(volume: Mapping[str, Any]) -> list[str]:
    return [str(scale["key"]) for scale in _scales(volume)]


def _scale(volume: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    return next(scale for scale in _scales(volume) if scale["key"] == key)


def _finest(volume: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the scale of the smallest voxels; the first where none tells."""
    return min(_scales(volume), key=lambda scale: math.prod(_resolution(scale) or (math.inf,)))


def _resolution(scale: Mapping[str, Any]) -> tuple[float, ...] | None:
    """Return nm along x, y, z; none where this is not told."""
    found = finite(scale.get("resolution"))
    return tuple(found) if len(found) == 3 and min(found) > 0 else None


def _triple(path: str, key: str, name: str, values: Any, least: int) -> tuple[int, int, int]:  # noqa: ANN401 - JSON
    if not isinstance(values, list) or len(values) != 3 or not all(type(v) is int and v >= least for v in values):
        raise InputError(f"scale {key!r} of {path} has a damaged {name} ({values!r}); restore 'info'")
    x, y, z = values
    return x, y, z


def _channels(path: str, volume: Mapping[str, Any]) -> int:
    channels = volume.get("num_channels", 1)
    if type(channels) is not int or channels < 1:
        raise InputError(f"{path} has a damaged num_channels ({channels!r}); restore 'info'")
    return channels


def _info(path: str, volume: Mapping[str, Any], key: str) -> ArrayInfo:
    scale = _scale(volume, key)
    dtype = str(volume.get("data_type")).lower()
    if dtype not in _DTYPES:
        raise InputError(f"{path} has a damaged data_type ({volume.get('data_type')!r}); restore 'info'")
    channels = _channels(path, volume)
    more = (channels,) if channels > 1 else ()
    chunk = _chunk(path, scale)
    size, finest = _resolution(scale), _resolution(_finest(volume))
    translation = None
    if size is not None and finest is not None:
        # nm are counted from the corner of the first voxel, and offsets from the centre of that of the finest scale
        begin = _offset(path, scale)
        translation = tuple(b * s + (s - f) / 2 for b, s, f in zip(begin, size, finest, strict=True))
    return ArrayInfo(
        dataset=key,
        axes="xyzc" if more else "xyz",
        shape=(*_triple(path, key, "size", scale.get("size"), 0), *more),
        dtype=dtype,
        scale=None if size is None else (*size, *(1.0 for _ in more)),
        translation=None if translation is None else (*translation, *(0.0 for _ in more)),
        scale_known=size is not None,
        chunks=(*chunk, *more),
        shards=_shard(path, volume, key),
    )


def _chunk(path: str, scale: Mapping[str, Any]) -> tuple[int, int, int]:
    sizes = scale.get("chunk_sizes")
    first = sizes[0] if isinstance(sizes, list) and sizes else sizes
    return _triple(path, scale["key"], "chunk_sizes", first, 1)


def _offset(path: str, scale: Mapping[str, Any]) -> tuple[int, int, int]:
    values = scale.get("voxel_offset", [0, 0, 0])
    if not isinstance(values, list) or len(values) != 3 or not all(type(v) is int for v in values):
        raise InputError(f"scale {scale['key']!r} of {path} has a damaged voxel_offset ({values!r}); restore 'info'")
    x, y, z = values
    return x, y, z


def _shard(path: str, volume: Mapping[str, Any], key: str) -> tuple[int, ...] | None:
    """Return what is stored in one object where that is a box of several chunks; none also without tensorstore."""
    scale = _scale(volume, key)
    if scale.get("sharding") is None:
        return None
    try:
        together = _open(path, volume, key).written_together
    except InputError:
        return None
    return None if together[:3] == _chunk(path, scale) else together


def _open(path: str, volume: Mapping[str, Any], key: str) -> stores.Array:
    """Open a scale by what ``info`` tells of how it is stored; what it tells of the rest may be damaged."""
    scale = _scale(volume, key)
    channels = _channels(path, volume)
    # what else there is of encodings matters to a writer alone, and some versions write a png_level that others refuse
    stored = ("key", "encoding", "sharding", "compressed_segmentation_block_size")
    metadata = {name: scale[name] for name in stored if scale.get(name) is not None}
    metadata |= {
        "size": _triple(path, key, "size", scale.get("size"), 0),
        "chunk_size": _chunk(path, scale),
        "voxel_offset": _offset(path, scale),
        "resolution": _resolution(scale) or (1, 1, 1),
    }
    spec = {
        "driver": "neuroglancer_precomputed",
        "multiscale_metadata": {
            "type": str(volume.get("type", "image")).lower(),
            "data_type": str(volume.get("data_type")).lower(),
            "num_channels": channels,
        },
        "scale_metadata": metadata,
    }
    if isinstance(metadata.get("encoding"), str):
        metadata["encoding"] = metadata["encoding"].lower()
    try:
        return stores.open_array(path, "", spec, channel=0 if channels == 1 else None)
    except ValueError as error:
        raise InputError(
            f"scale {key!r} of {path} cannot be read ({error}); restore 'info', or write it in an encoding that "
            "tensorstore knows"
        ) from None


def _folder(path: str, key: str) -> Path | None:
    """Return the folder of a scale; none behind a URL."""
    folder = stores.local_folder(path)
    return None if folder is None else Path(os.path.normpath(folder / key))  # a key may begin with ".."


def _check_chunks(path: str, key: str) -> None:
    """Refuse what would read as zeros everywhere: a scale that was not copied, or in files of another name."""
    folder = _folder(path, key)
    if folder is None:
        return
    if not folder.is_dir():
        raise InputError(f"{path} lists a scale {key!r}, and {folder} does not exist; copy it, or name another scale")
    with os.scandir(folder) as chunks:
        found = next((c.name for c in itertools.islice(chunks, _MOST_CHUNKS) if c.name.endswith(_COMPRESSED)), None)
    if found is not None:
        raise InputError(
            f"{folder} holds chunks compressed as files ({found}), as CloudVolume writes them, which cannot be read; "
            "decompress them (gunzip -r), or write them with compress=False"
        )
