"""Measure what it is worth that a worker reads the next block and writes the last one while it computes.

    python benchmarks/reading_ahead.py                     # storage as it is, and 0.1 s slower a request
    python benchmarks/reading_ahead.py --latencies 0.25    # others
    python benchmarks/reading_ahead.py --device 0.5        # waits 0.5 s a block in place of computing, as for a GPU

The prediction of 16 blocks by one worker, with reading ahead and without in turn, three times. Every request to zarr's
stores is held up, as it is by storage far away. The bytes of all runs are compared. Prints a table in Markdown with
medians. Where others work on the machine, a network computes for longer and the gain looks smaller than it is; a device
that is waited for is as fast as ever.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import distributed
import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.storage import LocalStore

from vimvol.config import SegmentConfig, load_config
from vimvol.engine.cluster import open_cluster
from vimvol.engine.dask_pool import DaskPool
from vimvol.engine.journal import NoJournal, StageReport
from vimvol.engine.run import Execution, run_stage
from vimvol.geometry import Block
from vimvol.outputs.output import claim_output, new_manifest
from vimvol.preflight.prepare import prepare
from vimvol.report.progress import silent
from vimvol.sample import SampleSpec, generate
from vimvol.stages import predict as stage
from vimvol.stages.predict import PredictBlock, predict_stage

SHAPE = (16, 1024, 1024)
SETTINGS = {"output.chunk": [16, 128, 128], "output.shard": [16, 256, 256], "predict.tile": [256, 256]}
TIMES = 3


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--latencies", type=float, nargs="+", default=[0.0, 0.1], help="seconds more a request")
    parser.add_argument("--device", type=float, help="seconds a block that take the place of the network")
    parser.add_argument("--scratch", help="folder for outputs, removed at the end")
    arguments = parser.parse_args()
    print(f"load {os.getloadavg()[0]:.1f} at the beginning\n")
    print("| more a request, s | one after the other, s | reading ahead, s | times | CPU s | reading ahead |")
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory(dir=arguments.scratch) as scratch:
        source = volume(Path(scratch))
        for seconds in arguments.latencies:
            out = Path(scratch) / f"{seconds}.zarr"
            reports: dict[bool, list[StageReport]] = {False: [], True: []}
            written = []
            for ahead in [True, False] * TIMES:
                reports[ahead].append(predict(source, out, Circumstances(seconds, arguments.device), ahead=ahead))
                written.append({path: path.read_bytes() for path in (out / "0").rglob("*") if path.is_file()})
            assert all(each == written[0] for each in written)
            wall = [statistics.median(report.seconds for report in reports[ahead]) for ahead in (False, True)]
            cpu = [statistics.median(report.usage.cpu for report in reports[ahead]) for ahead in (False, True)]
            cells = [f"{seconds:.2f}", *(f"{each:.1f}" for each in wall), f"{wall[0] / wall[1]:.2f}"]
            print("| " + " | ".join([*cells, *(f"{each:.1f}" for each in cpu)]) + " |", flush=True)


def volume(scratch: Path) -> str:
    """Write a synthetic volume; return its path."""
    data, _ = generate(SampleSpec(shape=SHAPE))
    path = str(scratch / "volume.zarr")
    array = zarr.create_array(path, shape=SHAPE, dtype=data.dtype, chunks=(16, 256, 256))
    array[:] = data
    array.attrs["resolution"] = [40.0, 8.0, 8.0]
    return path


def predict(source: str, out: Path, circumstances: Circumstances, *, ahead: bool) -> StageReport:
    """Predict the volume with one worker anew; return what the stage took."""
    job = prepare(source, str(out), load_config(SegmentConfig, None, SETTINGS))
    claim_output(job, {**new_manifest(job, ""), "created": False})
    journal = Kept()
    with open_cluster("local", 1) as pool:
        assert isinstance(pool, DaskPool)
        # One voxel first: what loads the network is no part of what is measured.
        whole = predict_stage(job)
        pool.submit(PredictBlock(replace(job, roi=Block((0, 0, 0), (1, 1, 1)))), whole.plan[0])
        pool.next_done()
        pool.client.register_plugin(circumstances)
        execution = Execution(pool, silent(), journal=journal).on("CPU", ahead=ahead)
        run_stage(whole.plan, whole.task, whole.ledger, execution)
    (report,) = journal.reports
    return report


class Circumstances(distributed.WorkerPlugin):
    """Holds up every request of a worker to zarr's stores, and lets it wait for a device, if there is to be one."""

    name = "circumstances"

    def __init__(self, latency: float, device: float | None) -> None:
        self._latency, self._device = latency, device

    def setup(self, worker: distributed.Worker) -> None:  # noqa: ARG002 - the interface of Dask
        """Wrap what reads and writes an object, and what computes."""
        for name in ("get", "set"):
            setattr(LocalStore, name, self._later(getattr(LocalStore, name)))
        if self._device is not None:
            stage.predict_planes = self._wait

    def _later(self, function: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def later(*args: Any, **options: Any) -> Any:  # noqa: ANN401
            await asyncio.sleep(self._latency)
            return await function(*args, **options)

        return later

    def _wait(self, _: Any, raw: NDArray[np.uint8], origin: Block, block: Block, *others: Any) -> NDArray[np.uint8]:  # noqa: ANN401
        """Return the intensities as boundaries, after the time of the device."""
        assert self._device is not None
        time.sleep(self._device)
        channels = others[2]
        return np.repeat(raw[block.within(origin).slices][None], channels, 0)


class Kept(NoJournal):
    """Keeps what stages took."""

    def __init__(self) -> None:
        self.reports: list[StageReport] = []

    def finish(self, report: StageReport) -> None:
        """Keep it."""
        self.reports.append(report)


if __name__ == "__main__":
    main()
