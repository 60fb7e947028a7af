"""What every stage takes besides its blocks: handing them out, hearing of them, and recording them."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from vimvol.engine.ledger import Ledger
from vimvol.engine.plan import plan_stage
from vimvol.engine.pool import Pool
from vimvol.engine.run import Execution, run_stage
from vimvol.geometry import Block
from vimvol.io.objects import open_objects
from vimvol.report.progress import silent


@dataclass(frozen=True)
class NoBlock:
    """Computes nothing."""

    def __call__(self, block: Block) -> dict[str, Any]:  # noqa: ARG002 - as every task
        """Return nothing."""
        return {}


def seconds_besides_blocks(folder: str, pool: Pool) -> float:
    """Measure the wall time of a stage with a block for each worker that does nothing.

    Parameters
    ----------
    folder
        Path or URL of a folder on the storage of the output, where the stage is recorded.
    pool
        The workers.
    """
    plan = plan_stage("nothing", (1, 1, pool.slots_for("CPU")), (1, 1, 1))
    start = time.perf_counter()
    run_stage(plan, NoBlock(), Ledger(open_objects(folder), plan.name, "0"), Execution(pool, silent(), resource="CPU"))
    return time.perf_counter() - start
