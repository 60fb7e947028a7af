"""What is counted to score a segmentation: the overlaps in one block, and their way to one table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vimvol.evaluate.contingency import Contingency
from vimvol.evaluate.fill import fill_block
from vimvol.evaluate.objects import Places
from vimvol.evaluate.protocol import judged
from vimvol.geometry import Block
from vimvol.io import Volume

TABLES_AT_ONCE = 64


@dataclass(frozen=True)
class CountBlock:
    """Counts the overlaps in one block of two volumes.

    Attributes
    ----------
    found, truth
        Segmentation and ground truth, of one shape.
    flat
        Whether slices count one by one, and background is a segment like any other.
    bands
        Of `vimvol.evaluate.protocol.score_volume`; one table each.
    ignore
        Labels of the ground truth that are not judged; 0 is background, and judged, where it is not among them.
    places
        Whether to remember where pairs lie.
    """

    found: Volume
    truth: Volume
    flat: bool
    bands: Sequence[int]
    ignore: Sequence[int]
    places: bool

    def __call__(self, block: Block) -> list[Counted]:
        """Return the counts of the block: one a slice and band if slices count one by one, else one a band."""
        context = max(self.bands)
        window = block.grow((0, context, context)).clip(self.truth.shape)
        truth = self.truth.read_labels(window)
        read, shape = self.found.read_labels, self.found.shape
        seg = read(block) if self.flat else fill_block(read, block, shape)
        result = []
        for band in self.bands:
            kept = truth if self.flat else judged(truth, band, self.ignore)
            gt = np.ascontiguousarray(kept[block.within(window).slices])
            if self.flat:
                slices = range(block.begin[0], block.end[0])
                result += [self._count(seg[i : i + 1], gt[i : i + 1], band, z, block) for i, z in enumerate(slices)]
            else:
                result.append(self._count(seg, gt, band, block.begin[0], block))
        return result

    def _count(self, seg: NDArray[Any], gt: NDArray[Any], band: int, z: int, block: Block) -> Counted:
        left_out = self.ignore if self.flat else (0,)
        at = (z, *block.begin[1:])
        places = Places.from_arrays(seg, gt, at, left_out) if self.places else Places.merge([])
        return Counted(band, z if self.flat else 0, Contingency.from_arrays(seg, gt, left_out), places)


@dataclass(frozen=True)
class Counted:
    """Overlaps of a band, of a slice (0 if the whole volume is one), and where they are."""

    band: int
    slice: int
    table: Contingency
    places: Places


@dataclass
class Gathered:
    """Tables of blocks on their way to one table; folded now and then, so that equal pairs do not pile up."""

    tables: list[Contingency] = field(default_factory=list)
    places: list[Places] = field(default_factory=list)
    blocks: int = 0

    def add(self, counted: Counted) -> None:
        """Take the counts of a block."""
        self.tables.append(counted.table)
        self.places.append(counted.places)
        self.blocks += 1
        if len(self.tables) >= TABLES_AT_ONCE:
            self.tables, self.places = [self.table()], [Places.merge(self.places)]

    def table(self) -> Contingency:
        """Return the table of all blocks."""
        return Contingency.merge(self.tables)
