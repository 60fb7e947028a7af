"""Writes N5 and precomputed volumes as others do, with tensorstore."""

import json
from pathlib import Path

import numpy as np
import tensorstore

SHARDING = {
    "@type": "neuroglancer_uint64_sharded_v1",
    "hash": "identity",
    "preshift_bits": 1,
    "minishard_bits": 1,
    "shard_bits": 3,
    "minishard_index_encoding": "gzip",
    "data_encoding": "gzip",
}
RAW, GZIP = {"type": "raw"}, {"type": "gzip"}
BLOSC = {"type": "blosc", "cname": "zstd", "clevel": 3, "shuffle": 1}


def write_n5(path: Path, array: np.ndarray, compression=RAW, block=(16, 16, 4), **attributes) -> str:
    """Write an array, of which the last axis becomes the first stored, with more attributes beside its own."""
    metadata = {"dimensions": array.T.shape, "blockSize": block, "dataType": str(array.dtype)}
    spec = {"driver": "n5", "kvstore": {"driver": "file", "path": str(path)}}
    spec["metadata"] = metadata | {"compression": compression}
    tensorstore.open(spec, create=True).result()[...] = array.T
    change(path / "attributes.json", **attributes)
    return str(path)


def write_group(path: Path, **attributes) -> Path:
    """Write the attributes of a group."""
    path.mkdir(parents=True, exist_ok=True)
    (path / "attributes.json").write_text(json.dumps(attributes))
    return path


def write_precomputed(path: Path, array: np.ndarray, *, offset=(0, 0, 0), resolution=(4, 4, 8), **scale) -> str:
    """Write (z, y, x) or (c, z, y, x) as another scale; `offset` in voxels and `resolution` in nm are (x, y, z)."""
    stored = array.T if array.ndim == 4 else array.T[..., np.newaxis]
    spec = {
        "driver": "neuroglancer_precomputed",
        "kvstore": {"driver": "file", "path": str(path)},
        "multiscale_metadata": {
            "type": "image" if array.dtype.itemsize < 4 else "segmentation",
            "data_type": str(array.dtype),
            "num_channels": stored.shape[3],
        },
        "scale_metadata": {
            "size": stored.shape[:3],
            "voxel_offset": offset,
            "resolution": resolution,
            "chunk_size": (16, 16, 4),
            "encoding": "raw",
        }
        | scale,
    }
    tensorstore.open(spec, create=True).result()[...] = stored
    return str(path)


def change(path: Path, **values) -> None:
    """Set members of a JSON file; none removes one."""
    changed = json.loads(path.read_text()) | values
    path.write_text(json.dumps({name: value for name, value in changed.items() if value is not None}))
