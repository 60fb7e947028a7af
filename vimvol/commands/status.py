"""How far an output is, stage by stage, from its manifest and ledgers alone; nothing is computed or written."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from vimvol.address import absolute, mistaken_text
from vimvol.config import SegmentConfig
from vimvol.engine.ledger import Ledger
from vimvol.engine.lock import SINCE, Holder, is_alive, read_holder
from vimvol.engine.objects import Objects
from vimvol.errors import InputError, VimvolError
from vimvol.io import open_volume
from vimvol.io.objects import open_objects
from vimvol.outputs.ahead import changed_settings, listed
from vimvol.outputs.beside import DAMAGED, is_stale, latest_of
from vimvol.outputs.manifest import input_address, made_manifest
from vimvol.outputs.moved import as_known
from vimvol.report.amounts import clock_text, count_text
from vimvol.stages.names import BESIDE, NOTE

State = Literal["done", "begun", "failed", "stale", "missing"]


@dataclass(frozen=True)
class StageStatus:
    """How far one stage is.

    Attributes
    ----------
    name
        Name of the stage.
    state
        ``done``; ``begun``: not all is done, and a run is at it or was stopped; ``failed``: begun, and some
        blocks failed for good; ``stale``: made with other settings or from another input; ``missing``: not begun.
    blocks
        Blocks in all; 0 where the stage was not begun.
    share
        Finished share of the voxels, 0..1.
    failures
        Blocks that failed for good, as text, and why.
    age
        Seconds since the last record by the clocks of the two machines; none without one.
    """

    name: str
    state: State
    blocks: int = 0
    share: float = 0.0
    failures: tuple[tuple[str, str], ...] = ()
    age: float | None = None


@dataclass(frozen=True)
class Status:
    """How far an output is.

    Attributes
    ----------
    out
        Path of the output.
    stages
        In the order in which they run; none while a new run starts its workers or takes its sample.
    complete
        Whether every stage is done for the input and settings asked about.
    holder
        Who is writing it, as text; empty if nobody is.
    notes
        Why stages are stale.
    unaffected
        Settings asked about that are others than those of the output, and by which nothing of it is stale.
    runs
        Of every run that contributed, the latest last: when it began, how it ended or that it is under way, seconds,
        and its command, as text.
    beside
        Of every other segmentation, see `vimvol.commands.agglomerate`: its name, how it stands and its settings.
    source
        ``PATH[:DATASET]`` of the input, where it lay when a run last read it; empty where there are no stages.
    running
        Whether a run is at it, as far as can be seen from this machine.
    compared
        Whether it was compared with settings that were given.
    """

    out: str
    stages: tuple[StageStatus, ...]
    complete: bool
    holder: str
    notes: tuple[str, ...]
    runs: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()
    source: str = ""
    running: bool = False
    unaffected: tuple[str, ...] = ()
    compared: bool = False

    @property
    def stale(self) -> tuple[str, ...]:
        """Names of the stages that are stale."""
        return tuple(stage.name for stage in self.stages if stage.state == "stale")


def status(out: str, config: SegmentConfig | None = None) -> Status:
    """Tell how far an output is.

    Parameters
    ----------
    out
        Path of the OME-Zarr.
    config
        Settings that the output is compared with; none: those that it was begun with.

    Raises
    ------
    InputError
        If there is no output of vimvol, or the input that it was made from is gone and ``config`` is given.
    """
    out = absolute(out)
    manifest = made_manifest(out)
    holder = read_holder(open_objects(f"{out}/vimvol"))
    if manifest is None:
        if holder is not None and is_alive(holder) is not False:
            return Status(out, (), complete=False, holder=_holder_text(holder), notes=(), running=True)
        if holder is not None:
            raise InputError(
                f"{out} holds nothing yet, and a run that was to fill it has ended ({holder}); begin it again with "
                "vimvol segment"
            )
        if text := mistaken_text(out):
            raise InputError(text)
        raise InputError(
            f"{out} holds nothing yet; a run that was started a moment ago opens its input and its network before it "
            "writes anything, so look again in a minute, or begin it with vimvol segment"
        )
    keys = dict(manifest["keys"])
    wanted, changes = (keys, "") if config is None else _keys_of(out, manifest, config)
    by_settings, changed = wanted != keys, _changed_input(manifest)
    if by_settings and not changes and not changed:
        changes = "none, but other weights or another version of vimvol"
    other = (f"other settings: {changes}",) if changes else ()
    if changed:
        wanted = dict.fromkeys(keys, "")
    objects = open_objects(f"{out}/vimvol/ledger")
    begun = objects.names("")
    stages = []
    for name, key in keys.items():
        levels = {folder for folder in begun if folder.split(" ")[0] == name} | _levels_of(name, manifest)
        folders = sorted(levels, key=lambda folder: (len(folder), folder))
        stale = wanted.get(name) != key
        if name == "solve":  # what a large graph needs besides has keys that follow from those of the stages
            stages += _further(objects, {folder for folder in begun if folder.split(" ")[0] not in keys}, stale=stale)
        stages += [_stage(Ledger(objects, folder, key), stale=stale) for folder in folders]
    if manifest["state"] == "complete":  # what was not begun was not needed
        stages = [stage for stage in stages if stage.state != "missing"]
    complete = manifest["state"] == "complete" and not any(stage.state == "stale" for stage in stages)
    runs = tuple(_run_text(run, holder) for run in manifest.get("runs", ()))
    others = open_objects(f"{out}/vimvol/{BESIDE}").names("")
    graph = "" if changed else keys.get("graph", "")
    beside = tuple(_beside_text(out, name, manifest, (graph, wanted.get("graph", "")), holder) for name in others)
    return Status(
        out,
        tuple(stages),
        complete,
        _holder_text(holder),
        (*(other if by_settings else ()), *filter(None, [changed])),
        runs,
        beside,
        input_address(manifest),
        running=holder is not None and is_alive(holder) is not False,
        unaffected=() if by_settings else other,
        compared=config is not None,
    )


def _holder_text(holder: Holder | None) -> str:
    """Return who holds an output, and whether that run is alive."""
    if holder is None:
        return ""
    there = {True: "", False: ", which has ended", None: ", on another machine"}[is_alive(holder)]
    return f"{holder}{there}"


def _levels_of(name: str, manifest: dict[str, Any]) -> set[str]:
    """Return the stages that a run has by a key: of a pyramid one a level, and none in a small volume."""
    if name not in ("pyramid", "label-pyramid"):
        return {name}
    return {f"{name} {level}" for level in range(1, len(manifest["layout"]["levels"]))}


def _beside_text(out: str, name: str, manifest: dict[str, Any], graphs: tuple[str, str], holder: Holder | None) -> str:
    """Return how a segmentation beside that of the run stands.

    ``graphs``: keys of the edges that are good, and that would be with the settings asked about.
    """
    try:
        note = json.loads(open_objects(f"{out}/vimvol/{BESIDE}/{name}").get(NOTE) or b"")
        made, stale, would_be = latest_of(note), *(is_stale(note, graph) for graph in graphs)
        if made is note:
            done = f"done, {count_text(note['segments'], 'segment')}"
        else:
            done = f"not complete, {_ending(made, holder)}"
        changed = [
            f"{section}.{key} = {value} (the run's: {manifest['config'].get(section, {}).get(key)})"
            for section in ("segment", "agglomerate")
            for key, value in made["config"][section].items()
            if value != manifest["config"].get(section, {}).get(key)
        ]
    except DAMAGED:
        return f"{name}: no record of how it was made"
    if name not in open_objects(f"{out}/labels").names(""):
        state = "missing"
    elif stale:
        state = "stale"
    elif would_be:
        state = f"{done}, and stale with these settings"
    else:
        state = done
    return f"{name}: {state}; {', '.join(changed) or 'the settings of the run'}"


def _ending(run: Mapping[str, Any], holder: Holder | None) -> str:
    """Return how a run ended; it is under way only if who holds the output is alive and began no later."""
    if run["state"] != "running":
        return str(run["state"])
    if holder is None or holder.host != run["host"] or is_alive(holder) is False:
        return "no end recorded"
    # another run may hold the output by now
    before = datetime.fromisoformat(run["started"]) < datetime.strptime(holder.since, SINCE)
    return "no end recorded" if before else "running"


def _run_text(run: dict[str, Any], holder: Holder | None) -> str:
    ending = _ending(run, holder)
    if "seconds" in run:
        ending += f" after {clock_text(run['seconds'])}"
    elif ending == "running":
        ending += f" for {clock_text(max(0.0, time.time() - datetime.fromisoformat(run['started']).timestamp()))}"
    else:
        ending += ", so it was killed or its machine stopped"
    ahead = run.get("forecast", {}).get("seconds")
    told = f" ({clock_text(ahead)} forecast)" if ahead else ""
    where = f"{run.get('workers', 0)} at once on {run['host']}"
    return f"{run['started']} {ending}{told}, {where}: {run['command']}"


def _further(objects: Objects, folders: set[str], *, stale: bool) -> list[StageStatus]:
    found = [_stage(Ledger(objects, f, key), stale=stale) for f in folders for key in objects.names(f)[:1]]
    return sorted(found, key=lambda stage: (-(stage.age or 0.0), stage.name))


def _stage(ledger: Ledger, *, stale: bool) -> StageStatus:
    found = ledger.progress()
    if found is None:
        other = ledger.objects.names(ledger.stage)
        return StageStatus(ledger.stage, "stale" if other else "missing")
    failures = tuple((str(block), error) for block, error in found.failures.items())
    if stale:
        state: State = "stale"
    elif found.complete:
        state = "done"
    else:
        state = "failed" if failures else "begun"
    age = max(0.0, time.time() - found.written) if found.written else None
    share = found.done / found.voxels if found.voxels else 1.0
    return StageStatus(ledger.stage, state, found.blocks, share, failures, age)


def _keys_of(out: str, manifest: dict[str, Any], config: SegmentConfig) -> tuple[dict[str, str], str]:
    """Return the keys that a run with these settings would have, and what is different, empty where nothing is."""
    from vimvol.preflight.prepare import prepare

    changes = listed(changed_settings(manifest, config))
    if config.predict.device == "auto":  # which one that was is recorded
        predict = config.predict.model_copy(update={"device": manifest["config"]["predict"]["device"]})
        config = config.model_copy(update={"predict": predict})
    return prepare(input_address(manifest), out, config).keys, changes


def _changed_input(manifest: dict[str, Any]) -> str:
    """Return what happened to the input, as a note; empty if nothing did."""
    settings = manifest["config"]["input"]
    try:
        volume = open_volume(input_address(manifest), axes=settings["axes"], voxel_size=settings["voxel_size"])
    except VimvolError:
        return ""  # it may be gone for good, or not reachable from here; what is made of it stays good
    if as_known(volume, manifest).identity() == manifest["input"]["identity"]:
        return ""
    return (
        f"the input {manifest['input']['path']} has changed; where only some sections are new, vimvol segment "
        "--replaced FIRST:END keeps what does not depend on them"
    )
