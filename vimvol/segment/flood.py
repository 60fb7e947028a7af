"""Flooding of integer heights from seeds: the watershed of Meyer (1994), "Topographic distance and watershed lines".

Signal Processing 38:113. A queue for every level; the lowest is emptied first. Within a level the voxel that was
reached last goes on first, so that the order is defined and most of what is read is in the cache.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vimvol.jit import compiled

# Queues are chains of chunks of so many entries; the first entry tells where the chunk before it ends. Positions are
# unsigned throughout: a signed index costs a comparison, and twice the time in all.
_CHUNK = np.uint64(128)
_LAST = _CHUNK - np.uint64(1)
_ZERO, _ONE = np.uint64(0), np.uint64(1)


def flood(
    heights: NDArray[np.float32] | NDArray[np.int16], seeds: NDArray[np.uint32], mask: NDArray[np.bool_] | None = None
) -> NDArray[np.uint32]:
    """Flood heights from seeds.

    Every voxel takes the label of the neighbour, along the axes, that reached it first. Seeds start in C order, and
    neighbours are taken in the order -z, +z, -y, +y, -x, +x.

    Parameters
    ----------
    heights
        (Y, X) or (Z, Y, X), whole numbers that span less than 2^31.
    seeds
        uint32 of that shape, below 2^31; 0 is no seed.
    mask
        bool of that shape, where water flows; seeds elsewhere are none. Everywhere by default.

    Returns
    -------
    numpy.ndarray
        uint32 of that shape; 0 where no water came.

    Raises
    ------
    ValueError
        If the shapes differ, or there are 2^31 voxels or more.
    """
    if heights.shape != seeds.shape or (mask is not None and mask.shape != heights.shape):
        raise ValueError(f"heights {heights.shape}, seeds {seeds.shape} and the mask are not of one shape")
    if heights.ndim == 2:
        slices = flood(heights[None], seeds[None], None if mask is None else mask[None])
        return np.asarray(slices[0])
    depth, height, width = heights.shape
    # what surrounds the voxels lets no water through, so that none has to ask where it lies
    rim = int(depth > 1)
    shape = (depth + 2 * rim, height + 2, width + 1)
    row, plane = shape[2], shape[1] * shape[2]
    if heights.size == 0:
        return np.zeros(heights.shape, np.uint32)
    if shape[0] * plane >= 2**31:
        raise ValueError(f"heights of shape {heights.shape} are too many to flood at once; at most 2^31 voxels")

    low = heights.min()
    levels = int(heights.max()) - int(low) + 1
    # half the memory is also less to wait for
    small = max(levels, int(seeds.max())) < 2**15
    state = np.zeros(shape, np.int16 if small else np.int32)
    inner = state[rim : depth + rim, 1:-1, :-1]
    _fill(heights, seeds, np.ones((0, 0, 0), np.bool_) if mask is None else mask, low, inner)
    # a slice has no neighbours along z; the voxel itself has its water already
    steps = np.array([-plane * rim, plane * rim, -row, row, -1, 1], np.int64).view(np.uint64)
    # every queue may leave a chunk unfilled; what is not used is never touched
    pool = np.empty((heights.size // (int(_CHUNK) - 1) + levels + 2) * int(_CHUNK), np.uint32)
    ends = np.full(levels, _LAST, np.uint64)
    flat = state.reshape(-1)
    unused = _push_seeds(heights, low, flat, shape, rim, steps, pool, ends)
    # what compiled code returns is a plain int again
    _empty_queues(flat, steps, pool, ends, np.uint64(unused))
    return np.maximum(inner, 0).astype(np.uint32)


@compiled()
def difference(
    values: NDArray[np.float32], others: NDArray[np.float32], factor: np.float32, other: np.float32
) -> NDArray[np.int16]:
    """Return ``factor * values - other * others``, rounded; (N,) each."""
    result = np.empty(len(values), np.int16)
    for i in range(len(values)):
        result[i] = np.int16(np.rint(factor * values[i] - other * others[i]))
    return result


@compiled()
def _fill(
    heights: NDArray[np.float32] | NDArray[np.int16],
    seeds: NDArray[np.uint32],
    mask: NDArray[np.bool_],
    low: np.float32 | np.int16,
    state: NDArray[np.int16] | NDArray[np.int32],
) -> None:
    """Write labels above 0, where there are seeds, and levels from -1 downwards, where water may come.

    It may come everywhere where the mask is empty, which that of no volume is.
    """
    everywhere = mask.size == 0
    for z in range(heights.shape[0]):
        for y in range(heights.shape[1]):
            for x in range(heights.shape[2]):
                if everywhere or mask[z, y, x]:
                    seed = seeds[z, y, x]
                    state[z, y, x] = seed if seed > 0 else -1 - int(heights[z, y, x] - low)


@compiled()
def _push_seeds(
    heights: NDArray[np.float32] | NDArray[np.int16],
    low: np.float32 | np.int16,
    state: NDArray[np.int16] | NDArray[np.int32],
    shape: tuple[int, int, int],
    rim: int,
    steps: NDArray[np.uint64],
    pool: NDArray[np.uint32],
    ends: NDArray[np.uint64],
) -> np.uint64:
    """Queue the seeds that water may leave; return the first chunk that is not used."""
    unused = _CHUNK
    for z in range(heights.shape[0]):
        for y in range(heights.shape[1]):
            voxel = np.uint64(((z + rim) * shape[1] + y + 1) * shape[2])
            for x in range(heights.shape[2]):
                if state[voxel] > 0:
                    free = False
                    for k in range(6):
                        free |= state[voxel + steps[k]] < 0
                    if free:
                        level = int(heights[z, y, x] - low)
                        end = ends[level] + _ONE
                        if end & _LAST == _ZERO:
                            pool[unused] = end - _ONE
                            end = unused + _ONE
                            unused += _CHUNK
                        pool[end] = voxel
                        ends[level] = end
                voxel += _ONE
    return unused


@compiled()
def _empty_queues(
    state: NDArray[np.int16] | NDArray[np.int32],
    steps: NDArray[np.uint64],
    pool: NDArray[np.uint32],
    ends: NDArray[np.uint64],
    unused: np.uint64,
) -> None:
    """Let water flow until all queues are empty."""
    s0, s1, s2, s3, s4, s5 = steps[0], steps[1], steps[2], steps[3], steps[4], steps[5]
    spare = _ZERO  # the first of a chain of chunks that were emptied
    for level in range(len(ends)):
        end = ends[level]
        while end != _LAST:
            voxel = np.uint64(pool[end])
            end -= _ONE
            if end & _LAST == _ZERO:
                before = np.uint64(pool[end])
                pool[end] = spare
                spare, end = end, before
            label = state[voxel]
            # in a function of its own, what adds to a queue would take as long again as all of this
            for near in (voxel + s0, voxel + s1, voxel + s2, voxel + s3, voxel + s4, voxel + s5):
                value = state[near]
                if value >= 0:
                    continue
                state[near] = label
                target = np.uint64(-1 - int(value))
                here = target <= np.uint64(level)
                into = (end if here else ends[target]) + _ONE
                if into & _LAST == _ZERO:
                    if spare != _ZERO:
                        fresh = spare
                        spare = np.uint64(pool[spare])
                    else:
                        fresh = unused
                        unused += _CHUNK
                    pool[fresh] = into - _ONE
                    into = fresh + _ONE
                pool[into] = near
                if here:
                    end = into
                else:
                    ends[target] = into
