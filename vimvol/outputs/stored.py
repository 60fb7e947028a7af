"""Jobs on what a run has left, from its manifest alone: neither the input nor the network need be there any more.

The manifest keeps what later stages have to know of them, and the keys of what is stored. So a job on it has these
keys, and costs, solution and labels are recorded as if the input had been looked at again.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from vimvol.address import absolute
from vimvol.config import FragmentsConfig, SegmentConfig
from vimvol.errors import InputError
from vimvol.geometry import Block, Grid, Index
from vimvol.infer.planes import ORDERS, Plane
from vimvol.infer.standardization import Standardization
from vimvol.infer.tiles import Tiling
from vimvol.io import Level, Volume
from vimvol.outputs.manifest import STORED
from vimvol.stages.job import Cells, Job, Network, are_instances
from vimvol.stages.keys import FORMATS
from vimvol.stages.learned import find_learned

PLANES = "planes"
"""In what a manifest keeps, tiles of the prediction; the outputs of earlier versions have none."""

SHARED = ("predict", "fragments", "graph", "pyramid")
"""Stages that serve every segmentation of an output."""

Json = dict[str, Any]


def stored_of(job: Job) -> Json:
    """Return what a manifest keeps so that `stored_job` can do without input and network."""
    cells = job.network.cells
    source = {each.name: getattr(job.source, each.name) for each in fields(Volume) if each.compare}
    return {
        "formats": FORMATS,
        "source": source,
        "cells": None if cells is None else {"method": cells.method, "channels": list(cells.channels)},
        "fragments": job.fragments_config.model_dump(mode="json"),
        "tile": list(job.fragment_tiles.cell),
        PLANES: [[plane.axis, list(plane.tiling.grid.cell)] for plane in job.planes],
    }


def stored_job(out: str, manifest: Json, config: SegmentConfig) -> Job:
    """Return the job that makes a segmentation of what is stored.

    It predicts nothing, so of the slices only the volume is known that they make up, and their tiles where `PLANES` are
    noted; and no mask is looked at.

    Parameters
    ----------
    out
        Path of the output.
    manifest
        Its manifest, which has the entry `STORED`.
    config
        The settings of the run, but for those of the agglomeration.

    Raises
    ------
    InputError
        If another version of vimvol stored it otherwise, or ``agglomerate.costs`` does not fit.
    """
    stored, layout, model = manifest[STORED], manifest["layout"], manifest["model"]
    _check_formats(out, stored["formats"])
    shape, cells = _index(layout["shape"]), stored["cells"]
    made = None if cells is None else Cells(cells["method"], _index(cells["channels"]))
    fragments = FragmentsConfig.model_validate(stored["fragments"])
    learned = find_learned(config, fragments, stitched=are_instances(config, made, fragments))
    if learned is not None:  # found again from another working directory
        costs = config.agglomerate.model_copy(update={"costs": learned.path})
        config = config.model_copy(update={"agglomerate": costs})
    numbers, roi = manifest["standardization"], layout["roi"]
    planes = stored.get(PLANES) or [["z", [1, *shape[1:]]]]
    return Job(
        source=Volume(**{name: _tuple(value) for name, value in stored["source"].items()}),
        out=absolute(out),
        config=config,
        network=Network(model["name"], model["sha256"], layout["channels"], model["boundary"], made),
        standardization=Standardization(tuple(numbers["mean"]), tuple(numbers["std"])),
        planes=tuple(_plane(axis, shape, _index(cell)) for axis, cell in planes),
        fragments_config=fragments,
        fragment_tiles=Grid(shape, _index(stored["tile"])),
        chunk=_index(layout["chunk"]),
        shard=_index(layout["shard"]),
        levels=tuple(Level(*map(tuple, level)) for level in layout["levels"]),
        roi=None if roi is None else Block(_index(roi[0]), _index(roi[1])),
        learned=learned,
        replaced=tuple((begin, end) for begin, end in manifest.get("replaced", ())),
        recorded=tuple((stage, manifest["keys"][stage]) for stage in SHARED),
    )


def _plane(axis: str, shape: Index, cell: Index) -> Plane:
    order = ORDERS[axis]
    return Plane(order, Tiling(Grid(tuple(shape[a] for a in order), cell), window=cell[1:], before=(0, 0)))


def _check_formats(out: str, formats: Json) -> None:
    for what, version in FORMATS.items():
        if formats.get(what) != version:
            raise InputError(
                f"the {what} of {out} were stored by another version of vimvol (format {formats.get(what)}, this one "
                f"has {version}), so stored edges do not serve; run vimvol segment"
            )


def _tuple(value: Any) -> Any:  # noqa: ANN401 - of JSON
    return tuple(value) if isinstance(value, list) else value


def _index(values: list[int]) -> Index:
    return tuple(values)
