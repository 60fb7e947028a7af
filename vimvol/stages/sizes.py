"""Stages contacts and sizes: from a partition to the lookup table, fragment to segment.

*contacts*, one table a block and only where sizes are to change: where segments that are small touch anything. *sizes*:
the rules of `vimvol.segment.sizes`, in this process. Small segments and what they touch are fewer than the edges that
were left for the last solve, so this needs no more memory than that did; and at the end `BYTES_PER_FRAGMENT`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from vimvol.config import SegmentConfig
from vimvol.engine.ledger import block_name
from vimvol.engine.plan import plan_stage
from vimvol.errors import ConfigError
from vimvol.geometry import Block
from vimvol.io.arrays import create_array, read_box, write_box
from vimvol.io.tables import read_table, write_table
from vimvol.segment.sizes import Contacts, Settled, merge_contacts, settle
from vimvol.stages.fragments import offsets_of
from vimvol.stages.graph import plan_of_tiles, read_edges, read_nodes
from vimvol.stages.job import Job
from vimvol.stages.solve import LOOKUP_CHUNK, partition_of
from vimvol.stages.stage import Stage

ROWS_AT_ONCE = 10**6
"""Rows of tables that are held beside those merged already, and ids that are looked up at once."""

Ids = npt.NDArray[np.uint64]
Counts = npt.NDArray[np.int64]


def check_sizes(config: SegmentConfig, *, stitched: bool) -> None:
    """Refuse rules that cannot be followed.

    Raises
    ------
    ConfigError
        If small segments are to join a neighbour where neighbours are not known.
    """
    for name in ("join_below", "fill_below"):
        value = getattr(config.agglomerate, name)
        if stitched and value:
            raise ConfigError(
                f"agglomerate.{name} = {value} would not be followed, as fragments are whole instances here and their "
                f"contacts are not measured; leave it 0, set segment.min_size, or take fragments.seeds=distance"
            )


@dataclass(frozen=True)
class ContactsBlock:
    """Collects where small segments touch, of the edges and fragments that one block owns."""

    job: Job

    def __call__(self, block: Block) -> dict[str, Any]:
        """Write contacts, and the surface of small segments; return the number of contacts."""
        job = self.job
        edges, nodes = read_edges(job, block), read_nodes(job, block)
        ids = np.unique(np.concatenate([edges.u, edges.v, nodes.fragment]))
        segment, voxels = _read_partition(job, ids)
        u, v, own = (np.searchsorted(ids, end) for end in (edges.u, edges.v, nodes.fragment))
        small = voxels < job.small_below
        rows = small[u] | small[v]
        contacts = Contacts.of(segment[u[rows]], segment[v[rows]], edges.count[rows], edges.totals.sum(axis=0)[rows])
        own_small = small[own]
        found, index = np.unique(segment[own[own_small]], return_inverse=True)
        surface = np.zeros(len(found), np.int64)
        # slices by themselves have no faces along z
        np.add.at(surface, index, nodes.surface[: 1 if job.flat else 2, own_small].sum(axis=0))
        columns: dict[str, npt.NDArray[Any]] = {**contacts.columns(), "segment": found, "surface": surface}
        write_table(contacts_of(job), block_name(block), columns)
        return {"contacts": len(contacts)}


@dataclass(frozen=True)
class Sizes:
    """Applies the rules, in the process that calls it, and writes the lookup table."""

    job: Job

    def __call__(self, block: Block) -> dict[str, Any]:  # noqa: ARG002 - the one block is the whole volume
        """Write the lookup table; return the number of segments, and how many vanished by either rule."""
        job = self.job
        last = int(read_box(offsets_of(job), Block((len(job.fragment_tiles),), (len(job.fragment_tiles) + 1,)))[0])
        first, voxels = (read_box(partition_of(job), Block((row, 0), (row + 1, last + 1)))[0] for row in (0, 1))
        joined = filled = 0
        if job.small_below:
            groups, joined, filled = _settled(job, voxels)
            # segments go by their smallest fragment, so only names have to be looked up
            renamed = np.arange(len(first), dtype=np.uint64)
            renamed[groups.node] = groups.group
            np.add.at(voxels, groups.group, voxels[groups.node])
            _look_up(renamed, first)
            del renamed
        lookup = segments_of(first, voxels, job.config.segment.min_size)
        url = lookup_of(job)
        create_array(url, lookup.shape, "uint64", chunk=(min(len(lookup), LOOKUP_CHUNK),))
        write_box(url, Block((0,), lookup.shape), lookup)
        return {"segments": int(lookup.max(initial=0)), "joined": joined, "filled": filled}


def contacts_stage(job: Job) -> Stage:
    """Return the stage contacts, of a job whose `Job.small_below` is not 0; its blocks are those of the graph."""
    return Stage(job, plan_of_tiles(job, "contacts"), ContactsBlock(job), tables=(contacts_of(job),), own=True)


def sizes_stage(job: Job) -> Stage:
    """Return the stage sizes."""
    return Stage(job, plan_stage("sizes", job.shape, job.shape, region=job.roi), Sizes(job), resource=None, own=True)


def segments_of(first: Ids, voxels: npt.NDArray[np.integer], min_size: int) -> Ids:
    """Return the segment of every fragment.

    Parameters
    ----------
    first
        (N + 1,) uint64, the smallest fragment of every fragment's segment, by the fragment's id; 0 for id 0. Its memory
        is that of the result.
    voxels
        (N + 1,) integers, voxels of every segment, at its smallest fragment.
    min_size
        Segments of fewer voxels become background, 0.

    Returns
    -------
    numpy.ndarray
        (N + 1,) uint64: 0 for id 0, else segments consecutive from 1, in the order of their first fragment.
    """
    kept = first == np.arange(len(first), dtype=np.uint64)
    kept &= voxels >= min_size
    kept[0] = False
    rank = kept.astype(np.uint64)
    np.cumsum(rank, out=rank)
    rank *= kept
    _look_up(rank, first)
    return first


def _look_up(table: Ids, ids: Ids) -> None:
    """Put in place of every id what a table has for it, some at a time."""
    for begin in range(0, len(ids), ROWS_AT_ONCE):
        part = ids[begin : begin + ROWS_AT_ONCE]
        part[:] = table[part]


def lookup_of(job: Job) -> str:
    """Return the array of segments: element i is the segment of fragment i, and 0 of background."""
    return f"{job.results}/segments"


def contacts_of(job: Job) -> str:
    """Return the group of the tables of contacts: columns of `Contacts`, and surfaces of parts of small segments."""
    return f"{job.results}/contacts"


def _settled(job: Job, voxels: Ids) -> Settled:
    """Apply the rules; ``voxels`` (N + 1,) are those of the segment of every fragment."""
    contacts, segment, surface = _gathered(job)
    agglomerate = job.config.agglomerate
    size = voxels[segment].astype(np.int64)
    return settle(contacts, segment, size, surface, agglomerate.join_below, agglomerate.fill_below)


def _gathered(job: Job) -> tuple[Contacts, Ids, Counts]:
    """Return the contacts of all blocks, the small segments, ascending, and their surface."""
    contacts, segment, surface = merge_contacts([]), np.empty(0, np.uint64), np.empty(0, np.int64)
    for tables in _batches(read_table(contacts_of(job), block_name(block)) for block in contacts_stage(job).plan):
        contacts = merge_contacts([contacts, *map(Contacts.from_columns, tables)])
        names = np.concatenate([segment, *(table["segment"] for table in tables)])
        parts = np.concatenate([surface, *(table["surface"] for table in tables)])
        segment, index = np.unique(names, return_inverse=True)
        surface = np.zeros(len(segment), np.int64)
        np.add.at(surface, index, parts)
    return contacts, segment, surface


def _batches(tables: Iterator[dict[str, npt.NDArray[Any]]]) -> Iterator[list[dict[str, npt.NDArray[Any]]]]:
    """Yield tables in lists of some rows each."""
    batch: list[dict[str, npt.NDArray[Any]]] = []
    for table in tables:
        batch.append(table)
        if sum(len(one["u"]) + len(one["segment"]) for one in batch) >= ROWS_AT_ONCE:
            yield batch
            batch = []
    if batch:
        yield batch


def _read_partition(job: Job, ids: Ids) -> tuple[Ids, Ids]:
    """Return the smallest fragment and the voxels of the segment of every fragment; ``ids`` ascend."""
    found = np.empty((2, len(ids)), np.uint64)
    last = int(ids[-1]) if len(ids) else 0
    chunk = ids // np.uint64(LOOKUP_CHUNK)
    for number in np.unique(chunk).tolist():
        rows = chunk == number
        begin, end = number * LOOKUP_CHUNK, min((number + 1) * LOOKUP_CHUNK, last + 1)
        part = read_box(partition_of(job), Block((0, begin), (2, end)))
        found[:, rows] = part[:, ids[rows] - np.uint64(begin)]
    return found[0], found[1]
