"""What a finished output holds for others: its boundaries and segmentations, and digests of what they are made by."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vimvol.engine.ledger import content_key
from vimvol.errors import InputError
from vimvol.io.objects import open_objects
from vimvol.outputs.beside import note_of
from vimvol.outputs.manifest import parse_note
from vimvol.stages.names import BESIDE, NOTE, SEGMENTATION


@dataclass(frozen=True)
class Image:
    """One image of an output: where, a digest of what it holds, and its dtype in a copy; none: as it is."""

    path: str
    content: str
    dtype: str | None = None


def content_of(out: str, path: str) -> str | None:
    """Return the digest of what an image of the output holds at the moment; none where it is being made."""
    note = note_of(out, path)
    if note.get("state") != "complete":
        return None
    return boundaries_in(note) if not path else labels_in(note)


def boundaries_in(manifest: dict[str, Any]) -> str:
    """Return the digest of the boundaries that a manifest tells of."""
    return content_key(manifest["keys"]["predict"], manifest["keys"]["pyramid"])


def labels_in(note: dict[str, Any]) -> str:
    """Return the digest of the segmentation that a note tells of."""
    return content_key(note["keys"]["write"], note["keys"]["label-pyramid"])


def segmentations_of(
    out: str, manifest: dict[str, Any], names: Sequence[str], dtype: str, left_out: Collection[str] = ()
) -> list[Image]:
    """Return the segmentations to copy, that of the run first; without names, all complete ones but those left out.

    Raises
    ------
    InputError
        If one is not there, not complete, or has more segments than the dtype has numbers.
    """
    if dtype not in ("uint32", "uint64"):
        raise InputError(f"dtype {dtype!r} cannot hold a segmentation; give uint32 or uint64")
    beside = open_objects(f"{out}/vimvol/{BESIDE}")
    notes = {SEGMENTATION: manifest}
    for name in beside.names(""):
        notes[name] = parse_note(beside.get(f"{name}/{NOTE}"))
    if unknown := [name for name in names if name not in notes]:
        raise InputError(f"{out} has no segmentation {unknown[0]!r}; choose of {', '.join(notes)}")
    chosen = {name: note for name, note in notes.items() if name in names or not names}
    unfinished = [name for name, note in chosen.items() if note.get("state") != "complete"]
    if unfinished and unfinished[0] in names:
        raise InputError(f"segmentation {unfinished[0]!r} of {out} is not complete; run vimvol agglomerate again first")
    found = []
    for name in (name for name in chosen if name not in {*unfinished, *left_out}):
        segments = chosen[name]["segments"]
        if segments > np.iinfo(dtype).max:
            raise InputError(
                f"segmentation {name!r} has {segments} segments, more than {dtype} can number; give uint64"
            )
        found.append(Image(f"labels/{name}", labels_in(chosen[name]), dtype))
    return found
