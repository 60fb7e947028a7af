"""The bytes of a segment of the ledger: many records in one immutable object.

A segment is a magic word, four lengths and a time, the boxes and states of its records (integers, compressed), their
results (a JSON list, compressed), and a CRC-32 of all before. What blocks are done is read without parsing any JSON.
"""

from __future__ import annotations

import json
import struct
import time
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from vimvol.geometry import Block

_MAGIC = b"vimrec01"
_HEADER = struct.Struct("<8s4Id")
_AT_ONCE = 1 << 20
"""Bytes of results that are unpacked together."""
_RECORDS_AT_ONCE = 1 << 14
_RESULT = json.JSONDecoder()


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

    def results(self) -> Iterator[dict[str, Any]]:
        """Yield the small result, or the error, of every record, never holding many of them."""
        text = ""
        for piece in _inside(self.packed):
            text, at = text + piece.decode(), 0
            while True:
                try:
                    result, at = _RESULT.raw_decode(text, at + text.startswith(",", at))
                except ValueError:  # the rest of it is still to come
                    break
                yield result
            text = text[at:]

    def records(self) -> Iterator[tuple[Block, bool, dict[str, Any]]]:
        """Yield the block of every record, whether it failed, and the result, never holding many of them."""
        results = self.results()
        for first in range(0, len(self), _RECORDS_AT_ONCE):
            part = slice(first, first + _RECORDS_AT_ONCE)
            for (begin, end), failed in zip(self.boxes[part].tolist(), self.failed[part].tolist(), strict=True):
                yield Block(tuple(begin), tuple(end)), failed, next(results)


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
    return Segment(
        np.concatenate([part.boxes for part in parts]),
        np.concatenate([part.failed for part in parts]),
        _joined([part.packed for part in parts if len(part)]),
        max(part.written for part in parts),
    )


def _joined(packed: Iterable[bytes]) -> bytes:
    """Join lists as they are stored; none is empty, and none of what they hold is looked at."""
    press, found = zlib.compressobj(1), bytearray()
    before = b"["
    for one in packed:
        found += press.compress(before)
        for piece in _inside(one):
            found += press.compress(piece)
        before = b","
    return bytes(found + press.compress(b"]" if before == b"," else b"[]") + press.flush())


def _inside(packed: bytes) -> Iterator[bytes]:
    """Yield a list as it is stored, without its brackets, some at a time; it is ASCII, so any part of it is text."""
    press, last = zlib.decompressobj(), b""
    begin = 1
    while not press.eof:
        piece = last + press.decompress(packed, _AT_ONCE)[begin:]
        packed, begin, last = press.unconsumed_tail, 0, piece[-1:]
        yield piece[:-1]


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
