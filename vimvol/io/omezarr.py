"""Writing OME-Zarr 0.5 on zarr v3: metadata, and empty arrays for the blocks to fill.

Metadata that make an image out of arrays come last, so an interrupted creation leaves no image; it is repeated at the
next try. `vimvol.io.levels` plans the pyramid.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr
from zarr.codecs import ZstdCodec

from vimvol.errors import InputError, OutputExistsError
from vimvol.geometry import Index
from vimvol.io.arrays import find_group, put_attributes
from vimvol.io.errors import storage_errors
from vimvol.io.formats import ngff
from vimvol.io.levels import Level, pyramid, storage_shapes
from vimvol.io.objects import open_objects
from vimvol.io.storage import join, make_node_durable, open_store

if TYPE_CHECKING:  # the models take a quarter of a second to load, and workers only fill arrays
    from ome_zarr_models.v05.image import ImageAttrs
    from ome_zarr_models.v05.image_label import ImageLabelAttrs
    from ome_zarr_models.v05.labels import LabelsAttrs

VERSION = "0.5"
"""Version of OME-Zarr that is written."""


def create_image(
    url: str,
    *,
    shape: Sequence[int],
    dtype: str,
    voxel_size: Sequence[float],
    offset: Sequence[float] = (0.0, 0.0, 0.0),
    chunk: Sequence[int] = (16, 128, 128),
    shard: Sequence[int] = (32, 512, 512),
    levels: Sequence[Level] | int | None = None,
    name: str,
    channels: int | None = None,
    compression: int = 1,
    label_source: str | None = None,
    known: bool = True,
    mend: bool = False,
) -> None:
    """Create an OME-Zarr image whose levels are empty; an image with the same metadata and storage keeps its data.

    Every level is a sharded array ``url/0``, ``url/1`` ..., filled with 0, compressed by Zstandard without shuffling
    (which makes labels larger) and with checksums, so that damage is an error and no other image. Chunks hold one
    channel, shards all of them.

    Parameters
    ----------
    url
        Path or URL of the group.
    shape
        Voxels (z, y, x) at full resolution.
    dtype
        Name of a numpy dtype; integers for labels.
    voxel_size, offset
        nm, (z, y, x): size of a voxel, and position of the centre of the first.
    known
        Whether ``voxel_size`` is the real one; otherwise the axes have no unit.
    chunk, shard
        Voxels (z, y, x) compressed together, and stored as one object; clipped to each level.
    levels
        A pyramid, or the number of levels, or none: see `vimvol.io.levels.pyramid`.
    name
        Of the image, for viewers.
    channels
        Length of a leading channel axis; none: no such axis.
    compression
        Level of Zstandard, 1 to 22.
    label_source
        Path from this group to the image that it labels, e.g. ``"../../"``; none: it is no label image.
    mend
        Take an image that is there for an earlier form of this one: levels of the same storage keep their data, the
        others are made anew, empty, and those that are too many are removed.

    Raises
    ------
    OutputExistsError
        If something else is there already.
    InputError
        If the shard is no multiple of the chunk.
    StorageError
        If it cannot be written.
    """
    plan = pyramid(shape, voxel_size, levels) if isinstance(levels, int | None) else tuple(levels)
    method = "mean" if label_source is None else "mode"
    attributes = _attributes(plan, offset, name, method, channels, label_source, "nanometer" if known else None)
    layouts = [_layout(level.shape, chunk, shard, channels) for level in plan]
    axes = ("c", "z", "y", "x") if channels else ("z", "y", "x")
    with storage_errors(f"creating {url}"):
        kept: set[int] = set()
        if mend:
            kept = _mendable(url, layouts, dtype)
        elif _is_there(url, attributes, layouts, dtype):
            return
        store = open_store(url, read_only=False)
        for number, (array_shape, array_chunk, array_shard) in enumerate(layouts):
            if number in kept:
                continue
            zarr.create_array(
                store,
                name=str(number),
                shape=array_shape,
                chunks=array_chunk,
                shards=array_shard,
                dtype=dtype,
                compressors=[ZstdCodec(level=compression, checksum=True)],
                filters=None,
                fill_value=0,
                dimension_names=axes,
                zarr_format=3,
                overwrite=True,
            )
            make_node_durable(join(url, str(number)))
        _finish(url, attributes)


def create_labels(
    root: str,
    name: str,
    *,
    dtype: str = "uint64",
    chunk: Sequence[int] = (16, 128, 128),
    shard: Sequence[int] = (32, 512, 512),
    compression: int = 1,
    mend: bool = False,
) -> None:
    """Create an empty label image ``root/labels/name`` that matches an existing image, level by level.

    Shape, voxel size, offset and levels are those of the image; its channels are left out. The name enters the list in
    the metadata of ``root/labels`` last. Parameters and errors are those of `create_image`.

    Raises
    ------
    InputError
        If there is no image at ``root``, or ``dtype`` is no integer.
    """
    if np.dtype(dtype).kind not in "ui":
        raise InputError(f"labels {name!r} of {root} cannot be {dtype}: labels are integers, use uint64")
    plan, offset, known = _levels_of(root)
    url = join(root, "labels", name)
    create_image(
        url,
        shape=plan[0].shape,
        dtype=dtype,
        voxel_size=plan[0].scale,
        offset=offset,
        chunk=chunk,
        shard=shard,
        levels=plan,
        name=name,
        compression=compression,
        label_source="../../",
        known=known,
        mend=mend,
    )
    with storage_errors(f"creating {url}"):
        group = find_group(join(root, "labels"))
        listed = [] if group is None else ngff.label_names(group.attrs)
        if name not in listed:
            from ome_zarr_models.v05.labels import LabelsAttrs

            _finish(join(root, "labels"), _dump(LabelsAttrs(version=VERSION, labels=[*listed, name])))


def _attributes(
    plan: Sequence[Level],
    offset: Sequence[float],
    name: str,
    method: str,
    channels: int | None,
    label_source: str | None,
    unit: str | None,
) -> dict[str, Any]:
    """Return the OME metadata of an image or label image."""
    from ome_zarr_models.common.image_label_types import Source
    from ome_zarr_models.v05.axes import Axis
    from ome_zarr_models.v05.image import ImageAttrs
    from ome_zarr_models.v05.image_label import ImageLabelAttrs
    from ome_zarr_models.v05.image_label_types import Label
    from ome_zarr_models.v05.multiscales import Dataset, Multiscale

    front = (1.0,) if channels else ()
    datasets = tuple(
        Dataset.build(
            path=str(number),
            scale=[*front, *level.scale],
            translation=[*(0.0 for _ in front), *(t + o for t, o in zip(level.translation, offset, strict=True))],
        )
        for number, level in enumerate(plan)
    )
    axes = [Axis(name=a, type="space", unit=unit) for a in "zyx"]
    if channels:
        axes.insert(0, Axis(name="c", type="channel"))
    multiscales = [Multiscale(axes=axes, datasets=datasets, name=name, type=method)]
    if label_source is None:
        return _dump(ImageAttrs(version=VERSION, multiscales=multiscales))
    label = Label(version=VERSION, source=Source(image=label_source))
    return _dump(ImageLabelAttrs(version=VERSION, multiscales=multiscales, **{"image-label": label}))


def _dump(attributes: ImageAttrs | ImageLabelAttrs | LabelsAttrs) -> dict[str, Any]:
    return {"ome": attributes.model_dump(mode="json", by_alias=True, exclude_none=True)}


def _layout(
    shape: Sequence[int], chunk: Sequence[int], shard: Sequence[int], channels: int | None
) -> tuple[Index, Index, Index]:
    """Return shape, chunk and shard of a level's array."""
    chunk, shard = storage_shapes(shape, chunk, shard)
    if channels is None:
        return tuple(shape), tuple(chunk), tuple(shard)
    return (channels, *shape), (1, *chunk), (channels, *shard)


def _is_there(url: str, attributes: Mapping[str, Any], layouts: Sequence[tuple[Index, ...]], dtype: str) -> bool:
    """Tell whether the very same image is there; mark a place that is free, or of an interrupted creation, as begun."""
    group = find_group(url)
    names = [str(number) for number in range(len(layouts))]
    if group is not None and ngff.INCOMPLETE not in group.attrs:
        if group.attrs.get("ome") == attributes["ome"] and all(
            _same_array(group, number, layout, dtype) for number, layout in enumerate(layouts)
        ):
            return True
        if "ome" in group.attrs or group.metadata.zarr_format != 3 or any(name in group for name in names):
            raise OutputExistsError(f"{url} holds another image, which would be lost; remove it or choose another path")
    if group is None:
        zarr.create_group(open_store(url, read_only=False), zarr_format=3, attributes={ngff.INCOMPLETE: True})
    elif ngff.INCOMPLETE not in group.attrs:
        zarr.open_group(open_store(url, read_only=False), mode="r+").attrs[ngff.INCOMPLETE] = True
    return False


def _mendable(url: str, layouts: Sequence[tuple[Index, ...]], dtype: str) -> set[int]:
    """Return the levels of an earlier form of an image that can stay; remove those that it is to have no more."""
    group = find_group(url)
    if group is None:  # its metadata are lost; the arrays may be there
        group = zarr.create_group(open_store(url, read_only=False), zarr_format=3, attributes={ngff.INCOMPLETE: True})
    objects = open_objects(url)
    for name in objects.names(""):
        if name.isdigit() and int(name) >= len(layouts):
            objects.remove(name)
    return {number for number, layout in enumerate(layouts) if _same_array(group, number, layout, dtype)}


def _same_array(group: zarr.Group, number: int, layout: tuple[Index, ...], dtype: str) -> bool:
    """Tell whether a level is there with shape, chunk, shard and dtype."""
    array = group.get(str(number))
    if not isinstance(array, zarr.Array) or array.dtype != np.dtype(dtype):
        return False
    return (array.shape, array.chunks, array.shards) == layout


def _finish(url: str, attributes: Mapping[str, Any]) -> None:
    """Write the metadata that make an image, or a list of labels, of a group."""
    put_attributes(url, attributes, without=(ngff.INCOMPLETE,))


def _levels_of(root: str) -> tuple[tuple[Level, ...], tuple[float, ...], bool]:
    """Return the pyramid of an image, its offset in nm, (z, y, x), and whether it tells the unit."""
    with storage_errors(f"opening {root}"):
        group = find_group(root)
        found = [] if group is None else ngff.levels(group.attrs)
        if group is None or not found:
            raise InputError(f"{root} is no OME-Zarr image, so it cannot have labels; create the image first")
        arrays = [group[level.path] for level in found]
    shapes = [tuple(a.shape[-3:]) for a in arrays if isinstance(a, zarr.Array)]
    offset = found[0].translation[-3:]
    plan = []
    for level, shape in zip(found, shapes, strict=True):
        factor = tuple(round(a / b) for a, b in zip(level.scale[-3:], found[0].scale[-3:], strict=True))
        shift = tuple(t - o for t, o in zip(level.translation[-3:], offset, strict=True))
        plan.append(Level(shape, factor, level.scale[-3:], shift))
    return tuple(plan), offset, found[0].known
