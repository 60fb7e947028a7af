"""Viewing: a finished output in a neuroglancer, over the intensities that it was made from."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from vimvol.address import absolute
from vimvol.errors import InputError, VimvolError
from vimvol.geometry import Block
from vimvol.io import Volume, open_volume
from vimvol.io.arrays import find_group
from vimvol.io.formats import ngff
from vimvol.io.storage import join
from vimvol.outputs.beside import stale_text
from vimvol.outputs.manifest import input_address, made_manifest, settings_of
from vimvol.outputs.standing import check_finished
from vimvol.preflight.announce import Tell, nobody
from vimvol.report.span import span_of
from vimvol.report.viewer import Layer, Viewing

LOOKED_AT = 512
"""Voxels of a slice along y and x whose intensities say what is shown black and white."""


def view(out: str, names: Sequence[str] = (), *, port: int = 0, tell: Tell = nobody) -> Viewing:
    """Show an output.

    Parameters
    ----------
    out
        Path or URL of an output of `vimvol.commands.segment.segment_volume`; what is not there yet is left out.
    names
        Segmentations to show; none: all.
    port
        Of this machine, on the loopback interface; 0: any that is free.
    tell
        Told what cannot be shown, which segmentations are stale, and where the output is not finished.

    Returns
    -------
    Viewing
        A context manager; its ``url`` is what a browser opens while it lasts.

    Raises
    ------
    InputError
        If there is no such output or segmentation, or the port is taken.
    MissingExtraError
        If neuroglancer is not installed.
    """
    out = absolute(out)
    manifest = made_manifest(out)
    if manifest is None:
        check_finished(out, "there is nothing to look at")
        raise InputError(f"{out} does not exist, so there is nothing to look at; run vimvol segment first")
    group = find_group(join(out, "labels"))
    there = [] if group is None else ngff.label_names(group.attrs)
    if unknown := [name for name in names if name not in there]:
        raise InputError(f"{out} has no segmentation {unknown[0]!r}; choose of {', '.join(there) or 'none'}")
    if manifest["state"] != "complete":
        tell(f"{out} is not finished, so what is missing is not shown, or empty; vimvol status tells how far it is")
    layers = []
    try:
        settings = settings_of(manifest).input
        raw = open_volume(input_address(manifest), axes=settings.axes, voxel_size=settings.voxel_size)
        layers.append(Layer("raw", "raw", raw, span=_span(raw)))
    except VimvolError as error:
        tell(f"intensities are not shown: {error}")
    with contextlib.suppress(InputError):  # a run that was stopped early
        boundaries = open_volume(f"{out}:0")
        layers.append(Layer("boundaries", "boundaries", boundaries, image=out, visible=False))
    for name in dict.fromkeys(names or there):
        try:
            labels = open_volume(f"{out}:labels/{name}/0", prefer="labels")
        except InputError as error:
            if names:
                raise
            tell(f"segmentation {name!r} is not shown: {error}")
            continue
        if text := stale_text(out, name, manifest, "it does not fit the boundaries and segmentations beside it"):
            tell(f"warning: {text}")
        shown = _unlike(name, [layer.name for layer in layers])
        layers.append(Layer(shown, "labels", labels, image=join(out, "labels", name)))
    if not layers:
        raise InputError(f"{out} holds nothing that could be shown; run vimvol segment again to go on")
    return Viewing(layers, out, port=port, flat=manifest.get("mode") == "2d")


def _unlike(name: str, others: Sequence[str]) -> str:
    """Return the name of a segmentation, told from other layers: one may be called as the intensities are, "raw"."""
    while name in others:
        name += " (segmentation)"
    return name


def _span(raw: Volume) -> tuple[float, float]:
    """Return the darkest and the brightest intensity that is shown: all but a percent of those in the middle."""
    begin = tuple(max(0, (s - size) // 2) for s, size in zip(raw.shape, (1, LOOKED_AT, LOOKED_AT), strict=True))
    end = tuple(min(s, b + size) for s, b, size in zip(raw.shape, begin, (1, LOOKED_AT, LOOKED_AT), strict=True))
    return span_of(raw.read(Block(begin, end)), 0.5)
