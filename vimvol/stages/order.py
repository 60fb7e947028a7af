"""All stages of a segmentation, in the order in which they run.

A new one is a task, a function beside it that describes the stage, a line here, and a key in `vimvol.stages.keys`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from vimvol.engine.run import Execution
from vimvol.stages.costs import costs_stage
from vimvol.stages.fragments import fragments_stage
from vimvol.stages.graph import graph_stage
from vimvol.stages.job import Job
from vimvol.stages.predict import predict_stage
from vimvol.stages.pyramid import pyramid_stages
from vimvol.stages.sizes import contacts_stage, sizes_stage
from vimvol.stages.solve import solve_stage
from vimvol.stages.stage import Stage
from vimvol.stages.write import write_stage


def stages_of(job: Job) -> list[Stage]:
    """Return every stage; what reduces a large graph is part of the run of the stage solve, see `climb`."""
    return [
        predict_stage(job),
        fragments_stage(job),
        graph_stage(job),
        costs_stage(job),
        solve_stage(job),
        *([contacts_stage(job)] if job.small_below else []),
        sizes_stage(job),
        write_stage(job),
        *pyramid_stages(job, labels=True),
        *pyramid_stages(job, labels=False),
    ]


def run_stages(stages: Iterable[Stage], execution: Execution) -> dict[str, Any]:
    """Run what is not done of stages, one after the other; return what `Stage.run` does, of all of them together."""
    found: dict[str, Any] = {}
    for stage in stages:
        found |= stage.run(execution)
    return found
