"""What an output refuses by its manifest, its lock and the settings alone, before input and network are looked at.

Loads neither PyTorch nor Dask, so that a command can ask before it loads what computes.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from vimvol.address import absolute, is_file, parse_address, without_format
from vimvol.config import SegmentConfig
from vimvol.errors import InputError, OutputExistsError
from vimvol.outputs.manifest import (
    STORED,
    config_of,
    differences,
    finished_run,
    made_manifest,
    read_manifest,
    recorded_settings,
)
from vimvol.outputs.ownership import lock_of

AGGLOMERATING = ("agglomerate.", "segment.min_size")
"""Settings that fragments and edges do not depend on."""

MOST_TOLD = 5
"""Changed settings that are told; of more, how many there are."""

_PATHS = (("predict", "boundaries"), ("input", "mask"), ("agglomerate", "costs"))
"""Settings that a run records as paths that hold in any working directory."""

Json = Mapping[str, Any]


def keep_apart(out: str, url: str) -> None:
    """Refuse an output that would change what is read; ``url``: path or URL of that."""
    if Path(out) in (Path(url), *Path(url).parents):
        raise InputError(f"output {out} would overwrite the input {url}; choose another path")
    if Path(url) in Path(out).parents:
        raise InputError(f"output {out} lies inside the input {url} and would change it; choose another path")


def refuse_ahead(
    source: str,
    out: str,
    config: SegmentConfig,
    *,
    overwrite: bool = False,
    replaced: bool = False,
    moved: bool = False,
    writing: bool = True,
) -> None:
    """Refuse a run that its output would refuse whatever its input holds; what is not refused may still be.

    Parameters
    ----------
    source, out, config, overwrite, moved
        As `vimvol.segment_volume` takes them.
    replaced
        Whether sections of the input are said to be new.
    writing
        Whether the run would write, which another may be doing.

    Raises
    ------
    InputError
        If the output would change what is read; or has no earlier run, and the input or sections of it are said to be
        others than then.
    OutputExistsError
        If it holds something else, or a run with other settings that must not be overwritten.
    OutputBusyError
        If another run on this machine writes it.
    """
    out = absolute(out)
    for address in filter(None, (source, config.predict.boundaries)):
        keep_apart(out, without_format(absolute(parse_address(address)[0])))
    if Path(out).is_file():
        return  # whoever tries to write there tells more
    manifest = read_manifest(out)
    other = manifest is not None and bool(surely_other(manifest, config))
    if writing and (manifest is None or manifest.get("state") != "complete" or other):
        lock_of(out).refuse_if_held()
    if manifest is None:
        if moved:
            raise no_run_to_move(out)
        if replaced:
            raise no_run_to_keep(out)
    elif other and not overwrite:
        if replaced:
            raise not_only_replaced(out, manifest, config)
        elsewhere = [] if moved else _elsewhere(source, manifest)
        raise OutputExistsError(held_text(out, manifest, config, elsewhere, sure=False, moved=bool(elsewhere)))


def refuse_unmade(out: str) -> None:
    """Refuse a command on what a run has made where none has made anything yet.

    Raises
    ------
    InputError
        If there is no output of vimvol, or one that never was complete.
    OutputBusyError
        If a run on this machine is making it.
    """
    manifest = made_manifest(out)
    if manifest is None or (manifest["state"] != "complete" and "block" not in manifest):
        finished_run(out)


def no_run_to_move(out: str) -> InputError:
    """Return the error for ``--moved`` where no run has read an input."""
    return InputError(f"{out} has no earlier run, so no input of it can have been moved; run without --moved")


def no_run_to_keep(out: str) -> InputError:
    """Return the error for ``--replaced`` where there is nothing to keep."""
    return InputError(f"{out} holds nothing yet that replaced sections would leave; run without --replaced")


def not_only_replaced(out: str, manifest: Json, config: SegmentConfig) -> InputError:
    """Return the error for ``--replaced`` with other settings."""
    what = listed(changed_settings(manifest, config)) or "another network or version of vimvol"
    return InputError(
        f"{out} was made with other settings ({what}), so replaced sections are not all that has changed; give "
        "the same settings, or run without --replaced and with --overwrite"
    )


def held_text(
    out: str, manifest: Json, config: SegmentConfig, others: Sequence[str] = (), *, sure: bool, moved: bool = False
) -> str:
    """Return why an output of other settings, or of another input, is not replaced, and what to do.

    Parameters
    ----------
    out, manifest
        The output and its manifest.
    config
        The settings of the run that is refused.
    others
        What else than settings has changed.
    sure
        Whether boundaries and edges are known to be the same where the settings are; else the input may be another.
    moved
        Whether the input may be the same at another place.
    """
    changes = changed_settings(manifest, config)
    what = "; ".join([*others, *filter(None, [listed(changes)])]) or "another version of vimvol"
    named = [change.split(":")[0] for change in changes]
    if named and not others and all(name.startswith(AGGLOMERATING) for name in named):  # as after `agglomerate`
        given = config.model_dump(mode="json")
        values = {name: given[name.split(".")[0]][name.split(".")[1]] for name in named}
        wanted = " ".join(as_options(values))
        same = "" if sure else " as long as the input is the same"
        return (
            f"{out} holds a segmentation of other settings ({what}), made on the same boundaries and edges; give "
            f"--overwrite to replace it, which computes nothing else again{same}, or put this one beside it: "
            f"vimvol agglomerate {shlex.quote(out)} {wanted} --name NAME"
        )
    run = "a run with other settings" if changes else "another run"
    same = ", or --moved if it is the same, which keeps what is done" if moved else ""
    if moved and changes:
        same = ", and --moved with it if the input is the same, which keeps what does not"
    return (
        f"{out} holds {run} ({what}), which would be lost; choose another path, or give --overwrite to recompute what "
        f"depends on that{same}"
    )


def _elsewhere(source: str, manifest: Json) -> list[str]:
    """Return that an input is not where that of an output was, as far as its address tells; empty if it may be there.

    Which array is meant where the address names none, or a group, is known only once it is opened.
    """
    # of a URL the format is noted with it, and need not be given
    before = {"path": without_format(manifest["input"]["path"]), "dataset": manifest["input"]["dataset"]}
    path, dataset = parse_address(source)
    left_open = not dataset or f"{before['dataset']}/".startswith(f"{dataset}/")
    now = {"path": without_format(absolute(path)), "dataset": before["dataset"] if left_open else dataset}
    places = differences(before, now, "input.")
    return ["the input lies elsewhere", *places] if places else []


def as_options(settings: Json) -> list[str]:
    """Return settings, by their full names, as the options of a command line that give them."""
    return [f"--set {shlex.quote(f'{name}={json.dumps(value)}')}" for name, value in settings.items()]


def changed_settings(manifest: Json, config: SegmentConfig) -> list[str]:
    """Return the settings that are others than those of an output, before and now."""
    before, now = recorded_settings(manifest), _as_recorded(config)
    if now["predict"]["device"] == "auto":  # which one that was is recorded
        now["predict"]["device"] = before.get("predict", {}).get("device")
    for section, name in _PATHS:  # and so is the dataset that was found
        then, given = before.get(section, {}).get(name), now[section][name]
        if then and given and then.startswith(f"{given}:"):
            now[section][name] = then
    return differences(before, now)


def surely_other(manifest: Json, config: SegmentConfig) -> list[str]:
    """Return those changed settings by which the results are others whatever the input holds.

    Of others that cannot be told: such as a tile that is wider than the volume before and now.
    """
    try:
        before = SegmentConfig.model_validate(config_of(manifest))
        decisive = _decisive(manifest, before.model_dump(mode="json"), config)
    except (ValueError, KeyError, TypeError):  # of a version that noted other things
        return []
    return [name for change in changed_settings(manifest, config) if (name := change.split(":")[0]) in decisive]


def _decisive(manifest: Json, before: Json, config: SegmentConfig) -> Collection[str]:
    """Return the settings that the key of a stage depends on, whatever the input, see `vimvol.stages.keys`."""
    stored, layout = manifest.get(STORED), manifest.get("layout", {})
    found = {"input.missing", "segment.mode", "segment.min_size"}
    given = [before["predict"].get("boundaries"), config.predict.boundaries]
    if not any(given):
        found |= {f"predict.{name}" for name in ("axes", "augment", "batch", "precision", "invert")}
    elif not all(given):
        found.add("predict.boundaries")
    if _chunk(config.output.chunk, layout.get("shape")) != layout.get("chunk"):
        found.add("output.chunk")
    if stored is None:
        return found
    # Another network would be another run, so it is known whether this one makes cells.
    cells = stored["cells"] is not None
    if cells:
        found |= {f"cells.{name}" for name in type(config.cells).model_fields}
    else:
        found |= {f"fragments.{name}" for name in type(config.fragments).model_fields.keys() - _OPEN}
    if before["segment"]["mode"] == "2d" and (cells or before["fragments"]["seeds"] == "components"):
        return found  # nothing is agglomerated
    used = ("solver", "size_weighting", "memory", "levels", "cell", "margin", "join_below", "fill_below")
    found |= {f"agglomerate.{name}" for name in used}
    learned = [costs != "boundary" for costs in (before["agglomerate"]["costs"], config.agglomerate.costs)]
    if learned[0] != learned[1]:
        found.add("agglomerate.costs")
    elif learned[0]:
        found.add("agglomerate.beta_learned")
    else:
        sectioned = before["segment"]["mode"] == "3d" and stored["fragments"]["dimension"] == "2d"
        found.add("agglomerate.beta")
        if sectioned:
            found |= {"agglomerate.beta_across", "agglomerate.beta_profiles"}
    return found


_OPEN = {"dimension", "tile", "halo"}
"""Settings of the fragments that follow from the input where they are left open, or are clipped to it."""


def _chunk(chunk: Sequence[int], shape: Sequence[int] | None) -> list[int] | None:
    """Return what is stored together of a volume of this shape; none where it is not known."""
    return None if shape is None else [min(pair) for pair in zip(chunk, shape, strict=True)]


def _as_recorded(config: SegmentConfig) -> dict[str, Any]:
    """Return settings with paths as a run records them, so that they do not seem others in another folder."""
    given = config.model_dump(mode="json", exclude={"run"})
    for section, name in _PATHS:
        if (value := given[section][name]) and (section, value) != ("agglomerate", "boundary"):
            path, dataset = parse_address(value)
            given[section][name] = f"{absolute(path)}:{dataset}" if dataset else absolute(path)
    model = config.predict.model
    if not _is_shipped(model) and is_file(model):
        given["predict"]["model"] = absolute(model)
    return given


def _is_shipped(model: str) -> bool:
    """Tell whether a network comes with the package, as `vimvol.models.shipped` does without what that loads."""
    return (Path(__file__).parents[1] / "models" / "weights" / f"{model}.safetensors").is_file()


def listed(changes: Sequence[str]) -> str:
    """Return changed settings as a text, `MOST_TOLD` of them and how many more there are."""
    more = len(changes) - MOST_TOLD
    return "; ".join([*changes[:MOST_TOLD], *([f"and {more} more"] if more > 0 else [])])
