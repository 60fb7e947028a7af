"""Geometry of N5 arrays, as the attributes of several writers tell it: axes, voxel size, position.

All lists follow the stored axes, x first, but those of a ``transform``. What is no such list counts as unknown.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vimvol.geometry import are_axes
from vimvol.io.formats.base import guess_axes
from vimvol.io.formats.ngff import finite, nanometers

Chain = Sequence[tuple[str, Mapping[str, Any]]]
"""Attributes of an array and of the groups around it, inner first, each with the path of the array from there."""


@dataclass(frozen=True)
class Geometry:
    """Where the voxels of an array lie; tuples follow the stored axes.

    Attributes
    ----------
    axes
        Names out of `vimvol.geometry.AXES`; empty for a rank that is no volume's.
    scale, translation
        nm along space axes, 1 and 0 along others; none where nothing tells.
    known
        Whether the scale has a known unit; without one, numbers are taken as nm.
    """

    axes: str
    scale: tuple[float, ...] | None = None
    translation: tuple[float, ...] | None = None
    known: bool = False


def geometry(chain: Chain, rank: int) -> Geometry:
    """Return what the attributes tell, those of the array itself first.

    In this order: ``transform`` (COSEM) of the array or of its entry in ``multiscales`` of a group; ``pixelResolution``
    (n5-viewer); ``resolution`` and ``units`` (neuroglancer), nm without ``units``. A size that a group tells is that of
    its finest level, and ``scales`` or ``downsamplingFactors`` tell how much larger the voxels of others are.
    """
    own = chain[0][1]
    transforms = [own.get("transform"), *(_listed(attributes, tail) for tail, attributes in chain[1:])]
    for transform in transforms:
        found = _transformed(transform, rank)
        if found is not None:
            return found
    named = (_names(attributes.get("axes"), rank) for _, attributes in chain)
    axes = next(filter(None, named), guess_axes(rank)[::-1])
    space = [a in "zyx" for a in axes]
    size, units, depth = _size(chain, space)
    if size is None:
        return Geometry(axes)
    factors = _factors(chain, depth, space)
    nm = [1.0 if unit is None else unit for unit in units]
    finest = [s * n for s, n in zip(size, nm, strict=True)]
    offsets = (_spread(attributes.get("offset"), space, 0.0) for _, attributes in chain)
    first = next((o for o in offsets if o is not None), [0.0] * rank)
    shift = [(f - 1) / 2 * s + o * n for f, s, o, n in zip(factors, finest, first, nm, strict=True)]
    return _checked(axes, [f * s for f, s in zip(factors, finest, strict=True)], shift, None not in units)


def _transformed(transform: Any, rank: int) -> Geometry | None:  # noqa: ANN401 - what a file holds
    """Read COSEM's transform; its lists follow the axes of numpy, the last of which N5 stores first."""
    if not isinstance(transform, Mapping):
        return None
    axes = _names(transform.get("axes"), rank)
    size, place = finite(transform.get("scale")), finite(transform.get("translate"))
    if not axes or len(size) != rank:
        return None
    units = [nanometers(u) for u in _list(transform.get("units"))]
    units = units if len(units) == rank else [None] * rank
    nm = [(1.0 if u is None else u) if a in "zyx" else 1.0 for a, u in zip(axes, units, strict=True)]
    found = _checked(
        axes,
        [s * n if a in "zyx" else 1.0 for a, s, n in zip(axes, size, nm, strict=True)],
        [t * n if a in "zyx" else 0.0 for a, t, n in zip(axes, place or [0.0] * rank, nm, strict=False)],
        all(u is not None for a, u in zip(axes, units, strict=True) if a in "zyx"),
    )
    # without `order` it is that of numpy, but for writers that name x first, and mean the first axis
    order = transform.get("order")
    if order == "F" or (order is None and axes.index("x") < axes.index("y")):
        return found
    scale, shift = (None if values is None else values[::-1] for values in (found.scale, found.translation))
    return Geometry(axes[::-1], scale, shift, found.known)


def _checked(axes: str, scale: list[float], shift: list[float], known: bool) -> Geometry:
    """Return a geometry as far as its numbers can be those of voxels."""
    if not all(0 < s < math.inf for s in scale):
        return Geometry(axes)
    usable = len(shift) == len(scale) and all(map(math.isfinite, shift))
    return Geometry(axes, tuple(scale), tuple(shift) if usable else None, known)


def _listed(attributes: Mapping[str, Any], tail: str) -> Any | None:  # noqa: ANN401 - what a file holds
    """Return the transform of an array in COSEM's ``multiscales`` of a group; none where it is not listed."""
    for image in _list(attributes.get("multiscales")):
        for entry in _list(image.get("datasets")) if isinstance(image, Mapping) else ():
            if isinstance(entry, Mapping) and entry.get("path") == tail:
                return entry.get("transform")
    return None


def _size(chain: Chain, space: list[bool]) -> tuple[list[float] | None, list[float | None], int]:
    """Return voxel size, nm per unit of each axis, and how many groups up it was found."""
    rank = len(space)
    for depth, (_, attributes) in enumerate(chain):
        given = attributes.get("pixelResolution")
        unit = nanometers(given.get("unit")) if isinstance(given, Mapping) else None
        size = _spread(given.get("dimensions") if isinstance(given, Mapping) else given, space, 1.0)
        if size is not None:
            return size, [unit if s else 1.0 for s in space], depth
        size = _spread(attributes.get("resolution"), space, 1.0)
        if size is not None:
            return size, _units(chain, space), depth
    return None, [None] * rank, 0


def _units(chain: Chain, space: list[bool]) -> list[float | None]:
    """Return nm per unit of each axis, of the innermost ``units``; 1 where there are none, as in neuroglancer."""
    for _, attributes in chain:
        if "units" in attributes:
            given = _list(attributes["units"])
            units = given if len(given) == len(space) else [None] * len(space)
            return [nanometers(u) if s else 1.0 for u, s in zip(units, space, strict=True)]
    return [1.0] * len(space)


def _factors(chain: Chain, depth: int, space: list[bool]) -> list[float]:
    """Return how many times larger voxels are than the size that was found so many groups up."""
    level = re.fullmatch(r"s([0-9]+)", chain[1][0]) if depth else None
    for _, attributes in chain[1:] if level is not None else ():
        for name in ("scales", "downsamplingFactors"):
            listed = _list(attributes.get(name))
            if level is not None and len(listed) > int(level[1]):
                found = _spread(listed[int(level[1])], space, 1.0)
                if found is not None and min(found) > 0:
                    return found
    found = _spread(chain[0][1].get("downsamplingFactors"), space, 1.0)
    return found if found is not None and min(found) > 0 else [1.0] * len(space)


def _spread(values: Any, space: list[bool], default: float) -> list[float] | None:  # noqa: ANN401 - what a file holds
    """Return numbers for all axes, of a list for all or for those of space; none where it is neither."""
    found = finite(values)
    if found and len(found) == sum(space):
        each = iter(found)
        return [next(each) if s else default for s in space]
    if len(found) == len(space) and found:
        return [n if s else default for n, s in zip(found, space, strict=True)]
    return None


def _names(values: Any, rank: int) -> str:  # noqa: ANN401 - what a file holds
    """Return axes by their names; empty where these are not such of a volume."""
    values = _list(values)
    if len(values) != rank or not all(isinstance(v, str) for v in values):
        return ""
    long = {"channel": "c", "time": "t"}
    axes = "".join(long.get(v.lower(), v.lower()) for v in values)
    return axes if len(axes) == rank and are_axes(axes) else ""


def _list(value: Any) -> list[Any]:  # noqa: ANN401 - what a file holds
    return value if isinstance(value, list) else []
