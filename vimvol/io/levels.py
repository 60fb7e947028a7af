"""Plans for storage: the levels of a pyramid, chunks and shards. Integers and nm only; nothing is opened."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from vimvol.errors import InputError
from vimvol.geometry import Index, round_up

_MOST_LEVELS = 16


@dataclass(frozen=True)
class Level:
    """One level of a pyramid; tuples are (z, y, x).

    Attributes
    ----------
    shape
        Voxels.
    factor
        Voxels of the full resolution along each axis of one voxel here, powers of 2.
    scale
        Size of a voxel, nm.
    translation
        Position of the centre of the first voxel against that at full resolution, nm.
    """

    shape: Index
    factor: Index
    scale: tuple[float, ...]
    translation: tuple[float, ...]


def pyramid(
    shape: Sequence[int], voxel_size: Sequence[float], levels: int | None = None, smallest: int = 256
) -> tuple[Level, ...]:
    """Plan a pyramid, the full resolution first.

    Each level halves those axes that bring its voxels closest to cubes: with coarse slices, y and x until they reach
    the size along z, then all. Shapes are rounded up; an axis of one voxel stays. A voxel covers a whole cell of the
    level below, so its centre moves by ``voxel_size * (factor - 1) / 2``.

    Parameters
    ----------
    shape
        Voxels (z, y, x) at full resolution, each at least 1.
    voxel_size
        nm, (z, y, x), each above 0.
    levels
        Number of levels, fewer where no axis is left to halve; none: until no axis is longer than ``smallest``.
    smallest
        Voxels, see ``levels``.

    Raises
    ------
    ValueError
        If an extent, a voxel size or a number is not positive, or the ranks differ.
    """
    if len(shape) != len(voxel_size) or min(*shape, *voxel_size, smallest, 1 if levels is None else levels) <= 0:
        raise ValueError(f"no pyramid of shape {shape}, voxels {voxel_size}, levels {levels}, smallest {smallest}")
    plan = [_level(shape, voxel_size, (1,) * len(shape))]
    while len(plan) < (levels or _MOST_LEVELS) and (levels or max(plan[-1].shape) > smallest):
        factor = _next_factor(plan[-1])
        if factor == plan[-1].factor:
            break
        plan.append(_level(shape, voxel_size, factor))
    return tuple(plan)


def _level(shape: Sequence[int], voxel_size: Sequence[float], factor: Index) -> Level:
    return Level(
        shape=tuple(-(-s // f) for s, f in zip(shape, factor, strict=True)),
        factor=factor,
        scale=tuple(float(v) * f for v, f in zip(voxel_size, factor, strict=True)),
        translation=tuple(float(v) * (f - 1) / 2 for v, f in zip(voxel_size, factor, strict=True)),
    )


def _next_factor(level: Level) -> Index:
    """Double the factor of those axes that make the voxels most nearly cubic; of equal choices, of most axes."""
    free = [s > 1 for s in level.shape]

    def anisotropy(choice: Index) -> tuple[float, int]:
        scale = [v * c for v, c, f in zip(level.scale, choice, free, strict=True) if f]
        return max(scale) / min(scale), -sum(choice)

    choices = [c for c in itertools.product(*((1, 2) if f else (1,) for f in free)) if 2 in c]
    best = min(choices, key=anisotropy, default=(1,) * len(free))
    return tuple(f * c for f, c in zip(level.factor, best, strict=True))


def storage_shapes(shape: Sequence[int], chunk: Sequence[int], shard: Sequence[int]) -> tuple[Index, Index]:
    """Clip chunk and shard to an array, so that a small one is not stored in oversized pieces.

    Parameters
    ----------
    shape, chunk, shard
        Voxels, one number an axis, each at least 1.

    Returns
    -------
    chunk, shard
        Neither larger than it need be; the shard a multiple of the chunk.

    Raises
    ------
    InputError
        If ``shard`` is no multiple of ``chunk`` or a number is below 1.
    """
    pairs = list(zip(shape, chunk, shard, strict=True))
    if any(min(pair) < 1 for pair in pairs):
        raise InputError(
            f"chunk {tuple(chunk)} or shard {tuple(shard)} has an axis below 1, so nothing fits in; make each 1 or more"
        )
    if any(d % c for _, c, d in pairs):
        near = tuple(round_up(d, c) for _, c, d in pairs)
        raise InputError(
            f"shard {tuple(shard)} is no multiple of the chunk {tuple(chunk)}, so chunks would be cut; use e.g. {near}"
        )
    chunks = tuple(min(c, s) for s, c, _ in pairs)
    shards = tuple(min(d, round_up(s, c)) for (s, _, d), c in zip(pairs, chunks, strict=True))
    return chunks, tuple(round_up(d, c) if d > c else c for c, d in zip(chunks, shards, strict=True))
