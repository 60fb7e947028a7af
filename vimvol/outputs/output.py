"""The output of a run: whose it is, which arrays it has, and when it may be written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vimvol.address import is_url
from vimvol.engine import lock
from vimvol.errors import InputError, OutputExistsError
from vimvol.io.arrays import create_array, create_group, has_layout
from vimvol.io.errors import storage_errors
from vimvol.io.objects import open_objects
from vimvol.io.omezarr import create_image, create_labels
from vimvol.io.storage import holds_node, remove_drafts
from vimvol.outputs.ahead import AGGLOMERATING, changed_settings, held_text
from vimvol.outputs.manifest import (
    MANIFEST,
    STORED,
    differences,
    provenance,
    read_manifest,
    write_manifest,
)
from vimvol.outputs.moved import differing_traits, input_entry, with_places
from vimvol.outputs.stored import stored_of
from vimvol.stages.job import Job
from vimvol.stages.order import stages_of
from vimvol.stages.stage import StoredArray


def new_manifest(job: Job, command: str) -> dict[str, Any]:
    """Return the manifest of a run that begins now."""
    return {
        "state": "running",
        "created": False,
        "input": input_entry(job),
        "model": {"name": job.network.checkpoint, "sha256": job.network.digest, "boundary": job.network.boundary},
        "mode": job.config.segment.mode,
        "config": job.config.model_dump(mode="json", exclude={"run"}),
        "layout": _layout(job),
        STORED: stored_of(job),
        "keys": job.keys,
        "replaced": [list(sections) for sections in job.replaced],
        "standardization": {"mean": list(job.standardization.mean), "std": list(job.standardization.std)},
        "command": command,
        "runs": [],
        **provenance(),
    }


def check_output(job: Job, fresh: dict[str, Any], overwrite: bool) -> dict[str, Any]:
    """Return the manifest to go on with: that of the same run begun before, or ``fresh``. Nothing is written.

    Its ``created`` tells whether the arrays that are there can be used, of which single ones may be missing; its
    ``runs`` are those that filled these.

    Raises
    ------
    OutputExistsError
        If the output holds something else and must not be overwritten.
    """
    existing = read_manifest(job.out)
    if existing is None:
        return fresh
    fresh = {**fresh, "input": with_places(fresh["input"], existing["input"])}
    if existing["keys"] != job.keys and not overwrite:
        raise OutputExistsError(_held(job, existing, fresh))
    usable = bool(existing.get("created")) and _same_voxels(existing.get("layout"), fresh["layout"])
    foreign = _foreign_nodes(job)
    if existing.get("created") and not usable and foreign:
        raise OutputExistsError(
            f"{job.out} has to be laid out anew, and holds {', '.join(foreign)} that this run did not make; "
            "move that elsewhere or choose another path"
        )
    if existing["keys"] == job.keys:
        if usable and existing["layout"] == fresh["layout"] and is_intact(job):
            # the input may have been moved since
            now = {STORED: fresh[STORED], "input": fresh["input"]}
            return existing if existing["state"] == "complete" else {**existing, **now}
        anew = {name: fresh[name] for name in ("layout", STORED, "input")} | {"state": "running"}
        return {**existing, **anew} if usable else {**existing, **anew, "created": False, "runs": []}
    return {**fresh, "created": usable, "runs": existing.get("runs", []) if usable else []}


def _held(job: Job, existing: dict[str, Any], fresh: dict[str, Any]) -> str:
    """Return why an output of other settings, or of another input, is not replaced, and what to do."""
    others: list[str] = []
    moved, changes = False, changed_settings(existing, job.config)
    if existing["input"]["identity"] != fresh["input"]["identity"]:
        traits = [f"input.{trait}: {then} -> {now}" for trait, then, now in differing_traits(job.source, existing)]
        places = _places(existing, fresh)
        others = ["the input has changed", *traits, *places]
        moved = bool(places) and not traits
    elif not changes:  # else the layout follows from these
        others = differences(existing.get("layout", {}), fresh["layout"], "layout.")
    model = existing["model"]
    same_name = model["name"] == fresh["model"]["name"]
    if same_name and model["sha256"] != fresh["model"]["sha256"] and job.network.given is None:
        others.append(f"the weights {model['name']} have changed")
    edges = existing["keys"]["graph"] != job.keys["graph"]
    if edges and not others and all(change.startswith(AGGLOMERATING) for change in changes):
        others.append("another version of vimvol")
    return held_text(job.out, existing, job.config, others, sure=True, moved=moved)


def _places(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """Return in what two manifests tell another place of the input."""
    before, now = ({name: each["input"][name] for name in ("path", "dataset")} for each in (one, other))
    return differences(before, now, "input.")


def claim_output(job: Job, manifest: dict[str, Any]) -> None:
    """Make the output ready to be written.

    Data of other settings stay as far as the arrays fit: the ledger knows which of them are still good. A single array
    that is missing, or does not fit, is made anew, and so are its blocks. Where all arrays have to be others,
    everything that vimvol made goes, the manifest last, so that an interrupted change is finished the next time.
    """
    write_manifest(job.out, manifest)
    if manifest["created"]:
        ledgers = open_objects(f"{job.work}/ledger")
        for stage, array in _arrays(job):
            if not has_layout(*array):
                ledgers.remove(stage)  # before there is an empty array of which it would say that it is full
        create_arrays(job, mend=True)
        return
    with storage_errors(f"removing the old arrays of {job.out}"):
        _remove_own_nodes(job)
    create_arrays(job)
    manifest["created"] = True
    write_manifest(job.out, manifest)


def tidy_output(job: Job) -> None:
    """Remove drafts that killed processes left in what vimvol made, from a finished output; object stores have none."""
    if is_url(job.out):
        return
    with storage_errors(f"tidying {job.out}"):
        for place in {job.labels, job.work, *(f"{job.out}/{number}" for number in range(len(job.levels)))}:
            remove_drafts(Path(place))
        for group in (job.out, f"{job.out}/labels"):  # others may be writing what else is in there
            for draft in Path(group).glob("zarr.*.partial"):
                draft.unlink(missing_ok=True)


def _layout(job: Job) -> dict[str, Any]:
    """Return all that decides which arrays and metadata an output has, as JSON gives it back."""
    levels = [[list(part) for part in (v.shape, v.factor, v.scale, v.translation)] for v in job.levels]
    return {
        "shape": list(job.shape),
        "chunk": list(job.chunk),
        "shard": list(job.shard),
        "channels": job.network.channels,
        "voxel_size": list(job.source.voxel_size),
        "offset": list(job.source.offset),
        "levels": levels,
        # Blocks outside are never written again, so nothing may be there.
        "roi": None if job.roi is None else [list(job.roi.begin), list(job.roi.end)],
    }


def _same_voxels(one: dict[str, Any] | None, other: dict[str, Any]) -> bool:
    """Tell whether two layouts store the same voxels in the same way, though with other metadata or coarser levels."""
    lighter = {"voxel_size", "offset", "levels"}
    return one is not None and all(one.get(key) == other[key] for key in other.keys() - lighter)


def _arrays(job: Job) -> list[tuple[str, StoredArray]]:
    """Return every array, and the name of the stage that fills it."""
    return [(stage.name, stage.array) for stage in stages_of(job) if stage.array is not None]


def is_intact(job: Job) -> bool:
    """Tell whether every array is there with the shards that the plan writes, and what they are listed in."""
    return all(map(holds_node, (job.out, job.labels))) and all(has_layout(*array) for _, array in _arrays(job))


def check_shared(job: Job) -> None:
    """Make sure that the arrays are there which a segmentation is made of.

    Raises
    ------
    InputError
        If one is not, or has another layout.
    """
    for stage in stages_of(job):
        if not stage.own and stage.array is not None and not has_layout(*stage.array):
            raise InputError(
                f"{stage.array.url} is not what vimvol stored there, so it does not serve; run vimvol segment"
            )


def _own_names(job: Job) -> set[str]:
    return {"zarr.json", "labels", "vimvol", *(str(number) for number in range(len(job.levels)))}


def _foreign_nodes(job: Job) -> list[str]:
    """Return what lies in the output that no run of vimvol made."""
    store = open_objects(job.out)
    found = [name for name in store.names("") if name not in _own_names(job) and not name.isdigit()]
    return found + [f"labels/{name}" for name in store.names("labels") if name not in ("zarr.json", "segmentation")]


def _remove_own_nodes(job: Job) -> None:
    """Remove everything but the manifest, by which the output is known as one of vimvol, and the lock."""
    store = open_objects(job.out)
    kept = ("vimvol", MANIFEST, f"vimvol/{lock.NAME}")
    for name in [*store.names(""), *(f"vimvol/{name}" for name in store.names("vimvol"))]:
        if name not in kept:
            store.remove(name)


def create_arrays(job: Job, *, mend: bool = False) -> None:
    """Create the arrays and metadata of an output, all empty; or, to ``mend`` one, those that are missing."""
    layout: dict[str, Any] = {"chunk": job.chunk, "shard": job.shard, "mend": mend}
    create_image(
        job.out,
        shape=job.shape,
        dtype="uint8",
        voxel_size=job.source.voxel_size,
        known=job.source.voxel_size_known,
        offset=job.source.offset,
        levels=job.levels,
        name="boundaries",
        channels=job.network.channels,
        **layout,
    )
    create_labels(job.out, "segmentation", **layout)
    # A group of its own, so that who lists the image meets nothing unknown.
    create_group(job.work)
    create_array(job.fragments, job.shape, "uint32", chunk=job.chunk, shard=job.shard, dimension_names=("z", "y", "x"))
