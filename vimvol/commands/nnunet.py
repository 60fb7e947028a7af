"""A volume as files that nnU-Net v2 predicts, and what it predicted as boundaries of the volume."""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tifffile

from vimvol.address import absolute
from vimvol.errors import InputError, OutputExistsError
from vimvol.geometry import Block
from vimvol.io import Volume, open_volume
from vimvol.io.arrays import write_box
from vimvol.io.errors import one_line
from vimvol.io.omezarr import create_image
from vimvol.io.storage import drafted, local_path
from vimvol.outputs.manifest import check_intensities
from vimvol.preflight.disk import check_writable
from vimvol.stages.predict import rounded
from vimvol.train.nnunet import write_spacing, write_tiff

CHUNK, SHARD = (1, 256, 256), (8, 1024, 1024)
"""Voxels (z, y, x) of an import; as many slices as a shard has are held in memory at a time."""


@dataclass(frozen=True)
class Imported:
    """What an import wrote.

    Attributes
    ----------
    out
        Path of the OME-Zarr.
    classes
        What each of its channels is.
    """

    out: str
    classes: tuple[str, ...]


def export_volume(source: str, folder: str, *, volumes: bool = False) -> int:
    """Write a volume as the input of ``nnUNetv2_predict``: a case a slice, or one; return the number of cases.

    Parameters
    ----------
    source
        ``PATH[:DATASET]`` of the intensities.
    folder
        Where files go; it is there whole or not at all.
    volumes
        Make one case of the volume, for a network that was trained on volumes.

    Raises
    ------
    InputError
        If there is no such volume, or it is the output of a run.
    OutputExistsError
        If the folder is there.
    """
    volume = open_volume(source)
    check_intensities(volume)
    target = local_path(folder)
    if target.exists():
        raise OutputExistsError(f"{folder} is there already; choose another path, or remove it")
    check_writable(str(target.absolute()))
    stem = re.sub(r"[^A-Za-z0-9-]+", "-", Path(volume.url).stem)
    with drafted(target) as draft:
        draft.mkdir(parents=True)
        if volumes:
            write_tiff(draft / f"{stem}_0000.tif", volume.read(Block.whole(volume.shape)))
            write_spacing(draft / f"{stem}.json", volume.voxel_size)
        else:
            for slab in _slabs(volume):
                for z, section in enumerate(volume.read(slab), start=slab.begin[0]):
                    write_tiff(draft / f"{stem}_z{z:05d}_0000.tif", section)
    return 1 if volumes else volume.shape[0]


def import_predictions(folder: str, source: str, out: str) -> Imported:
    """Make boundaries of what ``nnUNetv2_predict`` wrote, for ``predict.boundaries``.

    Probabilities (``--save_probabilities``) are taken where they are there, else the predicted labels as 0 and 1.

    Parameters
    ----------
    folder
        Where the predictions are, with the ``dataset.json`` that nnU-Net puts beside them.
    source
        ``PATH[:DATASET]`` of the volume, as it was exported.
    out
        OME-Zarr to write, (c, z, y, x) uint8; it is there whole or not at all.

    Raises
    ------
    InputError
        If predictions are missing, damaged or of another volume.
    OutputExistsError
        If ``out`` is there.
    """
    volume, target = open_volume(source), local_path(absolute(out))
    if target.exists():
        raise OutputExistsError(f"{out} is there already; choose another path, or remove it")
    check_writable(str(target))
    reading = _Classes.of(Path(folder))
    read = _reader(Path(folder), volume, reading)
    with drafted(target) as draft:
        create_image(
            str(draft),
            shape=volume.shape,
            dtype="uint8",
            voxel_size=volume.voxel_size,
            offset=volume.offset,
            chunk=CHUNK,
            shard=SHARD,
            levels=1,
            name="boundaries",
            channels=len(reading.names),
        )
        for slab in _slabs(volume):
            box = Block((0, *slab.begin), (len(reading.names), *slab.end))
            write_box(f"{draft}/0", box, read(slab.begin[0], slab.end[0]))
    return Imported(str(target), reading.names)


def _slabs(volume: Volume) -> list[Block]:
    """Cut a volume into a few slices at a time."""
    depth, (height, width) = volume.shape[0], volume.shape[1:]
    return [Block((z, 0, 0), (min(z + SHARD[0], depth), height, width)) for z in range(0, depth, SHARD[0])]


@dataclass(frozen=True)
class _Classes:
    """What nnU-Net predicted, background left out.

    Attributes
    ----------
    names
        Of the classes.
    channels
        Where each is in the probabilities.
    values
        Labels that mean each.
    heads
        Number of channels that the probabilities have.
    """

    names: tuple[str, ...]
    channels: tuple[int, ...]
    values: tuple[tuple[int, ...], ...]
    heads: int

    @classmethod
    def of(cls, folder: Path) -> _Classes:
        """Read the ``dataset.json`` beside the predictions."""
        path = folder / "dataset.json"
        try:
            labels = json.loads(path.read_text(encoding="utf-8"))["labels"]
            found = {
                str(name): tuple(map(int, value)) if isinstance(value, list) else (int(value),)
                for name, value in labels.items()
            }
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            raise InputError(
                f"{path} is missing or is none of nnU-Net's, so it is unclear what was predicted; copy the "
                "dataset.json of the data set there"
            ) from None
        kept = {n: v for n, v in found.items() if n != "ignore" and v != (0,)}
        if any(len(values) > 1 for values in kept.values()):  # regions, each with a sigmoid; background has none
            return cls(tuple(kept), tuple(range(len(kept))), tuple(kept.values()), len(kept))
        return cls(tuple(kept), tuple(v[0] for v in kept.values()), tuple(kept.values()), len(kept) + 1)


def _reader(folder: Path, volume: Volume, classes: _Classes) -> Callable[[int, int], npt.NDArray[np.uint8]]:
    """Find the files of a volume; return what gives its slices from one number to another, (c, z, y, x)."""
    files = [p for p in sorted(folder.glob("*.npz")) or sorted(folder.glob("*.tif")) if not p.name.startswith(".")]
    by_slice: dict[int, Path] = {int(m[1]): p for p in files if (m := re.search(r"_z(\d+)$", p.stem))}
    sliced = set(by_slice.values())
    whole = [p for p in files if p not in sliced]
    if len(whole) == 1 and not by_slice:
        probabilities = _read(whole[0], classes, volume.shape)
        return lambda begin, end: probabilities[:, begin:end]
    missing = sorted(set(range(volume.shape[0])) - set(by_slice))
    surplus = sorted(set(by_slice) - set(range(volume.shape[0])))
    if missing or surplus or whole:
        wrong = (
            f"slice {missing[0]} is missing"
            if missing
            else f"{(whole or [by_slice[z] for z in surplus])[0].name} is too much"
        )
        raise InputError(
            f"{folder} does not hold the {volume.shape[0]} slices of {volume.address} ({wrong}); give the folder of "
            "predictions of what `vimvol export-nnunet` made of this volume"
        )
    plane = (1, *volume.shape[1:])

    def read(begin: int, end: int) -> npt.NDArray[np.uint8]:
        return np.concatenate([_read(by_slice[z], classes, plane) for z in range(begin, end)], axis=1)

    return read


def _read(path: Path, classes: _Classes, shape: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    """Read the prediction of a case as (c, z, y, x), 0..255."""
    try:
        stored = _stored(path)
    except (OSError, ValueError, KeyError, zipfile.BadZipFile, tifffile.TiffFileError) as error:
        raise InputError(f"prediction {path} cannot be read ({one_line(error)}); predict it again") from None
    probable = path.suffix == ".npz"
    if probable and stored.shape != (classes.heads, *shape):
        raise InputError(
            f"prediction {path} has shape {stored.shape} and should have {(classes.heads, *shape)}; give the volume "
            "that it was predicted of, and the dataset.json of the network"
        )
    if probable:
        chosen = stored[list(classes.channels)].astype(np.float32)
        if not ((chosen >= 0) & (chosen <= 1)).all():
            raise InputError(f"prediction {path} holds values that are no probabilities; predict it again")
        return rounded(chosen)
    labels = stored.reshape(shape) if stored.size == np.prod(shape) else stored
    if labels.shape != shape:
        raise InputError(f"prediction {path} has shape {labels.shape} and should have {shape}; give its volume")
    return np.stack([np.isin(labels, values) for values in classes.values]).astype(np.uint8) * np.uint8(255)


def _stored(path: Path) -> npt.NDArray[Any]:
    """Return what a file of nnU-Net holds; none can run code."""
    if path.suffix != ".npz":
        return np.asarray(tifffile.imread(path))
    with np.load(path, allow_pickle=False) as file:
        return np.asarray(file["probabilities"])
