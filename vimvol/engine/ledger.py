"""What is done: records of blocks, written by the client after the blocks' data are flushed.

Records live under ``<stage>/<key>/``; the key is a digest of all that determines the stage's result (configuration,
weights, input, geometry, and the key of the stage before). One key a stage is kept: when a stage begins under a new
key, the records of the old one go first, because its data are about to be overwritten.

The client learns of every block anyway, and one output has one client (see `vimvol.engine.lock`). So it writes what
came in during the last second as one immutable object, a segment, and folds small segments into larger ones: no
shared file is ever appended to, which NFS and object stores do not do safely, and a million records are some dozens
of objects. A crash loses what was not yet written, at most a second of work, which is then repeated; a block is never
skipped. A damaged segment counts as not written.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vimvol.engine.missing import Missing, cells_of, covered_units
from vimvol.engine.records import Records
from vimvol.engine.segments import plain
from vimvol.geometry import Block, Grid, Index

SEGMENTS_TO_FOLD = 16
"""Segments of one size that are folded into one of the next."""
PLAN = "plan.json"


def content_key(*parts: object) -> str:
    """Return a digest of JSON-serialisable parts, equal for equal content and in any process.

    Raises
    ------
    TypeError
        If a part is none, see `vimvol.engine.segments.plain`.
    """
    text = json.dumps(parts, sort_keys=True, default=plain, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:20]


def block_name(block: Block) -> str:
    """Return the name under which a block is recorded, e.g. ``0-32_512-1024_0-512``."""
    return "_".join(f"{begin}-{end}" for begin, end in zip(block.begin, block.end, strict=True))


@dataclass(frozen=True)
class StageProgress:
    """How far a stage is.

    Attributes
    ----------
    blocks, voxels
        Of the whole stage.
    done
        Voxels of finished blocks.
    failures
        Blocks that failed for good and are not done since, and why.
    written
        When the last record was written, in seconds since 1970 by the clock of the client; for the reader alone.
    """

    blocks: int
    voxels: int
    done: int
    failures: dict[Block, str]
    written: float

    @property
    def complete(self) -> bool:
        """Whether every block is done."""
        return self.done >= self.voxels


@dataclass(frozen=True)
class Ledger(Records):
    """The records of one stage.

    Attributes
    ----------
    objects, stage, key
        As of `Records`.
    unit
        Voxels of one write unit of the stage's output, each of which a record vouches for: a later run may cut the
        volume into other blocks and repeats nothing. None: a record vouches for exactly its block, since what the
        block leaves is named after it.
    """

    unit: Index | None = None

    def begin(self, blocks: Grid) -> None:
        """Forget what was done under other keys and what is damaged; fold segments where earlier runs left many.

        Without a `unit`, records of other blocks than these are forgotten, too: nobody will ask for what they left.
        Only who holds the output's lock may call it.

        Raises
        ------
        StorageError
            If the storage fails.
        """
        for other in self.objects.names(self.stage):
            if other != self.key:
                self.objects.remove(f"{self.stage}/{other}")
        if self.unit is None and (plan := self._plan()) is not None and plan["cell"] != list(blocks.cell):
            self.objects.remove(self.folder)
        names = []
        for name, segment in self.stored():
            if segment is None:
                self.objects.remove(name)
            else:
                names.append(name)
        if len(names) > 4 * SEGMENTS_TO_FOLD:
            self.fold(names)

    def describe(self, blocks: Grid, count: int, voxels: int) -> None:
        """Note what the stage consists of: how many of the blocks, and the voxels of all these."""
        plan = {"cell": list(blocks.cell), "blocks": count, "voxels": voxels}
        if self._plan() != plan:
            self.objects.put(f"{self.folder}/{PLAN}", json.dumps(plan).encode())

    def _plan(self) -> dict[str, Any] | None:
        """Return what `describe` noted; none where it did not."""
        data = self.objects.get(f"{self.folder}/{PLAN}")
        try:
            plan: dict[str, Any] | None = None if data is None else json.loads(data)
        except ValueError:
            return None
        return plan

    def progress(self) -> StageProgress | None:
        """Return how far the stage is; none if it was not begun under this key."""
        total = self._plan()
        if total is None:
            return None
        segments = self.segments()
        boxes = [segment.boxes[~segment.failed] for segment in segments if not segment.failed.all()]
        unique = np.unique(np.concatenate(boxes), axis=0) if boxes else np.zeros((0, 2, 1), np.int64)
        voxels = int(np.prod(unique[:, 1] - unique[:, 0], axis=1).sum())
        failures: dict[Block, str] = {}
        for segment in segments:
            for block, failed, result in segment.records() if segment.failed.any() else ():
                if failed and not ((unique[:, 0] <= block.begin) & (unique[:, 1] >= block.end)).all(axis=1).any():
                    failures[block] = str(result.get("error", ""))
        written = max((segment.written for segment in segments), default=0.0)
        return StageProgress(total["blocks"], total["voxels"], voxels, dict(sorted(failures.items())), written)

    def done(self) -> set[str]:
        """Return the names (see `block_name`) of all finished blocks."""
        return {
            block_name(Block(tuple(begin), tuple(end)))
            for segment in self.segments()
            for begin, end in segment.boxes[~segment.failed].tolist()
        }

    def entries(self) -> Iterator[tuple[Block, dict[str, Any]]]:
        """Yield every finished block and the small result that it recorded, one segment in memory at a time.

        A block comes twice where a crash made it run twice.

        Raises
        ------
        StorageError
            If a segment is damaged: what is made of all results would be wrong without its blocks.
        """
        for segment in self.intact():
            for block, failed, result in segment.records():
                if not failed:
                    yield block, result

    def sums(self, blocks: Grid, names: Sequence[str]) -> dict[str, int]:
        """Return the sums of some numbers that finished blocks recorded, each block counted once.

        Nothing but a truth value is kept of a block.

        Parameters
        ----------
        blocks
            What the blocks are cells of; others are left out.
        names
            Of the numbers, which are integers: a sum of others would depend on the order.

        Raises
        ------
        StorageError
            If a segment is damaged.
        """
        counted = np.zeros(math.prod(blocks.counts), bool)
        found = dict.fromkeys(names, 0)
        for segment in self.intact():
            cells, exact = cells_of(blocks, segment.boxes)
            rows = np.flatnonzero(exact & ~segment.failed)
            rows = rows[~counted[cells[rows]]]
            rows = rows[np.unique(cells[rows], return_index=True)[1]]
            counted[cells[rows]] = True
            wanted = np.zeros(len(segment), bool)
            wanted[rows] = True
            for result in itertools.compress(segment.results(), wanted.tolist()):
                for name in names:
                    found[name] += result[name]
        return found

    def only(self) -> dict[str, Any]:
        """Return what the one block of a stage recorded that has no more.

        Raises
        ------
        StorageError
            If a segment is damaged.
        """
        (result,) = dict(self.entries()).values()
        return result

    def missing(self, blocks: Grid) -> Missing:
        """Return what is not done yet of the stage's output, cut into these blocks."""
        units = blocks if self.unit is None else Grid(blocks.shape, self.unit)
        done = (segment.boxes[~segment.failed] for segment in self.segments())
        return Missing(blocks, units, covered_units(units, done, exactly=self.unit is None))
