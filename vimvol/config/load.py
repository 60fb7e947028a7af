"""Reads configuration from YAML and ``key=value`` overrides, and explains in one line what does not fit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError

from vimvol.config.base import Section
from vimvol.config.explain import explain, shown
from vimvol.errors import ConfigError

ConfigT = TypeVar("ConfigT", bound=Section)


def load_config(
    kind: type[ConfigT], path: str | None = None, overrides: Sequence[str] | Mapping[str, Any] = ()
) -> ConfigT:
    """Read a configuration from a YAML file and overrides.

    Parameters
    ----------
    kind
        The configuration model to fill.
    path
        YAML file with any part of it; none: defaults only. Its key ``base`` names another file, relative to it, whose
        values it changes: sections are merged key by key, everything else is replaced.
    overrides
        ``section.key=value`` texts (value in YAML), or a mapping from ``section.key`` to a value; later ones win.

    Raises
    ------
    ConfigError
        If the file is missing or no YAML, a key is unknown or a value does not fit.
    """
    data = read_config(path) if path is not None else {}
    pairs = overrides.items() if isinstance(overrides, Mapping) else [_split(text) for text in overrides]
    keys = []
    for key, value in pairs:
        _put(data, key, value)
        keys.append(key)
    return parse_config(kind, data, path or "the configuration", keys)


def parse_config(
    kind: type[ConfigT], data: Mapping[str, Any], source: str = "the configuration", overridden: Sequence[str] = ()
) -> ConfigT:
    """Validate a mapping as a configuration; errors become one line of `ConfigError`.

    Parameters
    ----------
    kind
        The configuration model to fill.
    data
        Its content.
    source
        Where it is from, for errors.
    overridden
        Keys that are not from there but were set one by one.
    """
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        raise ConfigError(explain(kind, error, source, overridden, data)) from None


def read_config(path: str) -> dict[str, Any]:
    """Read a YAML file on top of its ``base``, not yet validated.

    Raises
    ------
    ConfigError
        If a file is missing or no YAML.
    """
    return _read_with_base(path)


def _read_with_base(path: str, above: tuple[Path, ...] = ()) -> dict[str, Any]:
    """Read a file on top of the one that its ``base`` names; ``above`` are the files that led here."""
    here = Path(path).resolve()
    if here in above:
        raise ConfigError(f"configuration {path} is its own base, by way of {above[-1].name}; remove one 'base'")
    data = _read_yaml(path)
    base = data.pop("base", None)
    if base is None:
        return data
    if not isinstance(base, str):
        raise ConfigError(
            f"base = {shown(base)} in {path} is no path; give the YAML file to start from, relative to it"
        )
    return _merge(_read_with_base(str(Path(path).parent / base), (*above, here)), data)


def _merge(below: dict[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        merged[key] = _merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


def _read_yaml(path: str) -> dict[str, Any]:
    try:
        data = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"configuration {path} does not exist; give the path of a YAML file") from None
    except (OSError, UnicodeDecodeError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or error
        raise ConfigError(f"configuration {path} cannot be read ({reason}); give a readable YAML file") from None
    except yaml.YAMLError as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"configuration {path} is not valid YAML ({reason}); correct it") from None
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise ConfigError(
            f"configuration {path} holds a {type(data).__name__}, not sections; write 'section: {{key: value}}'"
        )
    return data


def _split(text: str) -> tuple[str, Any]:
    key, found, value = text.partition("=")
    if not found or not key:
        raise ConfigError(f"override {text!r} has no 'key=value' form; write it as section.key=value")
    try:
        return key.strip(), yaml.safe_load(value)
    except yaml.YAMLError:
        raise ConfigError(f"override {text!r} has a value that is not valid YAML; quote it") from None


def _put(data: dict[str, Any], key: str, value: Any) -> None:  # noqa: ANN401 - any YAML value
    *parents, last = key.split(".")
    for parent in parents:
        child = data.setdefault(parent, {})
        if not isinstance(child, dict):
            raise ConfigError(f"key {key!r} goes through {parent!r}, which is a value and no section; shorten it")
        data = child
    data[last] = value
