"""What does not fit in a configuration, as one line: the value, what is wrong with it, and what to write instead."""

from __future__ import annotations

import difflib
import json
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from vimvol.config.base import Section

MOST_SUGGESTED = 3
"""Keys that are suggested at most in place of one that is unknown."""
WANTED = {
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "string_type": "text",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "dict_type": "keys and values, {key: value}",
}
"""What to give, by pydantic's name of the error."""
REFERENCES = defaultdict(
    lambda: "vimvol settings cluster --all",
    SegmentConfig="vimvol settings --all",
    TrainConfig="vimvol settings train --all",
)
"""Commands that describe the settings, by the names of the models."""
LIMITS = {"ge": "of at least", "gt": "above", "le": "of at most", "lt": "below"}
"""Limits of a value, by pydantic's names of them."""


def explain(
    kind: type[Section], error: ValidationError, source: str, overridden: Sequence[str], data: Mapping[str, Any]
) -> str:
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
    data
        What was validated.
    """
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    found = f" in {source}"
    if where and any(f"{where}.".startswith(f"{key}.") or key.startswith(f"{where}.") for key in overridden):
        found = ""  # who has just set it knows where
    more = error.error_count() - 1
    rest = f"; {more} more {'value does' if more == 1 else 'values do'} not fit either" if more else ""
    if first["type"] == "extra_forbidden":
        valid = _valid_keys(kind, first["loc"][:-1])
        close = " or ".join(map(repr, _suggested(kind, first["loc"], valid)))
        hint = f"did you mean {close}? " if close else ""
        reference = f"`{REFERENCES[kind.__name__]}` describes all"
        return f"unknown key {where!r}{found}{rest}; {hint}valid keys here: {', '.join(valid)}; {reference}"
    _, field = _walk(kind, first["loc"])
    if first["type"] in ("missing", "too_long") and isinstance(first["input"], list | tuple):
        return _explain_length(error, found, field)
    if first["type"] == "tuple_type" and field is not None:
        return _explain_form(error, found, field, data)
    if first["type"] == "missing":
        return f"key {where!r} is missing{found}{rest}; add it"
    if first["type"] == "value_error" and isinstance(first["input"], Mapping):  # values that do not go together
        message = first["msg"].removeprefix("Value error, ")
        return f"{f'{where} in ' if where else ''}{source} cannot be used: {message}{rest}"
    if first["type"] == "model_type":
        key = f"{where}.{_valid_keys(kind, first['loc'])[0]}"
        wanted = f"{where} is a section, set its keys, e.g. {key}"
        return f"{where} = {shown(first['input'])}{found} cannot be used: {wanted}{rest}"
    wanted = f"{_wanted(first, field)}{_example(where, field, found)}{_meaning(where, field)}"
    return f"{where} = {shown(first['input'])}{found} cannot be used: {wanted}{rest}"


def shown(value: object) -> str:
    """Return a value that was given, lists and mappings as they are written in YAML and on the command line."""
    return json.dumps(value, default=str) if isinstance(value, list | tuple | dict) else repr(value)


def _explain_form(error: ValidationError, found: str, field: FieldInfo, data: Mapping[str, Any]) -> str:
    """Explain what is no list, or holds something else than lists, as a whole: a part of it would not be understood."""
    location = _without_places(error.errors()[0]["loc"])
    where = ".".join(map(str, location))
    value: Any = data
    for part in location:
        value = value[part]
    others = sum(_without_places(each["loc"]) != location for each in error.errors())
    rest = f"; {others} more {'value does' if others == 1 else 'values do'} not fit either" if others else ""
    wanted = f"{list_text(field.annotation)}{_example(where, field, found)}{_meaning(where, field)}"
    return f"{where} = {shown(value)}{found} cannot be used: give {wanted}{rest}"


def _without_places(location: Sequence[int | str]) -> tuple[int | str, ...]:
    """Return the location of a list of which this is one of a value in it."""
    end = len(location)
    while end and isinstance(location[end - 1], int):
        end -= 1
    return tuple(location[:end])


def _example(where: str, field: FieldInfo | None, found: str) -> str:
    """Return a list that would fit, written as it is where the value was found; nothing of other values."""
    value = None if field is None else example_of(field)
    if value is None:
        return ""
    key = re.sub(r"(\.\d+)+$", "", where)
    if found:
        return f", e.g. {key.rpartition('.')[2]}: {json.dumps(value)}"
    return f", e.g. {key}='{json.dumps(value, separators=(',', ':'))}'"


def example_of(field: FieldInfo) -> Any:  # noqa: ANN401 - a list of whatever it takes
    """Return a list that a setting takes; none of one that takes no list, or tells none."""
    if field.examples:
        return field.examples[0] if isinstance(field.examples[0], list) else None
    return list(field.default) if isinstance(field.default, tuple) and field.default else None


def _meaning(where: str, field: FieldInfo | None) -> str:
    """Return in parentheses what a key means, if that is told."""
    if field is None or not field.description:
        return ""
    key = re.sub(r"(\.\d+)+$", "", where)  # of the list, not of one of its values
    return f" ({key}: {field.description})"


def _wanted(error: ErrorDetails, field: FieldInfo | None) -> str:
    """Return what to give in place of a value that does not fit, as a clause."""
    kind, limits = error["type"], error.get("ctx", {})
    if kind in WANTED:
        return f"give {WANTED[kind]}"
    if kind == "literal_error":
        return f"give {limits['expected']}"
    if kind == "string_pattern_mismatch" and field is not None and field.examples:
        return f"write it like {field.examples[0]!r}"
    own = {name: limits[name] for name in LIMITS if name in limits}
    if not own:
        message = error["msg"].removeprefix("Value error, ")
        return message[:1].lower() + message[1:]
    if field is not None and not isinstance(error["loc"][-1], int):
        both = {name: getattr(each, name) for each in field.metadata for name in LIMITS if hasattr(each, name)}
        own = both if own.items() <= both.items() else own
    if own.keys() == {"ge", "le"}:
        return f"give a value from {own['ge']:g} to {own['le']:g}"
    texts = [f"{LIMITS[name]} {limit:g}" for name, limit in sorted(own.items(), key=lambda each: each[0][0] == "l")]
    return f"give a value {' and '.join(texts)}"


def list_text(annotation: Any) -> str:  # noqa: ANN401 - typing objects have no common type
    """Return what list an annotation takes, e.g. ``a list of 2 values`` of ``tuple[int, int] | None``; else nothing."""
    arguments: tuple[Any, ...] = getattr(annotation, "__args__", ())
    if getattr(annotation, "__origin__", None) is not tuple:
        return next((text for each in arguments if (text := list_text(each))), "")
    if ... in arguments:
        return "a list of values"
    inner = list_text(arguments[0])
    return f"a list of {len(arguments)} {inner.replace('a list', 'lists') if inner else 'values'}"


def _explain_length(error: ValidationError, found: str, field: FieldInfo | None) -> str:
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
    told = f"{_example(where, field, found)}{_meaning(where, field)}"
    return f"{where} = {shown(given)}{found} has {values}: give {wanted}{told}"


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
        inner = section_in(field.annotation) if field is not None else None
        if inner is None:
            break
        current = inner
    return current, met


def section_in(annotation: Any) -> type[BaseModel] | None:  # noqa: ANN401 - typing objects have no common type
    """Return the configuration model inside an annotation such as ``tuple[TrainVolume, ...]``."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in getattr(annotation, "__args__", ()):
        found = section_in(argument)
        if found is not None:
            return found
    return None
