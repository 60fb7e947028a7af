"""What all configuration shares: the frozen base of every section, and the types of values."""

from __future__ import annotations

import math
from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from vimvol.geometry import USABLE_AXES, are_axes

Positive = Annotated[int, Field(ge=1)]
NonNegative = Annotated[int, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Shape2 = tuple[Positive, Positive]
Shape3 = tuple[Positive, Positive, Positive]
Halo2 = tuple[NonNegative, NonNegative]
Point3 = tuple[NonNegative, NonNegative, NonNegative]
Halo3 = tuple[NonNegative, NonNegative, NonNegative]
Length = Annotated[float, Field(gt=0)]
Size3 = tuple[Length, Length, Length]


def _usable(axes: str) -> str:
    if not are_axes(axes.lower()):
        raise ValueError(f"use {USABLE_AXES}")
    return axes.lower()


Axes = Annotated[str, AfterValidator(_usable)]


def _finite(value: object) -> object:
    return None if isinstance(value, float) and not math.isfinite(value) else value


Missing = Annotated[float | None, BeforeValidator(_finite)]
"""An intensity of its own for what is missing; NaN and infinity are missing without being named."""


class Section(BaseModel):
    """Base of all configuration: frozen, no key that it does not know, and no number that JSON does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)
