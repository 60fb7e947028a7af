"""The reference of all settings, made of the configuration models: names, what they take, defaults, descriptions."""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from vimvol.config.cluster import KINDS
from vimvol.config.explain import example_of, section_in
from vimvol.config.segment import SegmentConfig
from vimvol.config.train import TrainConfig
from vimvol.errors import InputError

COMMANDS = ("segment", "train", "cluster")
"""What settings are for; of a cluster they stand in the file that ``--cluster`` names."""
PLAIN: dict[Any, str] = {int: "whole number", float: "number", str: "text", bool: "true or false", Any: "anything"}
SIGNS = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}
"""By the names of limits in pydantic."""


@dataclass(frozen=True)
class Setting:
    """One setting.

    Attributes
    ----------
    full
        Its name among all: that of a training begins with ``train.``, of a cluster with ``cluster.KIND.``.
    name
        The dotted name that ``--set`` takes, or under which it stands in a file; of each of a list, ``volumes[].raw``.
    takes
        What values it takes, and in which range.
    default
        As YAML has it; ``required`` where one has to be given.
    description
        What it means, with unit and order of axes.
    """

    full: str
    name: str
    takes: str
    default: str
    description: str


@dataclass(frozen=True)
class Group:
    """The settings of a section.

    Attributes
    ----------
    name
        Name of the section among all, as `Setting.full`.
    about
        What it is for, one line.
    settings
        In the order of the model.
    """

    name: str
    about: str
    settings: tuple[Setting, ...]


def all_groups(command: str) -> list[Group]:
    """Return all settings of one of `COMMANDS`, section by section."""
    if command == "segment":
        return list(_groups(SegmentConfig, "", ""))
    if command == "train":
        return list(_groups(TrainConfig, "train.", ""))
    found: list[Group] = []
    for kind in dict.fromkeys(KINDS.values()):
        names = [name for name, other in KINDS.items() if other is kind]
        also = f" So for {', '.join(names[1:])}." if len(names) > 1 else ""
        groups = list(_groups(kind, f"cluster.{names[0]}.", ""))
        found += [replace(groups[0], about=groups[0].about + also), *groups[1:]]
    return found


def find_groups(name: str = "", command: str = "") -> list[Group]:
    """Return the settings whose names are, or begin with, a name; of no name, all of ``segment``.

    Parameters
    ----------
    name
        One of `COMMANDS`, a section, or a setting as `Setting.full` or `Setting.name` has it; or the last word of one.
    command
        The one of `COMMANDS` to look among; empty: all of them.

    Raises
    ------
    InputError
        If no setting is called so.
    """
    if not command and name in ("", *COMMANDS):
        return all_groups(name or "segment")
    groups = [group for each in ([command] if command else COMMANDS) for group in all_groups(each)]
    plain = name.replace("[]", "")
    for fits in (
        lambda one: _begins(one.full, plain),
        lambda one: _begins(one.name, plain),
        lambda one: _begins(one.full, f"{command or 'cluster'}.{plain}"),
        lambda one: one.name.rpartition(".")[2] == plain,
    ):
        if found := _only(groups, fits):
            return found
    names = dict.fromkeys(setting.full for group in groups for setting in group.settings)
    words = {full.rpartition(".")[2]: full for full in reversed(names)}
    near = [words[word] for word in difflib.get_close_matches(plain.rpartition(".")[2], words, n=2)]
    sections = dict.fromkeys(name.partition(".")[0] for name in names)
    close = difflib.get_close_matches(plain, sections, n=1, cutoff=0.7) if "." not in plain else []
    close = close or list(dict.fromkeys([*difflib.get_close_matches(plain, names, n=2), *near]))
    hint = f"did you mean {' or '.join(map(repr, close))}? " if close else ""
    of = f"no setting of {command}" if command else "no setting"
    raise InputError(f"{of} is called {name!r}; {hint}choose one of {', '.join(sections)}, or give none for all")


def _begins(full: str, wanted: str) -> bool:
    return f"{full.replace('[]', '')}.".startswith(f"{wanted}.")


def _only(groups: list[Group], fits: Callable[[Setting], bool]) -> list[Group]:
    """Return the groups with those settings alone that fit, without empty ones."""
    cut = [replace(group, settings=tuple(filter(fits, group.settings))) for group in groups]
    return [group for group in cut if group.settings]


def _groups(section: type[BaseModel], place: str, before: str) -> Iterator[Group]:
    """Yield a section and those in it; ``place`` is what precedes ``before`` in `Setting.full`."""
    settings, inner = [], []
    for key, field in section.model_fields.items():
        name = f"{before}{field.alias or key}"
        if (within := section_in(field.annotation)) is not None:
            several = "[]" if get_origin(field.annotation) is tuple else ""
            inner += list(_groups(within, place, f"{name}{several}."))
            if not field.description:  # it is nothing but its keys
                continue
        settings.append(Setting(place + name, name, takes(field), _default(field), _meaning(field)))
    if settings:
        about = " ".join((section.__doc__ or "").split("\n\n")[0].replace("``", "").replace("`", "").split())
        yield Group((place + before).rstrip("."), about, tuple(settings))
    yield from inner


def takes(field: FieldInfo) -> str:
    """Return what values a setting takes, e.g. ``list of 2 whole numbers >= 1, or null``."""
    text = _takes(field.annotation, field.metadata)
    pattern = any(getattr(each, "pattern", None) for each in field.metadata)
    return f"{text} like {field.examples[0]}" if pattern and field.examples else text


def _takes(annotation: Any, metadata: Any = ()) -> str:  # noqa: ANN401 - typing objects have no common type
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        inside = [each for part in arguments[1:] for each in (part.metadata if isinstance(part, FieldInfo) else [part])]
        return _takes(arguments[0], inside)
    if origin is Literal:
        return " | ".join(map(str, arguments))
    if origin is tuple:
        each = _takes(arguments[0])
        count = "" if ... in arguments else f"{len(arguments)} "
        return f"list of {count}{_several(each)}"
    if origin is dict:
        return "keys and values"
    if type(None) in arguments:
        (other,) = (each for each in arguments if each is not type(None))
        return f"{_takes(other, metadata)}, or null"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "section"
    limits = [
        f"{sign} {getattr(each, limit):g}" for limit, sign in SIGNS.items() for each in metadata if hasattr(each, limit)
    ]
    return " ".join([PLAIN.get(annotation, "text"), " and ".join(limits)]).strip()


def _several(text: str) -> str:
    """Return the plural of what `_takes` returns."""
    for one in ("list", "whole number", "number", "section", "text"):
        if text.startswith(one):
            return f"{one}s{text.removeprefix(one)}"
    return text


def _meaning(field: FieldInfo) -> str:
    """Return the description of a setting, with a list that it takes where the default shows none."""
    example = None if isinstance(field.default, tuple) and field.default else example_of(field)
    return (field.description or "") + ("" if example is None else f"; e.g. {json.dumps(example)}")


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    return value if isinstance(value, str) and value else json.dumps(value)
