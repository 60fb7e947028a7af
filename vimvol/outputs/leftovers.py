"""Tables that earlier settings have left: other blocks, other tiles, more levels of a graph.

Nothing reads them any more, and nothing overwrites them. Tables of edges and fragments serve every segmentation of an
output: the records of their stage know of one set of blocks, that of the latest run, and these stay. All other tables
belong to one segmentation, and only those of the one that was just completed are looked at.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from vimvol.engine.ledger import block_name
from vimvol.engine.plan import StagePlan
from vimvol.geometry import Block
from vimvol.io.objects import open_objects
from vimvol.io.tables import keep_tables
from vimvol.stages.fragments import links_of
from vimvol.stages.job import Job
from vimvol.stages.levels import AT_EVERY_LEVEL, stages_of_levels
from vimvol.stages.order import stages_of
from vimvol.stages.solve import hierarchy_of


def remove_leftovers(job: Job, reduced: range) -> None:
    """Remove tables of earlier settings from a finished segmentation, and before them what is recorded of them.

    The caller holds the lock of the output.

    Parameters
    ----------
    job
        The job, all of whose stages are done.
    reduced
        Levels at which its graph was reduced before it was solved.

    Raises
    ------
    StorageError
        If something cannot be removed; what is left is removed the next time.
    """
    for stage in stages_of(job):
        for url in stage.tables:
            keep_tables(url, _names_blocks_of(stage.plan))
    ledgers, results = open_objects(f"{job.results}/ledger"), open_objects(job.results)
    if not job.small_below:
        ledgers.remove("contacts")
        results.remove("contacts")
    tiles = len(job.fragment_tiles) if job.network.cells is not None else 0
    keep_tables(links_of(job), partial(_is_below, tiles))
    _remove_levels(job, reduced)


def _remove_levels(job: Job, reduced: range) -> None:
    """Remove levels that the graph was not reduced to, and cells that these do not have."""
    ledgers, hierarchy = open_objects(f"{job.results}/ledger"), hierarchy_of(job)
    needed, kinds = stages_of_levels(reduced), {name.split(" ")[0] for name in stages_of_levels(range(1))}
    for stage in ledgers.names(""):
        if stage.split(" ")[0] in kinds and stage not in needed:
            ledgers.remove(stage)
    levels = open_objects(hierarchy.folder)
    for level in levels.names(""):
        if not level.isdigit():
            continue
        if int(level) not in range(reduced.start, reduced.stop + bool(reduced)):
            levels.remove(level)
            continue
        cells = len(hierarchy.cells(int(level)))
        for what in levels.names(level):
            kept = cells if what in AT_EVERY_LEVEL or int(level) in reduced else 0
            keep_tables(f"{hierarchy.folder}/{level}/{what}", partial(_is_below, kept))


def _is_below(count: int, name: str) -> bool:
    return not name.isdecimal() or int(name) < count  # what nobody here has named so stays


def _names_blocks_of(plan: StagePlan) -> Callable[[str], bool]:
    """Return what tells whether a name is that of a block of a stage, from the name alone: there may be millions."""
    cells, blocks = plan.cells(), plan.blocks

    def is_one(name: str) -> bool:
        parts = [part.partition("-")[0] for part in name.split("_")]
        if len(parts) != len(blocks.cell) or not all(part.isdecimal() for part in parts):
            return True  # nobody here has named it so
        begin = [int(part) for part in parts]
        index = Block(*(tuple(b // c + end for b, c in zip(begin, blocks.cell, strict=True)) for end in (0, 1)))
        return cells.contains(index) and block_name(blocks.block(index.begin)) == name

    return is_one
