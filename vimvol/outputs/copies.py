"""A copy of an output for other viewers: what goes into it, and what is refused by the two places alone.

Loads neither PyTorch nor Dask, so that a command can ask before it loads what copies.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import zarr

from vimvol.errors import InputError, OutputExistsError
from vimvol.geometry import Index
from vimvol.io.objects import open_objects
from vimvol.io.omezarr_v04 import levels_of, missing_levels
from vimvol.io.storage import join
from vimvol.outputs.beside import refuse_stale, stale_texts
from vimvol.outputs.images import Image, boundaries_in, segmentations_of
from vimvol.outputs.manifest import COPY, finished_run, parse_note
from vimvol.outputs.ownership import holds_nothing_but_a_lock, lock_of


@dataclass(frozen=True)
class Copy:
    """What a copy is to hold.

    Attributes
    ----------
    images
        The boundaries, and segmentations.
    chunk
        Voxels (z, y, x) of a chunk.
    mark
        What the copy is known by.
    left_out
        Why segmentations are left out that nobody asked for by name, a line each.
    """

    images: tuple[Image, ...]
    chunk: Index
    mark: dict[str, str]
    left_out: tuple[str, ...] = ()

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the segmentations."""
        return tuple(image.path.removeprefix("labels/") for image in self.images if image.path)


def check_copy(out: str, target: str, names: Sequence[str], chunk: Sequence[int] | None, dtype: str) -> Copy:
    """Return what is to be copied, if it can be; nothing is written.

    Parameters
    ----------
    out, target
        Paths or URLs of the output and of the copy, absolute.
    names, chunk, dtype
        As `vimvol.commands.export.export` takes them.

    Raises
    ------
    InputError, OutputBusyError, OutputExistsError
        As that does.
    """
    lock_of(out).refuse_if_held()
    manifest = finished_run(out)
    if target == out or target.startswith(f"{out}/") or out.startswith(f"{target}/"):
        raise InputError(f"copy {target} and output {out} would lie in one another; choose another path")
    stale = {} if names else stale_texts(out, manifest, "it is left out")
    images = (Image("", boundaries_in(manifest)), *segmentations_of(out, manifest, names, dtype, stale))
    for name in names:
        refuse_stale(out, name, manifest, "it does not fit the boundaries that would be copied with it")
    wanted = tuple(chunk or manifest["layout"]["chunk"])
    if len(wanted) != 3 or min(wanted) < 1:
        raise InputError(f"chunk {wanted} is no shape; give voxels along z, y, x, such as (16, 128, 128)")
    for image in images:
        _check_chunk(join(out, image.path), wanted)
    mark = {"source": out, "boundaries": images[0].content}
    check_target(target, mark)
    for image in images:  # refused before anything of the copy changes
        missing_levels(join(out, image.path), join(target, image.path), chunk=wanted, dtype=image.dtype)
    lock_of(target).refuse_if_held()
    return Copy(images, wanted, mark, tuple(stale.values()))


def check_target(target: str, mark: dict[str, str]) -> None:
    """Refuse to write into what is no copy of this output, which may have been moved or have changed since."""
    data = open_objects(target).get(COPY)
    if data is None and holds_nothing_but_a_lock(target):
        return
    found = parse_note(data)
    if "source" not in found:
        raise OutputExistsError(f"{target} exists and is no copy that vimvol made; choose another path")
    if all(found.get(name) != value for name, value in mark.items()):
        raise OutputExistsError(
            f"{target} is a copy of {found['source']}, which would be lost; choose another path, or remove it"
        )


def unit_of(array: zarr.Array[Any]) -> Index:
    """Return the voxels (z, y, x) that are stored together, and copied by one task."""
    return tuple((array.shards or array.chunks)[-3:])


def _check_chunk(source: str, chunk: Index) -> None:
    """Refuse chunks of which two tasks would write one."""
    for path, array in levels_of(source):
        unit, shape = unit_of(array), array.shape[-3:]
        if any(u < s and u % min(c, s) for u, c, s in zip(unit, chunk, shape, strict=True)):
            fits = ",".join(str(math.gcd(u, c)) for u, c in zip(unit, chunk, strict=True))
            raise InputError(
                f"chunk {chunk} does not divide the shard {unit} of {join(source, path)}, so two tasks would write one "
                f"chunk and lose data; choose one that does, as {fits}"
            )
