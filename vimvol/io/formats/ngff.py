"""Metadata of OME-Zarr images, versions 0.1 to 0.5: which arrays, axes, voxel sizes, labels."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vimvol.geometry import AXES

INCOMPLETE = "vimvol-incomplete"
"""Attribute of a group that shall become an image, and whose creation has begun and not ended."""

_PREFIXES = {
    "": 1e9, "atto": 1e-9, "femto": 1e-6, "pico": 1e-3, "nano": 1.0, "micro": 1e3, "milli": 1e6, "centi": 1e7,
    "deci": 1e8, "deca": 1e10, "hecto": 1e11, "kilo": 1e12,
}  # fmt: skip
_SHORT = {
    "angstrom": 0.1, "Å": 0.1, "nm": 1.0, "um": 1e3, "µm": 1e3, "μm": 1e3, "micron": 1e3, "microns": 1e3,
    "mm": 1e6, "cm": 1e7, "m": 1e9, "pm": 1e-3, "inch": 2.54e7, "foot": 3.048e8, "yard": 9.144e8,
}  # fmt: skip


@dataclass(frozen=True)
class Level:
    """One array of an image; tuples follow the stored axes.

    Attributes
    ----------
    path
        Of the array, inside the image's group.
    axes
        Names out of `AXES`; empty where the metadata name others.
    scale, translation
        nm along space axes.
    known
        Whether every space axis has a scale with a known unit; without one, numbers are taken as nm.
    """

    path: str
    axes: str
    scale: tuple[float, ...]
    translation: tuple[float, ...]
    known: bool


def nanometers(unit: object) -> float | None:
    """Return how many nm a unit of length has; none where the unit is missing or unknown."""
    if not isinstance(unit, str):
        return None
    if unit in _SHORT:
        return _SHORT[unit]
    name = unit.lower().removesuffix("s")
    for ending in ("meter", "metre"):
        if name.endswith(ending):
            return _PREFIXES.get(name.removesuffix(ending))
    return _SHORT.get(name)


def ome(attributes: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the OME part of a group's attributes: below ``ome`` in 0.5, the attributes themselves before."""
    inner = attributes.get("ome")
    return inner if isinstance(inner, Mapping) else attributes


def levels(attributes: Mapping[str, Any]) -> list[Level]:
    """Return the arrays of the first multiscale image that a group's attributes describe, finest first; or none."""
    multiscales = ome(attributes).get("multiscales")
    if not isinstance(multiscales, Sequence) or not multiscales or not isinstance(multiscales[0], Mapping):
        return []
    image = multiscales[0]
    axes, units = _axes(image.get("axes"))
    outer = image.get("coordinateTransformations")
    datasets = image.get("datasets")
    listed = datasets if isinstance(datasets, Sequence) else ()
    named = (d for d in listed if isinstance(d, Mapping) and isinstance(d.get("path"), str))
    return [_level(dataset, axes, units, outer) for dataset in named]


def label_names(attributes: Mapping[str, Any]) -> list[str]:
    """Return the names that the attributes of a ``labels`` group list."""
    listed = ome(attributes).get("labels")
    return [str(n) for n in listed] if isinstance(listed, Sequence) and not isinstance(listed, str) else []


def _axes(entries: Any) -> tuple[str, list[float | None]]:  # noqa: ANN401 - what a file holds
    """Return the names of the axes, and nm per unit of each: 1 for channel and time."""
    if entries is None:  # 0.1 and 0.2
        return AXES, [1.0, 1.0, None, None, None]
    if not isinstance(entries, Sequence) or not all(isinstance(entry, str | Mapping) for entry in entries):
        return "", []
    letters, units = [], []
    for entry in entries:
        name, kind, unit = (entry, None, None) if isinstance(entry, str) else _axis(entry)
        space = kind == "space" or (kind is None and name.lower() in {"z", "y", "x"})
        letters.append(_letter(name, kind))
        units.append(nanometers(unit) if space else 1.0)
    axes = "".join(letters)
    usable = len(axes) == len(entries) == len(set(axes))
    return (axes if usable else ""), units


def _axis(entry: Mapping[str, Any]) -> tuple[str, str | None, Any]:
    kind = entry.get("type")
    return str(entry.get("name", "")), kind if isinstance(kind, str) else None, entry.get("unit")


def _letter(name: str, kind: str | None) -> str:
    if len(name) == 1 and name.lower() in AXES:
        return name.lower()
    return {"channel": "c", "time": "t"}.get(kind or "", "")


def _level(dataset: Mapping[str, Any], axes: str, units: list[float | None], outer: Any) -> Level:  # noqa: ANN401
    rank = len(units)
    inner_scale, inner_shift, inner_known = _transform(dataset.get("coordinateTransformations"), rank)
    outer_scale, outer_shift, outer_known = _transform(outer, rank)
    scale = [a * b for a, b in zip(inner_scale, outer_scale, strict=True)]
    shift = [t * b + u for t, b, u in zip(inner_shift, outer_scale, outer_shift, strict=True)]
    nm = [1.0 if u is None else u for u in units]
    scale, shift = ([a * n for a, n in zip(each, nm, strict=True)] for each in (scale, shift))
    usable = all(0 < s < math.inf for s in scale)  # products of what is may be none
    return Level(
        path=dataset["path"].strip("/"),
        axes=axes,
        scale=tuple(scale) if usable else (1.0,) * rank,
        translation=tuple(shift) if all(map(math.isfinite, shift)) else (0.0,) * rank,
        known=usable and (inner_known or outer_known) and None not in units,
    )


def _transform(entries: Any, rank: int) -> tuple[list[float], list[float], bool]:  # noqa: ANN401 - what a file holds
    """Return scale, translation, and whether a scale is given, as far as they are numbers.

    Transformations stored in arrays are not followed.
    """
    scale, shift, known = [1.0] * rank, [0.0] * rank, False
    for entry in entries if isinstance(entries, Sequence) else ():
        kind = entry.get("type") if isinstance(entry, Mapping) else None
        values = entry.get(kind) if isinstance(kind, str) else None
        numbers = finite(values)
        if len(numbers) != rank:
            continue
        if kind == "scale" and all(n > 0 for n in numbers):
            scale, shift, known = (
                [s * n for s, n in zip(scale, numbers, strict=True)],
                [t * n for t, n in zip(shift, numbers, strict=True)],
                True,
            )
        elif kind == "translation":
            shift = [t + n for t, n in zip(shift, numbers, strict=True)]
    return scale, shift, known


def finite(values: Any) -> list[float]:  # noqa: ANN401 - what a file holds
    """Return a list of finite numbers; an empty one where it is none."""
    try:
        listed = isinstance(values, Sequence) and not isinstance(values, str)
        numbers = [float(v) for v in values] if listed else []
    except (TypeError, ValueError, OverflowError):
        return []
    return numbers if all(map(math.isfinite, numbers)) else []
