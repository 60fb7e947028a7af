"""Single zarr arrays of a run's output: created once, then read and written by box."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import zarr
from zarr.codecs import ZstdCodec

from vimvol.address import is_url
from vimvol.errors import OutputExistsError
from vimvol.geometry import Block, Grid
from vimvol.io.errors import storage_errors
from vimvol.io.fence import may_write
from vimvol.io.objects import open_objects
from vimvol.io.storage import holds_node, make_durable, make_node_durable, open_store


def create_array(
    url: str,
    shape: Sequence[int],
    dtype: str,
    *,
    chunk: Sequence[int],
    shard: Sequence[int] | None = None,
    dimension_names: Sequence[str] | None = None,
    level: int = 1,
) -> None:
    """Create an empty zarr v3 array, in place of one of another layout; one of the same layout keeps its data.

    Parameters
    ----------
    url
        Path or URL of the array.
    shape, chunk, shard
        In elements; the shard is a multiple of the chunk.
    dtype
        NumPy name.
    dimension_names
        Names of the axes.
    level
        Of zstd. Bytes are not shuffled: labels grow larger by it.

    Raises
    ------
    StorageError
        If it cannot be written.
    """
    with storage_errors(f"array {url}"):
        if has_layout(url, shape, dtype, chunk, shard):
            return
        may_write()
        parent, _, name = url.rpartition("/")
        open_objects(parent).remove(name)
        zarr.create_array(
            open_store(url, read_only=False),
            shape=tuple(shape),
            dtype=dtype,
            chunks=tuple(chunk),
            shards=None if shard is None else tuple(shard),
            compressors=[ZstdCodec(level=level)],
            filters=None,
            dimension_names=dimension_names,
            fill_value=0,
            zarr_format=3,
        )
        make_node_durable(url)


def has_layout(url: str, shape: Sequence[int], dtype: str, chunk: Sequence[int], shard: Sequence[int] | None) -> bool:
    """Tell whether an array of this shape, dtype, chunk and shard is there."""
    if not holds_node(url):
        return False
    array = zarr.open_array(open_store(url), mode="r", zarr_format=3)
    wanted = (tuple(shape), np.dtype(dtype), tuple(chunk), None if shard is None else tuple(shard))
    return (array.shape, array.dtype, array.chunks, array.shards) == wanted


def create_group(url: str) -> None:
    """Create an empty zarr v3 group; one that is there stays as it is.

    Raises
    ------
    StorageError
        If it cannot be written.
    """
    with storage_errors(f"creating group {url}"):
        zarr.open_group(open_store(url, read_only=False), mode="a", zarr_format=3)
        make_node_durable(url)


def find_group(url: str, *, read_only: bool = True) -> zarr.Group | None:
    """Open a zarr group of any version; none where nothing is.

    Raises
    ------
    OutputExistsError
        If something else is there.
    """
    try:
        return zarr.open_group(open_store(url, read_only=read_only), mode="r" if read_only else "r+")
    except FileNotFoundError:
        return None
    except (ValueError, KeyError) as error:
        raise OutputExistsError(f"{url} holds something else ({error}); remove it or choose another path") from None


def put_attributes(
    url: str, attributes: Mapping[str, Any], *, zarr_format: Literal[2, 3] = 3, without: Collection[str] = ()
) -> None:
    """Write attributes of a group in one step, and flush them; others stay, but for those that it is to be without.

    A group that is not there is made.

    Raises
    ------
    OutputExistsError
        If something else is there.
    """
    group = find_group(url, read_only=False)
    if group is None:
        zarr.create_group(open_store(url, read_only=False), zarr_format=zarr_format, attributes=dict(attributes))
    else:
        kept = {name: value for name, value in group.attrs.asdict().items() if name not in without}
        group.attrs.put({**kept, **attributes})
    make_node_durable(url)


def read_box(url: str, box: Block) -> npt.NDArray[Any]:
    """Read a box of an array.

    Raises
    ------
    StorageError
        If it cannot be read.
    """
    with storage_errors(f"array {url}"):
        return np.asarray(zarr.open_array(open_store(url), mode="r", zarr_format=3)[box.slices])


def write_box(url: str, box: Block, data: npt.NDArray[Any], *, zarr_format: Literal[2, 3] = 3) -> None:
    """Write a box of an array: whole shards, or up to the edge of the array; on return they are stored for good.

    Parameters
    ----------
    url
        Path or URL of the array.
    box
        Whole write units: shards, or chunks where there are no shards.
    data
        Of the shape of the box.
    zarr_format
        Of the array.

    Raises
    ------
    StorageError
        If it cannot be written; `DiskFullError` where no space is left.
    OutputLostError
        If the run that this belongs to may not write any more, see `vimvol.io.fence`.
    """
    with storage_errors(f"array {url}"):
        array = zarr.open_array(open_store(url, read_only=False), mode="r+", zarr_format=zarr_format)
        may_write()
        array[box.slices] = data
        if is_url(url):  # an object store has what it took
            return
        for index in Grid(array.shape, array.shards or array.chunks).overlapping(box):
            make_durable(Path(url) / array.metadata.encode_chunk_key(index))
