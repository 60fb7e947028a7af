"""The voxel size of an input: whether it can be true and is likely, and is known where something depends on it."""

from __future__ import annotations

from collections.abc import Sequence

from vimvol.config import SegmentConfig
from vimvol.errors import InputError
from vimvol.io import Volume

FINEST, COARSEST = 0.1, 10_000.0
"""nm between which the voxels of electron microscopes lie, those of coarse levels of a pyramid included."""
MISTAKEN = {"metres": 1e9, "millimetres": 1e6, "micrometres": 1e3}
"""nm of units in which a size may have been given by mistake."""

ODD = 1.5
"""How many times as large as along x a voxel may be along y, or the other way round; in a size that is likely also how
many times as large as along z."""


def check_voxel_size(volume: Volume, config: SegmentConfig) -> None:
    """Make sure that the voxel size is one that EM has.

    Raises
    ------
    InputError
        If not.
    """
    size = volume.voxel_size
    if not _is_usual(size):
        source = "input.voxel_size" if config.input.voxel_size is not None else f"the metadata of {volume.address}"
        raise InputError(
            f"a voxel is {' x '.join(f'{s:g}' for s in size)} nm along z, y, x by {source}, and EM has {FINEST:g} to "
            f"{COARSEST:g} nm, so watershed and output would go by a wrong scale; give it in nm, "
            f"--set input.voxel_size={_meant(size)}"
        )


def odd_text(volume: Volume, config: SegmentConfig, *, brief: bool = False) -> str:
    """Return a line that warns of a voxel size which is likely reversed or wrong; empty where it need not be.

    One that is ``brief`` repeats the other.

    A finer z alone is no sign, as stacks are binned in y and x; nor is what the user gave, unless its reverse is
    likely.
    """
    size, given = volume.voxel_size, config.input.voxel_size is not None
    turned = size[::-1]
    reverse = _is_likely(turned)
    if not volume.voxel_size_known or _is_square(size) or (given and not reverse):
        return ""
    source = "input.voxel_size" if given else "its metadata"
    what = "if these are x, y, z, give" if reverse else "where that is wrong, give"
    meant = ",".join(f"{along:g}" for along in turned) if reverse else "z,y,x"
    advice = f"{what} --set input.voxel_size='[{meant}]'"
    if brief:
        shape = " x ".join(f"{s:g}" for s in size)
        return f"warning: voxels of {shape} nm (z, y, x) by {source} may be wrong; {advice}"
    return (
        f"warning: a voxel of {volume.address} is {' x '.join(f'{s:g}' for s in size)} nm along z, y, x by {source}, "
        "and in EM y and x are mostly equal, so watershed and network may go by a wrong scale; "
        f"{advice}"
    )


def check_voxel_size_known(volume: Volume, config: SegmentConfig) -> None:
    """Make sure that the voxel size is known where the watershed depends on it.

    Raises
    ------
    InputError
        If not.
    """
    needed = config.segment.mode == "3d" and config.fragments.dimension == "auto" and volume.shape[0] > 1
    if needed and not volume.voxel_size_known:
        raise InputError(
            f"{volume.address} does not say its voxel size, on which the watershed depends; give it in nm "
            "along z, y, x, e.g. --set input.voxel_size='[40,4,4]'"
        )


def _is_square(size: Sequence[float]) -> bool:
    _, y, x = size
    return max(y, x) <= ODD * min(y, x)


def _is_likely(size: Sequence[float]) -> bool:
    z, y, x = size
    return _is_square(size) and max(y, x) <= ODD * z


def _is_usual(size: Sequence[float]) -> bool:
    return all(FINEST <= along <= COARSEST for along in size)


def _meant(size: Sequence[float]) -> str:
    """Return what to write: the same in nm where the numbers would fit another unit, else a placeholder."""
    for unit, nanometers in MISTAKEN.items():
        meant = [along * nanometers for along in size]
        if _is_usual(meant):
            return f"'[{','.join(f'{along:g}' for along in meant)}]' if these are {unit}"
    return "'[z,y,x]'"
