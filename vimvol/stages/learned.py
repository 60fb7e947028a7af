"""Learned costs: the file that a job names, checked before anything runs and read once a process."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from vimvol.address import absolute, is_file
from vimvol.config import FragmentsConfig, SegmentConfig
from vimvol.errors import InputError, StorageError
from vimvol.io.errors import as_given, storage_errors
from vimvol.segment.edges import GRAPH_FORMAT
from vimvol.segment.features import feature_names
from vimvol.segment.forest import Forest

TABLES = "format of the tables"
"""Entry of a card, `GRAPH_FORMAT`; the first files had none."""

BOUNDARY = "boundary"
"""Setting ``agglomerate.costs`` for costs from the mean boundary probability."""


@dataclass(frozen=True)
class Learned:
    """A file of `vimvol train-edges`.

    Attributes
    ----------
    path
        Where it is.
    digest
        SHA-256 of its content.
    """

    path: str
    digest: str


@as_given()
def find_learned(config: SegmentConfig, fragments: FragmentsConfig, *, stitched: bool) -> Learned | None:
    """Return what ``agglomerate.costs`` names; none for costs from boundaries.

    Raises
    ------
    InputError
        If there is no such file, or it does not fit the edges of the job.
    """
    name = config.agglomerate.costs
    if name == BOUNDARY:
        return None
    if stitched:
        raise InputError(
            f"agglomerate.costs = {name} would not be used, as fragments are whole instances here that are joined "
            f"across tiles only; set agglomerate.costs={BOUNDARY}, or fragments.seeds=distance"
        )
    path = absolute(name)
    if not is_file(path):
        raise InputError(
            f"agglomerate.costs = {name} is no file; give {BOUNDARY} or a file that vimvol train-edges wrote"
        )
    forest, digest = _read(path)
    missing = [feature for feature in forest.names if feature not in feature_names()]
    if missing:
        raise InputError(
            f"agglomerate.costs = {name} looks at the feature {missing[0]!r}, which edges do not have; train it again "
            "with vimvol train-edges"
        )
    if (forest.card or {}).get(TABLES) != str(GRAPH_FORMAT):
        raise InputError(
            f"agglomerate.costs = {name} was saved by another version of vimvol, whose edges were measured otherwise, "
            "so its costs would be wrong; train it again with vimvol train-edges, on outputs segmented by this version"
        )
    trained, here = (forest.card or {}).get("edges"), kind_of(config, fragments)
    if trained != here:
        raise InputError(
            f"agglomerate.costs = {name} was trained on {trained}, and these are {here}, so features mean something "
            "else; train one on an output like this"
        )
    return Learned(path, digest)


def kind_of(config: SegmentConfig, fragments: FragmentsConfig) -> str:
    """Return what edges a job has; features of one kind mean nothing for another."""
    if config.segment.mode == "2d":
        return "edges within slices"
    return f"edges of {fragments.dimension} fragments"


def forest_of(learned: Learned) -> Forest:
    """Return the forest of a file.

    Raises
    ------
    InputError
        If it is not the same file any more.
    """
    return _same(learned)


@lru_cache(maxsize=4)
def _same(learned: Learned) -> Forest:
    forest, digest = _read(learned.path)
    if digest != learned.digest:
        raise InputError(f"{learned.path} has changed while it was used; start again")
    return forest


def learned_card(path: str) -> dict[str, str] | None:
    """Return what a file tells of the learned costs that it holds; none if it holds none."""
    try:
        return dict(_read(path)[0].card or {})
    except (InputError, StorageError):
        return None


def _read(path: str) -> tuple[Forest, str]:
    with storage_errors(f"reading {path}"):
        data = Path(path).read_bytes()
    try:
        return Forest.from_bytes(data), hashlib.sha256(data).hexdigest()
    except ValueError as error:
        raise InputError(
            f"{path} holds no learned costs ({error}); give a file that vimvol train-edges wrote"
        ) from None
