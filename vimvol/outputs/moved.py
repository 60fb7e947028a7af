"""An input that lies elsewhere than when an output was begun, but is the same.

The identity of an input names its place (see `vimvol.io.volume.Volume.identity`): the rest of it is a sample, by which
two versions of a volume may look alike. So the user says that the input was moved, and what can be told of it is
compared with what the manifest has. The input then keeps its recorded identity, so all keys and all that is done stay.

The manifest notes the new place, where later commands find the data, and the places before. A run that is given the
noted place of an input that was moved takes it for the recorded one as long as its content is the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from vimvol.address import is_url
from vimvol.errors import InputError, OutputExistsError
from vimvol.io import Volume
from vimvol.outputs.ahead import no_run_to_move
from vimvol.outputs.manifest import STORED, input_address, read_manifest, write_manifest
from vimvol.outputs.ownership import owned
from vimvol.outputs.stored import stored_of
from vimvol.stages.job import Job

_TOLD = ("shape", "dtype", "axes", "channels", "format")
"""What of a volume is told apart by name; the rest is one digest."""

Json = Mapping[str, Any]


def input_entry(job: Job) -> dict[str, Any]:
    """Return what a manifest records of its input."""
    volume = job.source
    return {"path": volume.url, "dataset": volume.dataset, "identity": job.identity, "content": volume.content()}


def with_places(entry: Json, before: Json) -> dict[str, Any]:
    """Return the entry of an input with the places where it lay before, as an earlier entry of the output tells."""
    if before["identity"] != entry["identity"]:
        return dict(entry)
    places = dict.fromkeys([*before.get("formerly", ()), _address(before)])
    formerly = [place for place in places if place != _address(entry)]
    return {**entry, "formerly": formerly} if formerly else dict(entry)


def as_known(volume: Volume, manifest: Json) -> Volume:
    """Return the input of an output under its recorded identity, if it lies where it was moved to and is the same."""
    before = manifest["input"]
    moved_here = before.get("formerly") and _is_at(volume, before)
    return (_same(volume, before) if moved_here else None) or volume


def known_input(volume: Volume, out: str, *, moved: bool) -> Volume:
    """Return an input under the identity that its output has recorded, if that is of the same data at another place.

    Parameters
    ----------
    volume
        The input.
    out
        Path of the output.
    moved
        Whether the user says that the input was moved.

    Raises
    ------
    InputError
        If it was moved, as the user says, and the output has no earlier run, or one on other data.
    """
    try:
        manifest = read_manifest(out)
    except OutputExistsError:  # no output of ours: whoever wants to write there is told
        if moved:
            raise
        return volume
    if not moved:
        return volume if manifest is None else as_known(volume, manifest)
    if manifest is None:
        raise no_run_to_move(out)
    same = _same(volume, manifest["input"])
    if same is None:
        raise InputError(f"{_difference(volume, out, manifest)}, or run without --moved and with --overwrite")
    return same


def note_place(job: Job) -> None:
    """Note in a finished output where its input lies now.

    Raises
    ------
    OutputBusyError
        If a run writes the output.
    StorageError
        If it cannot be written.
    """
    if _is_at(job.source, (read_manifest(job.out) or {})["input"]):
        return
    with owned(job.out):
        manifest = read_manifest(job.out) or {}
        if manifest["keys"] == job.keys:  # else another run has written it meanwhile, and noted its own
            entry = with_places(input_entry(job), manifest["input"])
            write_manifest(job.out, {**manifest, "input": entry, STORED: stored_of(job)})


def _same(volume: Volume, before: Json) -> Volume | None:
    """Return a volume under its recorded identity; none if it is another."""
    if _is_other_series(volume, before):
        return None
    if "content" in before:
        same = before["content"] == volume.content()
    else:  # of an earlier version; it was never moved
        same = before["identity"] == volume.identity_at(before["path"], before["dataset"])
    return replace(volume, known_as=before["identity"]) if same else None


def _is_at(volume: Volume, before: Json) -> bool:
    return (volume.url, volume.dataset) == (before["path"], before["dataset"])


def _is_other_series(volume: Volume, before: Json) -> bool:
    """Tell whether a volume is another series of a TIFF, of which only size and time of the file are known."""
    return volume.format == "tiff" and volume.dataset != before["dataset"]


def _address(before: Json) -> str:
    return input_address({"input": before})


def differing_traits(volume: Volume, manifest: Json) -> list[tuple[str, Any, Any]]:
    """Return by what an input is seen to be another than that of an output: name, value then, and value now."""
    recorded = _recorded(manifest)
    values = [(name, recorded[name], getattr(volume, name)) for name in _TOLD if name in recorded]
    pairs = [(name, tuple(then) if isinstance(then, list) else then, now) for name, then, now in values]
    return [pair for pair in pairs if pair[1] != pair[2]]


def _recorded(manifest: Json) -> Json:
    """Return what is recorded of the input of an output beside its identity."""
    source: Json | None = manifest.get(STORED, {}).get("source")
    return source or {"shape": manifest["layout"]["shape"]}


def _difference(volume: Volume, out: str, manifest: Json) -> str:
    """Return in what an input is not that of an output, and what to do, a clause that another may follow."""
    before, recorded = _address(manifest["input"]), _recorded(manifest)
    for name, then, now in differing_traits(volume, manifest):
        return (
            f"{volume.address} has {name} {now}, and {before}, of which {out} was made, had {then}, so it was not "
            "moved but is another; give the unchanged data"
        )
    if _is_other_series(volume, manifest["input"]):
        return f"{volume.address} is not the series of {before}, of which {out} was made; give that series"
    alike = "shape and dtype" if "dtype" in recorded else "the shape (its version of vimvol recorded no more)"
    text = f"{volume.address} has {alike} of {before}, of which {out} was made, but other "
    if volume.format == "hdf5":
        return f"{text}stored bytes (or, if it is virtual, another time), so it was changed; give the unchanged data"
    if is_url(volume.url):
        return f"{text}metadata, so it was changed; give the unchanged data"
    folders = "" if "content" in manifest["input"] else " (of many, on another disk, sizes of folders count, too)"
    return (
        f"{text}sizes or times of files{folders}, so it counts as changed; a copy keeps the times with cp -rp or "
        "rsync -rt, which mends one that is there, too"
    )
