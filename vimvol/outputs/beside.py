"""Segmentations beside that of a run: what is noted of them, and whether they are made of what the output holds now.

A later run with other settings, or of another input, replaces boundaries, fragments or edges and leaves them as they
are: then they are stale, until they are made again.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from vimvol.errors import InputError
from vimvol.io.objects import open_objects
from vimvol.io.storage import join
from vimvol.outputs.ahead import AGGLOMERATING, as_options
from vimvol.outputs.manifest import MANIFEST, parse_note
from vimvol.stages.names import BESIDE, NOTE, SEGMENTATION

Json = Mapping[str, Any]

DAMAGED = (ValueError, KeyError, IndexError, TypeError, AttributeError)
"""What reading a note raises that does not hold what vimvol writes."""


def note_of(out: str, path: str) -> dict[str, Any]:
    """Return the manifest of the output, or the note of a segmentation beside, that tells what an image holds."""
    name = path.removeprefix("labels/")
    own = name in ("", SEGMENTATION)
    return parse_note(open_objects(out).get(MANIFEST if own else f"vimvol/{BESIDE}/{name}/{NOTE}"))


def latest_of(note: Json) -> Json:
    """Return the entry of a note with keys and settings of what was made last: itself, if that is complete."""
    latest: Json = note if note["state"] == "complete" else note["runs"][-1]
    return latest


def is_stale(note: Json, graph: str) -> bool:
    """Tell whether a segmentation is made of other edges than those of a key, which follow from all that is before.

    Raises
    ------
    KeyError, IndexError, TypeError
        If the note is damaged, see `DAMAGED`.
    """
    return bool(latest_of(note)["keys"]["graph"] != graph)


def command_for(out: str, name: str, made: Json, now: Json) -> str:
    """Return the command that makes a segmentation.

    Parameters
    ----------
    out, name
        Of the output, and of the segmentation.
    made, now
        Settings by section: of the segmentation, and of the run, from which the command starts.
    """
    changed = {
        f"{section}.{key}": value
        for section in ("agglomerate", "segment")
        for key, value in made[section].items()
        if value != now.get(section, {}).get(key)
    }
    changed = {key: value for key, value in changed.items() if key.startswith(AGGLOMERATING)}
    named = [] if name == SEGMENTATION else ["--name", name]
    return " ".join(["vimvol agglomerate", shlex.quote(out), *named, *as_options(changed)])


def stale_text(out: str, name: str, manifest: Json, what: str) -> str:
    """Return that a segmentation is stale, what follows, and the command that makes it again, as a line.

    Parameters
    ----------
    out
        Path or URL of the output.
    name
        Of the segmentation, which need not be there.
    manifest
        The manifest of the output.
    what
        What follows of it, as a clause.

    Returns
    -------
    str
        Empty where it is not stale, as that of the run never is, or where nothing is known of it.
    """
    note = note_of(out, f"labels/{name}")
    try:
        if not is_stale(note, manifest["keys"]["graph"]):
            return ""
        again = command_for(out, name, latest_of(note)["config"], manifest["config"])
    except DAMAGED:
        return ""
    return (
        f"segmentation {name!r} of {out} is stale, as a later run has replaced the edges that it was made of, so "
        f"{what}; make it again: {again}"
    )


def refuse_stale(out: str, name: str, manifest: Json, what: str) -> None:
    """Refuse a segmentation that is stale; parameters as `stale_text` takes them.

    Raises
    ------
    InputError
        If it is.
    """
    if text := stale_text(out, name, manifest, what):
        raise InputError(text)


def stale_texts(out: str, manifest: Json, what: str) -> dict[str, str]:
    """Return the names of all segmentations of an output that are stale, and of each the line of `stale_text`."""
    there = set(open_objects(f"{out}/labels").names(""))
    names = [name for name in open_objects(f"{out}/vimvol/{BESIDE}").names("") if name in there]
    texts = {name: stale_text(out, name, manifest, what) for name in names}
    return {name: text for name, text in texts.items() if text}


def stale_labels_text(url: str, dataset: str, what: str) -> str:
    """Return the line of `stale_text` for labels by their address, which need not be of an output; else nothing."""
    out, _, path = join(url, dataset).rpartition("/labels/")
    return stale_text(out, path.split("/")[0], note_of(out, ""), what) if out else ""
