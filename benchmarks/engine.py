"""Measure what the engine itself costs, how it scales from one worker to two, and its memory.

    python benchmarks/engine.py                  # blocks that do nothing: 10^5 and 10^6 of them; ledger; planner
    python benchmarks/engine.py --blocks 20000   # another number of these
    python benchmarks/engine.py --scaling        # predict and fragments with 1 and 2 workers, 64 x 1024 x 1024 voxels
    python benchmarks/engine.py --memory         # peaks of client, scheduler and workers, 16 to 128 sections

Prints tables in Markdown and writes them with their numbers to ``--out``. Scheduler, workers and client are processes
of their own on this machine. Where others work on it too, believe the processor times.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import itertools
import json
import multiprocessing
import os
import platform
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import distributed
import numpy as np
import psutil
import zarr
from distributed.deploy.subprocess import SubprocessCluster

from vimvol.commands.segment import segment_volume
from vimvol.config import SegmentConfig, load_config
from vimvol.engine.cluster import open_cluster
from vimvol.engine.cluster.local import available_cores
from vimvol.engine.cluster.threads import ENVIRONMENT
from vimvol.engine.journal import NoJournal, StageReport
from vimvol.engine.ledger import Ledger
from vimvol.engine.plan import plan_stage
from vimvol.engine.run import Execution, run_stage
from vimvol.geometry import Block
from vimvol.io.objects import open_objects
from vimvol.outputs.output import claim_output, new_manifest
from vimvol.preflight.prepare import prepare
from vimvol.report.progress import silent
from vimvol.sample import SampleSpec, generate
from vimvol.stages.fragments import FragmentsBlock, fragments_stage
from vimvol.stages.predict import predict_stage

SETTINGS = {"output.chunk": [16, 128, 128], "output.shard": [16, 256, 256], "predict.tile": [256, 256]}
"""The same blocks whatever the volume, so that only their number grows."""
PATTERN = (16, 256, 256)
HUNDRED_TERABYTES = (10_000, 100_000, 100_000)
SECTIONS = (16, 32, 64, 128)
REPEATS = 5


def main() -> None:
    """Measure, print and write."""
    arguments = parse()
    result: dict[str, Any] = {"machine": machine()}
    with tempfile.TemporaryDirectory(dir=arguments.scratch) as scratch:
        if arguments.scaling:
            result["scaling"] = [scaling(Path(scratch), workers) for workers in (1, 2)]
        elif arguments.memory:
            with processes() as (address, groups):
                result["memory"] = [memory(Path(scratch), address, groups, sections) for sections in SECTIONS]
        else:
            with processes() as (address, groups):
                result["blocks"] = [
                    nothing(Path(scratch), address, groups, count) for count in arguments.blocks or (100_000, 1_000_000)
                ]
            result["planner"] = planner()
    text = table(result)
    arguments.out.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")
    arguments.out.with_suffix(".md").write_text(text)
    print(text)


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--blocks", type=int, nargs="*", help="numbers of blocks that do nothing")
    parser.add_argument("--scaling", action="store_true", help="1 worker against 2")
    parser.add_argument("--memory", action="store_true", help="volumes of 16 to 128 sections")
    parser.add_argument("--scratch", help="folder for outputs, removed at the end")
    parser.add_argument("--out", type=Path, default=Path("benchmark-engine"), help="files to write, without suffix")
    return parser.parse_args()


def machine() -> dict[str, str]:
    """Return what the numbers belong to."""
    info = Path("/proc/cpuinfo")
    names = [line.split(":")[1].strip() for line in info.read_text().splitlines() if "model name" in line]
    return {
        "processor": names[0] if names else platform.machine(),
        "cores": str(available_cores()),
        "load": f"{os.getloadavg()[0]:.1f}",
        "python": platform.python_version(),
        "distributed": metadata.version("distributed"),
        "date": datetime.datetime.now(tz=datetime.UTC).date().isoformat(),
    }


Groups = dict[str, list[psutil.Process]]


@contextlib.contextmanager
def processes() -> Iterator[tuple[str, Groups]]:
    """Start a scheduler and two workers; yield the scheduler's address, and the processes by what they are."""
    options = {"nthreads": 1, "memory_limit": 0, "dashboard_address": "127.0.0.1:0"}
    with (
        SubprocessCluster(
            host="127.0.0.1",
            n_workers=2,
            worker_kwargs=options,
            scheduler_kwargs={"dashboard_address": "127.0.0.1:0"},
        ) as cluster,
        distributed.Client(cluster, set_as_default=False) as client,
    ):
        client.wait_for_workers(2, timeout=120)
        groups = {
            "client": [psutil.Process()],
            "scheduler": [psutil.Process(client.run_on_scheduler(os.getpid))],
            "worker": [psutil.Process(pid) for pid in client.run(os.getpid).values()],
        }
        yield cluster.scheduler_address, groups


class Watch:
    """Peak resident memory and processor time of processes, from entering to leaving."""

    def __init__(self, groups: Groups) -> None:
        self._groups = groups
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self.peaks = dict.fromkeys(groups, 0)
        self.seconds: dict[str, float] = {}

    def __enter__(self) -> Watch:
        """Begin."""
        self._before = {name: self._used(group) for name, group in self._groups.items()}
        self._start = time.perf_counter()
        self._thread.start()
        return self

    def __exit__(self, *reason: object) -> None:
        """End."""
        self.wall = time.perf_counter() - self._start
        self._end.set()
        self._thread.join()
        self.seconds = {name: self._used(group) - self._before[name] for name, group in self._groups.items()}

    @property
    def mib(self) -> dict[str, int]:
        """The largest process of each kind at its peak, MiB."""
        return {name: round(peak / 2**20) for name, peak in self.peaks.items()}

    def _look(self) -> None:
        while True:
            for name, group in self._groups.items():
                self.peaks[name] = max(self.peaks[name], *(process.memory_info().rss for process in group))
            if self._end.wait(0.25):
                return

    @staticmethod
    def _used(group: list[psutil.Process]) -> float:
        return sum(sum(process.cpu_times()[:2]) for process in group)


def do_nothing(block: Block) -> dict[str, Any]:  # noqa: ARG001 - what every block task takes
    """Be a block that costs nothing."""
    return {}


def nothing(scratch: Path, address: str, groups: Groups, count: int) -> dict[str, Any]:
    """Run blocks that do nothing, then read their records as a run that goes on does."""
    plan = plan_stage("nothing", (count, 1, 1), (1, 1, 1))
    ledger = Ledger(open_objects(str(scratch / str(count))), "nothing", "key")
    with Watch(groups) as watch, open_cluster(address) as pool:
        run_stage(plan, do_nothing, ledger, Execution(pool, silent()))
    start, used = time.perf_counter(), time.process_time()
    missing = ledger.missing(plan.blocks)
    read, read_cpu = time.perf_counter() - start, time.process_time() - used
    assert not any(missing(block) for block in plan)
    return {
        "blocks": count,
        "wall": watch.wall,
        "cpu": watch.seconds,
        "mib": watch.mib,
        "objects": len(ledger.segments()),
        "read": read,
        "read_cpu": read_cpu,
    }


def planner(count: int = 1_000_000) -> dict[str, float]:
    """Cut a volume of 100 TB into the blocks of a stage, and go through the first million, as a run does."""
    start = time.process_time()
    plan = plan_stage("predict", HUNDRED_TERABYTES, (32, 512, 512))
    planned = time.process_time() - start
    assert sum(1 for _ in itertools.islice(plan, count)) == count
    return {"blocks": len(plan), "planned": planned, "million": time.process_time() - start}


def volume(scratch: Path, shape: tuple[int, int, int]) -> str:
    """Write a volume that repeats a synthetic piece; return its path."""
    piece, _ = generate(SampleSpec(shape=PATTERN))
    path = scratch / f"{'-'.join(map(str, shape))}.zarr"
    array = zarr.create_array(str(path), shape=shape, dtype=piece.dtype, chunks=PATTERN, overwrite=True)
    for z in range(0, shape[0], PATTERN[0]):
        array[z : z + PATTERN[0]] = np.tile(piece, (1, shape[1] // PATTERN[1], shape[2] // PATTERN[2]))
    array.attrs["resolution"] = [40.0, 8.0, 8.0]
    return str(path)


def scaling(scratch: Path, workers: int) -> dict[str, Any]:
    """Time predict and fragments, and what of the workers' time was not spent in blocks.

    Fragments take seconds, and the first time compiles: they are made `REPEATS` times, and the median counts.
    """
    config = load_config(SegmentConfig, None, SETTINGS)
    job = prepare(volume(scratch, (64, 1024, 1024)), str(scratch / f"{workers}.zarr"), config)
    claim_output(job, new_manifest(job, ""))
    found: dict[str, Any] = {"workers": workers}
    journal = Kept()
    with open_cluster("local", workers) as pool:
        # Nothing is read ahead: where blocks overlap, their times tell nothing of what lies between them.
        execution = Execution(pool, silent(), journal=journal).on("CPU")
        for stage, repeats in ((predict_stage(job), 1), (fragments_stage(job), REPEATS)):
            runs = []
            for _ in range(repeats):
                stage.ledger.objects.remove(stage.ledger.folder)
                start, used = time.perf_counter(), time.process_time()
                run_stage(stage.plan, stage.task, stage.ledger, execution)
                wall, client = time.perf_counter() - start, time.process_time() - used
                inside, cpu = journal.reports[-1].busy, journal.reports[-1].usage.cpu
                runs.append({"wall": wall, "outside": 1 - inside / (wall * workers), "cpu": cpu, "client": client})
            found[stage.name] = {key: statistics.median(run[key] for run in runs) for key in runs[0]}
    blocks = list(fragments_stage(job).plan)
    found["floor"] = statistics.median(floor(FragmentsBlock(job), blocks, workers) for _ in range(REPEATS))
    return found


def floor(task: FragmentsBlock, blocks: list[Block], processes: int) -> float:
    """Return the seconds that the blocks take in processes that know nothing of each other: what the machine allows."""
    os.environ.update(ENVIRONMENT)
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(processes + 1)
    parts = [blocks[i::processes] for i in range(processes)]
    started = [context.Process(target=alone, args=(task, part, barrier)) for part in parts]
    for process in started:
        process.start()
    barrier.wait()
    start = time.perf_counter()
    for process in started:
        process.join()
        assert process.exitcode == 0
    return time.perf_counter() - start


def alone(task: FragmentsBlock, blocks: list[Block], barrier: threading.Barrier) -> None:
    """Compute blocks once all are there."""
    barrier.wait()
    for block in blocks:
        task(block)


class Kept(NoJournal):
    """Keeps what stages took."""

    def __init__(self) -> None:
        self.reports: list[StageReport] = []

    def finish(self, report: StageReport) -> None:
        """Keep it."""
        self.reports.append(report)


def memory(scratch: Path, address: str, groups: Groups, sections: int) -> dict[str, Any]:
    """Segment a volume and tell the peaks of all processes."""
    path = volume(scratch, (sections, 512, 512))
    with Watch(groups) as watch:
        segment_volume(
            path, str(scratch / f"{sections}.zarr"), load_config(SegmentConfig, None, SETTINGS), cluster=address
        )
    return {"sections": sections, "mib": watch.mib, "wall": watch.wall}


def table(result: dict[str, Any]) -> str:
    """Return the numbers as Markdown."""
    about = result["machine"]
    lines = [
        f"{about['processor']}, {about['cores']} cores, load {about['load']} at the beginning; distributed "
        f"{about['distributed']}, Python {about['python']}; {about['date']}. 2 workers unless told otherwise.",
        "",
    ]
    if "blocks" in result:
        lines += [
            "| blocks that do nothing | wall s | ms a block | CPU ms a block: client | scheduler | client MiB "
            "| scheduler MiB | worker MiB | records read, CPU s | objects |",
            "|---|---|---|---|---|---|---|---|---|---|",
        ]
        for row in result["blocks"]:
            count, cpu, mib = row["blocks"], row["cpu"], row["mib"]
            cells = [f"{count:,}", f"{row['wall']:.0f}", f"{row['wall'] / count * 1e3:.2f}"]
            cells += [f"{cpu[name] / count * 1e3:.3f}" for name in ("client", "scheduler")]
            cells += [str(mib[name]) for name in ("client", "scheduler", "worker")]
            cells += [f"{row['read_cpu']:.1f}", str(row["objects"])]
            lines.append("| " + " | ".join(cells) + " |")
        plan = result["planner"]
        lines += [
            "",
            f"A volume of 100 TB: {plan['blocks']:,} blocks, planned in {plan['planned'] * 1e3:.1f} ms; "
            f"going through a million of them takes {plan['million']:.1f} s of processor time.",
        ]
    if "scaling" in result:
        one, two = result["scaling"]
        lines += [
            "| stage | 1 worker s | 2 workers s | times | outside of blocks: 1 | 2 "
            "| CPU s of blocks: 1 | 2 | of the client: 1 | 2 |",
            "|---|---|---|---|---|---|---|---|---|---|",
        ]
        for stage in ("predict", "fragments"):
            a, b = one[stage], two[stage]
            cells = [stage, f"{a['wall']:.1f}", f"{b['wall']:.1f}", f"{a['wall'] / b['wall']:.2f}"]
            cells += [f"{a['outside']:.1%}", f"{b['outside']:.1%}"]
            cells += [f"{each[key]:.1f}" for key in ("cpu", "client") for each in (a, b)]
            lines.append("| " + " | ".join(cells) + " |")
        a, b = one["floor"], two["floor"]
        lines += [
            "",
            f"Fragments: medians of {REPEATS}; without Dask {a:.1f} s in one process, {b:.1f} s in two: {a / b:.2f}.",
        ]
    if "memory" in result:
        lines += ["| sections | worker MiB | client MiB | scheduler MiB |", "|---|---|---|---|"]
        for row in result["memory"]:
            mib = row["mib"]
            lines.append(f"| {row['sections']} | {mib['worker']} | {mib['client']} | {mib['scheduler']} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
