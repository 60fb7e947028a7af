"""What all configuration shares: the frozen base of every section, and the types of values."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Positive = Annotated[int, Field(ge=1)]
NonNegative = Annotated[int, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Shape2 = tuple[Positive, Positive]
Shape3 = tuple[Positive, Positive, Positive]
Halo2 = tuple[NonNegative, NonNegative]
Point3 = tuple[NonNegative, NonNegative, NonNegative]
Halo3 = tuple[NonNegative, NonNegative, NonNegative]


class Section(BaseModel):
    """Base of all configuration: frozen, and no key that it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)
