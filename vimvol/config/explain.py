"""What does not fit in a configuration, as one line: the value, what is wrong with it, and what to write instead."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from vimvol.config.base import Section

MOST_SUGGESTED = 3
"""Keys that are suggested at most in place of one that is unknown."""


def explain(kind: type[Section], error: ValidationError, source: str, overridden: Sequence[str]) -> str:
    """Return the first of the errors as one line.

    Parameters
    ----------
    kind
        The configuration model.
    error
        What its validation raised.
    source
        Where the content is from.
    overridden
        Keys that are not from there but were set one by one.
    """
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    if where and any(f"{where}.".startswith(f"{key}.") or key.startswith(f"{where}.") for key in overridden):
        source = "what was set"
    more = error.error_count() - 1
    rest = f" ({more} more like this)" if more else ""
    if first["type"] == "extra_forbidden":
        valid = _valid_keys(kind, first["loc"][:-1])
        close = " or ".join(map(repr, _suggested(kind, first["loc"], valid)))
        hint = f"did you mean {close}? " if close else ""
        return f"unknown key {where!r} in {source}{rest}; {hint}valid keys here: {', '.join(valid)}"
    _, field = _walk(kind, first["loc"])
    meaning = f"; it is: {field.description}" if field is not None and field.description else ""
    if first["type"] in ("missing", "too_long") and isinstance(first["input"], list | tuple):
        return _explain_length(error, source, meaning)
    if first["type"] == "missing":
        return f"key {where!r} is missing in {source}{rest}; add it"
    message = "a list of values is wanted" if first["type"] == "tuple_type" else first["msg"]
    message = message.removeprefix("Value error, ")
    if first["type"] == "value_error" and isinstance(first["input"], Mapping):  # values that do not go together
        return f"{f'{where} in ' if where else ''}{source} does not fit{rest}: {message}"
    return f"{where} = {first['input']!r} in {source} does not fit{rest}: {message}{meaning}"


def _explain_length(error: ValidationError, source: str, meaning: str) -> str:
    """Explain a list of values, of which there are too few or too many."""
    first = error.errors()[0]
    given = first["input"]
    if first["type"] == "too_long":
        location, wanted = first["loc"], first["ctx"]["max_length"]
    else:  # every value that is missing is an error of its own
        location = first["loc"][:-1]
        of_list = [each["loc"][-1] for each in error.errors() if each["loc"][:-1] == location]
        wanted = max(part for part in of_list if isinstance(part, int)) + 1
    where = ".".join(str(part) for part in location)
    values = "1 value" if len(given) == 1 else f"{len(given)} values"
    return f"{where} = {given!r} in {source} has {values}, and {wanted} are wanted{meaning}"


def _suggested(kind: type[Section], location: Sequence[int | str], valid: Sequence[str]) -> list[str]:
    """Return the keys, with their sections, that may be meant by an unknown one."""
    *parents, last = location
    before = "".join(f"{part}." for part in parents)
    everywhere = dict.fromkeys(_dotted(kind))
    same = [key for key in everywhere if key.rpartition(".")[2] == last]
    if same:
        return same[:MOST_SUGGESTED]
    if close := difflib.get_close_matches(str(last), valid, n=1):
        return [before + close[0]]
    names = sorted({key.rpartition(".")[2] for key in everywhere})
    close = difflib.get_close_matches(str(last), names, n=2, cutoff=0.7)
    return [key for name in close for key in everywhere if key.rpartition(".")[2] == name][:MOST_SUGGESTED]


def _dotted(section: type[BaseModel], before: str = "") -> Iterator[str]:
    """Yield every key of a configuration model that is set by itself, with those of the sections around it."""
    for name, field in section.model_fields.items():
        key = f"{before}{field.alias or name}"
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _dotted(field.annotation, f"{key}.")
        else:
            yield key


def _valid_keys(kind: type[Section], location: Sequence[int | str]) -> list[str]:
    """Return the keys of the section at a location inside a configuration model."""
    section, _ = _walk(kind, location)
    return [f.alias or n for n, f in section.model_fields.items()]


def _walk(kind: type[Section], location: Sequence[int | str]) -> tuple[type[BaseModel], FieldInfo | None]:
    """Return the innermost section that a location inside a configuration model leads to, and the last field met."""
    current: type[BaseModel] = kind
    met = None
    for part in location:
        if isinstance(part, int):
            continue
        field = next((f for n, f in current.model_fields.items() if part in (n, f.alias)), None)
        met = field or met
        inner = _section_in(field.annotation) if field is not None else None
        if inner is None:
            break
        current = inner
    return current, met


def _section_in(annotation: Any) -> type[BaseModel] | None:  # noqa: ANN401 - typing objects have no common type
    """Return the configuration model inside an annotation such as ``tuple[TrainVolume, ...]``."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in getattr(annotation, "__args__", ()):
        found = _section_in(argument)
        if found is not None:
            return found
    return None
