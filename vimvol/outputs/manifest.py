"""The manifest of an output: what made it, and whether it is complete."""

from __future__ import annotations

import importlib.metadata
import json
import platform
import time
from collections.abc import Mapping
from typing import Any

from vimvol.address import no_output
from vimvol.config import SegmentConfig, parse_config
from vimvol.engine.lock import Lock
from vimvol.errors import InputError, OutputExistsError
from vimvol.io import Volume
from vimvol.io.errors import as_given
from vimvol.io.fence import may_write
from vimvol.io.objects import open_objects
from vimvol.outputs.ownership import MANIFEST_NAME, holds_nothing_but_a_lock

PACKAGES = ("vimvol", "torch", "zarr", "distributed", "bioimage-cpp", "numpy")
MANIFEST = f"vimvol/{MANIFEST_NAME}"
"""Name of the manifest in an output."""

STORED = "stored"
"""Entry of a manifest with what `vimvol.outputs.stored` makes a job of; the outputs of earlier versions have none."""

COPY = "vimvol/export.json"
"""Name of what tells, in a copy for other viewers, of which output it is one, and whether it is complete."""


def has_manifest(out: str) -> bool:
    """Tell whether vimvol made, or makes, what is there."""
    return open_objects(out).get(MANIFEST) is not None


@as_given()
def read_manifest(out: str) -> dict[str, Any] | None:
    """Return the manifest of an output; none where nothing is.

    Raises
    ------
    OutputExistsError
        If something is there that vimvol did not make.
    """
    data = open_objects(out).get(MANIFEST)
    if data is None and holds_nothing_but_a_lock(out):
        return None
    try:
        manifest = json.loads(data or b"")
    except ValueError:
        manifest = None
    if not isinstance(manifest, dict) or "keys" not in manifest:
        raise OutputExistsError(f"{out} exists and is no output of vimvol, so it is left alone; choose another path")
    return manifest


def made_manifest(out: str) -> dict[str, Any] | None:
    """Return the manifest of an output that is to be looked at; none where nothing is.

    Raises
    ------
    InputError
        If something is there that vimvol did not make.
    """
    try:
        return read_manifest(out)
    except OutputExistsError:
        if source := parse_note(open_objects(out).get(COPY)).get("source"):
            raise InputError(
                f"{out} is a copy of {source} in OME-Zarr 0.4, which vimvol export made for other viewers, and holds "
                f"no run; give {source}"
            ) from None
        raise InputError(
            f"{out} is no output of vimvol segment, so there is nothing to look at; give the OUT.zarr of a run"
        ) from None


def parse_note(data: bytes | None) -> dict[str, Any]:
    """Return what a JSON object holds that vimvol wrote beside a manifest; nothing where it is missing or damaged."""
    try:
        note = json.loads(data or b"")
    except ValueError:
        return {}
    return note if isinstance(note, dict) else {}


def finished_run(out: str) -> dict[str, Any]:
    """Return the manifest of a complete output.

    Raises
    ------
    InputError
        If there is none, or it is not complete.
    OutputBusyError
        If a run on this machine is making it.
    """
    manifest = made_manifest(out)
    if manifest is None or manifest["state"] != "complete":
        Lock(open_objects(f"{out}/vimvol"), out).refuse_if_held()  # it will be complete, then
    if manifest is None:
        raise no_output(out)
    if manifest["state"] != "complete":
        raise InputError(f"{out} is not finished, so parts of it are missing; run vimvol segment again to go on")
    return manifest


def settings_of(manifest: dict[str, Any]) -> SegmentConfig:
    """Return the settings that an output was made with, of how its work was scheduled only the blocks.

    In others, edges would be measured again.
    """
    config = {**config_of(manifest), "run": {"block": manifest.get("block")}}
    return parse_config(SegmentConfig, config, source="the manifest")


def input_address(manifest: Mapping[str, Any]) -> str:
    """Return the address of what an output was made of, ``PATH[:DATASET]``."""
    given = manifest["input"]
    return f"{given['path']}:{given['dataset']}" if given["dataset"] else str(given["path"])


def check_intensities(volume: Volume) -> None:
    """Make sure that a volume which shall be segmented is not what a run has made of one.

    Raises
    ------
    InputError
        If it is.
    """
    own = volume.dataset.split("/")[0]
    if (own.isdigit() or own in ("labels", "vimvol")) and has_manifest(volume.url):
        address = input_address(read_manifest(volume.url) or {})
        raise InputError(
            f"{volume.address} is what vimvol segment made of {address}, boundaries and no intensities, so a network "
            "would see membranes only; give that volume"
        )


def write_manifest(out: str, manifest: Mapping[str, Any]) -> None:
    """Write the manifest in one step; an output whose manifest a loss of power emptied would be unknown to us.

    Raises
    ------
    StorageError
        If it cannot be written.
    OutputLostError
        If the run does not hold the output any more.
    """
    may_write()
    open_objects(out).put(MANIFEST, json.dumps(manifest, indent=2, default=str).encode())


def config_of(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return the configuration of a manifest; slices were shown as they are stored before there was a setting."""
    config: dict[str, Any] = manifest["config"]
    return {**config, "predict": {"rescale": "none", **config["predict"]}}


def recorded_settings(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a run; those that its version did not have yet are what they are by default."""
    recorded = config_of(manifest)
    try:
        return SegmentConfig.model_validate(recorded).model_dump(mode="json", exclude={"run"})
    except ValueError:  # a setting that this version does not have any more
        return recorded


def differences(before: Mapping[str, Any], now: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Return what changed between two nested mappings, e.g. ``predict.halo: [32, 32] -> [16, 16]``.

    What has no value is told as ``not set``.
    """
    changes = []
    for key in sorted({*before, *now}):
        old, new = before.get(key), now.get(key)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            changes += differences(old, new, f"{prefix}{key}.")
        elif old != new:
            changes.append(f"{prefix}{key}: {_told(old)} -> {_told(new)}")
    return changes


def _told(value: object) -> object:
    return "not set" if value is None else value


def provenance() -> dict[str, Any]:
    """Return the versions of what computes, and the time."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return {
        "versions": versions,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "started": now(),
    }


def now() -> str:
    """Return the time as ISO 8601 with the zone."""
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")
