"""Instances of images from COCO annotations: polygons and run lengths, as LIVECell has them.

The file is read annotation by annotation, and outlines are kept as small integers: LIVECell's 10^6 cells as Python
lists of numbers would take several GB. Masks equal those of pycocotools to the pixel.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from skimage import segmentation

from vimvol.errors import InputError

SCALE = 5
"""Polygons are rounded to this fraction of a pixel before they are filled, as pycocotools does."""
_GAP = re.compile(r"[ \t\r\n,:]*")


@dataclass(frozen=True)
class Outline:
    """One annotated instance.

    Attributes
    ----------
    area
        As the file gives it; instances are drawn by it.
    polygons
        (k, 2) int32 corners each, x and y, in fifths of a pixel; the mask is their union.
    counts
        Run lengths of 0 and 1 in turn, down the columns; none where there are polygons.
    """

    area: float
    polygons: tuple[NDArray[np.int32], ...]
    counts: NDArray[np.int64] | None


@dataclass(frozen=True)
class CocoImage:
    """An image and its instances.

    Attributes
    ----------
    name
        File name, as the annotations give it.
    shape
        Extent (y, x), pixels.
    outlines
        Its instances.
    """

    name: str
    shape: tuple[int, int]
    outlines: tuple[Outline, ...]


def read_coco(path: str) -> list[CocoImage]:
    """Read the images and instances of a COCO file, images in the order of the file.

    Raises
    ------
    InputError
        If the file is missing or holds no COCO annotations.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"annotations {path} cannot be read ({reason}); give a COCO JSON file") from None
    images: list[dict[str, Any]] = []
    outlines: defaultdict[int, list[Outline]] = defaultdict(list)
    try:
        for key, item in _items(text, ("images", "annotations")):
            if key == "images":
                images.append({name: item[name] for name in ("id", "file_name", "height", "width")})
            else:
                outlines[item["image_id"]].append(_outline(item))
        found = [
            CocoImage(str(i["file_name"]), (int(i["height"]), int(i["width"])), tuple(outlines[i["id"]]))
            for i in images
        ]
    except KeyError as error:
        raise InputError(f"annotations {path} lack {error} in an entry; give a COCO JSON file") from None
    except (ValueError, TypeError, IndexError) as error:
        raise InputError(f"annotations {path} are no COCO JSON ({error}); fetch the file again") from None
    if not found:
        raise InputError(f"annotations {path} name no images; give a COCO JSON file")
    return found


def _items(text: str, keys: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    """Yield the members of some lists, or of some objects, of the outermost object, one after the other."""
    decode = json.JSONDecoder().raw_decode

    def skip(position: int) -> int:
        found = _GAP.match(text, position)
        return found.end() if found else position

    position = skip(0)
    if text[position : position + 1] != "{":
        raise ValueError("it does not begin with an object")
    position = skip(position + 1)
    while text[position] != "}":
        key, position = decode(text, position)
        position = skip(position)
        opening = text[position]
        if key not in keys or opening not in "[{":
            _, position = decode(text, position)
            position = skip(position)
            continue
        position = skip(position + 1)
        while text[position] not in "]}":
            if opening == "{":  # some of LIVECell's files have annotations by number
                _, position = decode(text, position)
                position = skip(position)
            item, position = decode(text, position)
            position = skip(position)
            yield key, item
        position = skip(position + 1)


def _outline(item: dict[str, Any]) -> Outline:
    shape = item["segmentation"]
    area = 1.0 if item.get("iscrowd") else float(item.get("area", 1.0))
    if isinstance(shape, dict):
        counts = shape["counts"]
        return Outline(area, (), np.array(_decoded(counts) if isinstance(counts, str) else counts, np.int64))
    corners = [(np.array(flat, np.float64).reshape(-1, 2) * SCALE + 0.5).astype(np.int32) for flat in shape]
    return Outline(area, tuple(corners), None)


def _decoded(text: str) -> list[int]:
    """Read compressed run lengths: 5 bits a character, lowest first; late ones as differences to the last but one."""
    counts: list[int] = []
    value = shift = 0
    for code in text.encode("ascii"):
        bits = code - 48
        value |= (bits & 0x1F) << shift
        shift += 5
        if bits & 0x20:
            continue
        if bits & 0x10:
            value -= 1 << shift
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
        value = shift = 0
    return counts


def draw_instances(image: CocoImage, min_size: int = 0) -> NDArray[np.int32]:
    """Return the instances (y, x) of an image, from 1; 0 is background.

    Where instances overlap, the larger one wins, which leaves fewer slivers of doubly annotated cells; instances of
    which less than ``min_size`` pixels remain are background. Both as torch-em prepares LIVECell.
    """
    height, width = image.shape
    labels = np.zeros(height * width, np.int32)  # down the columns
    for number, outline in enumerate(sorted(image.outlines, key=lambda o: o.area), start=1):
        if outline.counts is not None:
            begin, inside = 0, np.repeat(np.arange(len(outline.counts)) % 2 == 1, outline.counts)
            if len(inside) != len(labels):
                raise InputError(
                    f"an instance of {image.name} has {len(inside)} pixels in runs, not {height} x {width}; "
                    "fetch the annotations again"
                )
            labels[inside] = number
        for corners in outline.polygons:
            begin, inside = _filled(corners, height, width)
            labels[begin : begin + len(inside)][inside] = number
    drawn = labels.reshape(width, height).T
    if min_size > 1:
        drawn = np.where((np.bincount(labels) < min_size)[drawn], 0, drawn)
    return np.ascontiguousarray(segmentation.relabel_sequential(drawn)[0], dtype=np.int32)  # type: ignore[no-untyped-call]


def _filled(corners: NDArray[np.int32], height: int, width: int) -> tuple[int, NDArray[np.bool_]]:
    """Fill a polygon as pycocotools does; return the first pixel of a stretch down the columns, and which are inside.

    The outline is walked in steps of a fifth of a pixel. Wherever it passes the middle of a column, inside and outside
    change from that pixel on.
    """
    x, y = _walk(corners)
    step = np.flatnonzero(np.diff(x)) + 1
    # The middle of column c lies at 5 c + 2, and the walk passes it from there to 5 c + 3 or back.
    left = np.minimum(x[step], x[step - 1])
    step = step[(left % SCALE == SCALE // 2) & (left >= 0) & (left <= SCALE * width - 1)]
    column = np.minimum(x[step], x[step - 1]) // SCALE
    row = (np.minimum(y[step], y[step - 1]) + 0.5) / SCALE - 0.5
    row = np.ceil(row.clip(0, height)).astype(np.int64)
    place = column.astype(np.int64) * height + row
    if not len(place):
        return 0, np.zeros(0, bool)
    begin, end = int(place.min()), min(int(place.max()), height * width)
    changes = np.bincount(place - begin, minlength=end - begin + 1)
    return begin, (np.cumsum(changes[: end - begin]) & 1).astype(bool)


def _walk(corners: NDArray[np.int32]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return x and y of all points on a closed polygon, one a step along the longer axis of each edge."""
    start = corners.astype(np.int64)
    stop = np.roll(start, -1, axis=0)
    length = np.abs(stop - start)
    flat = length[:, 0] >= length[:, 1]
    along = np.where(flat, 0, 1)
    edges = np.arange(len(start))
    # Edges are drawn from their lower end, so that an edge and its reverse have the same points.
    flip = start[edges, along] > stop[edges, along]
    low, high = np.where(flip[:, None], stop, start), np.where(flip[:, None], start, stop)
    steps = length[edges, along]
    slope = (high - low)[edges, 1 - along] / np.maximum(steps, 1)
    edge = np.repeat(edges, steps + 1)
    t = np.arange(len(edge)) - np.repeat(np.cumsum(steps + 1) - (steps + 1), steps + 1)
    t = np.where(flip[edge], steps[edge] - t, t)
    main = low[edge, along[edge]] + t
    other = (low[edge, 1 - along[edge]] + slope[edge] * t + 0.5).astype(np.int64)
    return np.where(flat[edge], main, other), np.where(flat[edge], other, main)
