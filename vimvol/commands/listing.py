"""What there is: the networks, and the arrays of a container, as rows of a table."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Mapping
from typing import Any

from vimvol.address import absolute, parse_address, without_format
from vimvol.errors import CheckpointError, InputError, StorageError
from vimvol.io import describe
from vimvol.models.checkpoint import read_spec, shipped
from vimvol.models.registry import MODELS, count_parameters, default_options
from vimvol.outputs.standing import check_finished

Table = tuple[list[str], list[list[str]]]
"""Names of the columns, and the rows."""


def model_rows() -> Table:
    """Return the networks: name, parameters, whether weights come with the package and on what terms, purpose."""
    weights = shipped()
    rows = []
    for name, entry in MODELS.items():
        terms = "none"
        if name in weights:
            card = read_spec(weights[name]).card
            terms = card.get("licence", "see the card")
        rows.append([name, f"{count_parameters(name):,}", terms, entry.purpose])
    return ["name", "parameters", "shipped weights", "what it is for"], rows


def card_rows(name: str) -> Table:
    """Return the card of weights, shipped or in a file: architecture and its options, data, licence, commit, scores.

    Of a network that no weights come with: its parameters and options. Of learned costs: what they were learned from.

    Raises
    ------
    InputError
        If there are no such weights.
    """
    if name in MODELS and name not in shipped():
        about = {"weights": "none come with the package", "what it is for": MODELS[name].purpose}
        about |= {"parameters": f"{count_parameters(name):,}", "options": _options(default_options(name))}
        return ["network", name], [[key, value] for key, value in about.items()]
    try:
        spec = read_spec(name)
    except CheckpointError:
        from vimvol.stages.learned import learned_card  # with the loops that it compiles

        if (card := learned_card(name)) is None:
            raise
        return ["card", name], [[key, value] for key, value in card.items()]
    sizes = "; ".join(_sizes(size) for size in spec.voxel_sizes) or "unknown"
    known = default_options(spec.architecture) if spec.architecture in MODELS else {}
    options = _options({**known, **spec.options})
    facts = {
        "architecture": spec.architecture,
        "options": options,
        "classes": ", ".join(spec.classes),
        "voxel sizes, nm": sizes,
    }
    return ["card", name], [[key, value] for key, value in {**facts, **_readable(spec.card)}.items()]


def volume_rows(path: str) -> Table:
    """Return the arrays of a container: dataset, shape, dtype, axes, voxel size, chunks, shards, size in memory.

    Raises
    ------
    InputError
        If there is none, or as `describe` does.
    """
    out = without_format(absolute(parse_address(path)[0]))
    try:
        arrays = describe(path)
    except InputError:
        with contextlib.suppress(StorageError):  # then what opening told is all that is known
            check_finished(path, "there is no array yet")
        raise
    if not arrays:
        check_finished(path, "there is no array yet")
        raise InputError(f"{out} holds no array, so there is nothing to show; check the path, or what wrote it")
    names = ["dataset", "shape", "dtype", "axes", "voxel size (z, y, x), nm", "chunk", "shard", "uncompressed"]
    rows = [
        [
            array.dataset or "-",
            _sizes(array.shape),
            array.dtype,
            array.axes or "?",
            _sizes(array.voxel_size) if array.voxel_size else "unknown",
            _sizes(array.chunks) if array.chunks else "-",
            _sizes(array.shards) if array.shards else "-",
            f"{array.nbytes / 1e6:,.1f} MB",
        ]
        for array in arrays
    ]
    return names, rows


def _readable(card: Mapping[str, str]) -> dict[str, str]:
    """Return a card without the threshold of the best score where the export made .5 of it: nobody is to set it."""
    found = re.search(r"(^|, )threshold ([\d.]+)", card.get("scores", ""))
    if found is None or "calibration" not in card:
        return dict(card)
    left = card["scores"].replace(found[0], "", 1).removeprefix(", ")
    told = f"logits are shifted: where {found[2]} scored best as a threshold, .5 does now, so none has to be set"
    return {**card, "scores": left, "calibration": told}


def _options(options: Mapping[str, Any]) -> str:
    """Return options as ``options`` of a training's configuration takes them."""
    return ", ".join(f"{key}: {json.dumps(value)}" for key, value in options.items())


def _sizes(values: tuple[float, ...] | tuple[int, ...]) -> str:
    return " x ".join(f"{value:g}" if isinstance(value, float) else str(value) for value in values)
