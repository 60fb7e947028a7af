"""The bytes of a segment of the ledger: many records in one immutable object.

A segment is a magic word, four lengths and a time, the boxes and states of its records (integers, compressed), their
results (a JSON list, compressed), and a CRC-32 of all before. What blocks are done is read without parsing any JSON.
"""

from __future__ import annotations

import json
import struct
import time
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from vimvol.geometry import Block

_MAGIC = b"vimrec01"
_HEADER = struct.Struct("<8s4Id")


@dataclass(frozen=True)
class Segment:
    """Records of blocks of one rank.

    Attributes
    ----------
    boxes
        (n, 2, rank) int64, first voxel and the voxel after the last of every block.
    failed
        (n,) whether the record says that the block failed; else it is done.
    packed
        Their results, as they are stored.
    written
        When the last of them was written, in seconds since 1970; for the reader, nothing is decided by it.
    """

    boxes: npt.NDArray[np.int64]
    failed: npt.NDArray[np.bool_]
    packed: bytes
    written: float

    def __len__(self) -> int:
        return len(self.boxes)

    def results(self) -> list[dict[str, Any]]:
        """Return the small result, or the error, of every record."""
        found: list[dict[str, Any]] = json.loads(zlib.decompress(self.packed))
        return found


def plain(value: object) -> object:
    """Return what JSON has in place of a NumPy scalar: its number.

    Raises
    ------
    TypeError
        For anything else. A text in its place would come back as another type, and be the same for different arrays,
        since long ones are abbreviated.
    """
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__qualname__} has no place in a record or key; convert it to what JSON knows")


def make_segment(records: Sequence[tuple[Block, bool, dict[str, Any]]]) -> Segment:
    """Return the segment of records: block, whether it failed, result.

    Raises
    ------
    TypeError
        If a result holds what JSON does not know, see `plain`.
    """
    boxes = np.array([(block.begin, block.end) for block, _, _ in records], np.int64)
    failed = np.array([state for _, state, _ in records], bool)
    text = json.dumps([result for _, _, result in records], separators=(",", ":"), default=plain)
    return Segment(boxes, failed, zlib.compress(text.encode(), 1), time.time())


def join_segments(segments: Iterable[Segment]) -> Segment:
    """Return one segment with the records of all, of which there is at least one."""
    parts = list(segments)
    results = [result for part in parts for result in part.results()]
    text = json.dumps(results, separators=(",", ":"))
    return Segment(
        np.concatenate([part.boxes for part in parts]),
        np.concatenate([part.failed for part in parts]),
        zlib.compress(text.encode(), 1),
        max(part.written for part in parts),
    )


def encode(segment: Segment) -> bytes:
    """Return the bytes of a segment."""
    count, _, rank = segment.boxes.shape
    numbers = zlib.compress(segment.boxes.astype("<i8").tobytes() + segment.failed.astype("u1").tobytes(), 1)
    data = (
        _HEADER.pack(_MAGIC, count, rank, len(numbers), len(segment.packed), segment.written) + numbers + segment.packed
    )
    return data + struct.pack("<I", zlib.crc32(data))


def decode(data: bytes) -> Segment:
    """Return the segment of its bytes.

    Raises
    ------
    ValueError
        If they are damaged or cut short.
    """
    if len(data) < _HEADER.size + 4 or data[:8] != _MAGIC or zlib.crc32(data[:-4]) != struct.unpack("<I", data[-4:])[0]:
        raise ValueError("no intact segment of a ledger")
    _, count, rank, size, results, written = _HEADER.unpack_from(data)
    begin = _HEADER.size
    numbers = zlib.decompress(data[begin : begin + size])
    split = count * 2 * rank * 8
    boxes = np.frombuffer(numbers[:split], "<i8").reshape(count, 2, rank).astype(np.int64)
    failed = np.frombuffer(numbers[split:], "u1").astype(bool)
    return Segment(boxes, failed, data[begin + size : begin + size + results], written)
