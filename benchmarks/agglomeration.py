"""From boundaries to a segmentation: seconds per gigavoxel and memory of every stage, beside elf's and bioimage-py's.

    python benchmarks/agglomeration.py --shape 512 2048 2048 --workers 2 --dimension 3d
    python benchmarks/agglomeration.py --shape 64 512 512 --workers 2 --others

The boundaries are those of Voronoi cells on a torus of 128 x 256 x 256 voxels with noise, repeated over the volume and
written block by block, in place of a prediction. Everything after runs as in `vimvol segment`. On a machine that is
busy, trust seconds of CPU more than those of the clock. What the client's own process takes cannot be shared out.

The others run in memory, with a thread a worker where they take any: elf (`pip install python-elf`), and bioimage-py
(`pip install bioimage-py`), which has no maxima of plateaus and no graph of regions: those are of scikit-image and
bioimage-cpp.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import os
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import zarr
from scipy.spatial import cKDTree

from vimvol.config import SegmentConfig, load_config
from vimvol.engine.cluster import open_cluster
from vimvol.engine.run import Execution
from vimvol.geometry import Block
from vimvol.io.arrays import write_box
from vimvol.outputs.output import claim_output, new_manifest
from vimvol.preflight.prepare import prepare
from vimvol.report.progress import silent
from vimvol.stages.fragments import fragments_stage
from vimvol.stages.graph import graph_stage
from vimvol.stages.job import Job
from vimvol.stages.order import run_stages, stages_of
from vimvol.stages.predict import predict_stage
from vimvol.stages.pyramid import pyramid_stages
from vimvol.stages.solve import solve_stage
from vimvol.stages.write import write_stage

TORUS = (128, 256, 256)
CELLS = 1000


def texture(seed: int = 0) -> np.ndarray:
    """Boundaries of Voronoi cells on a torus, uint8, about 20 voxels across."""
    rng = np.random.default_rng(seed)
    tree = cKDTree(rng.random((CELLS, 3)) * TORUS, boxsize=TORUS)
    result = np.empty(TORUS, np.uint8)
    for z in range(TORUS[0]):
        grid = np.stack(np.meshgrid([z], np.arange(TORUS[1]), np.arange(TORUS[2]), indexing="ij"), axis=-1)
        near = tree.query(grid.reshape(-1, 3).astype(float), k=2, workers=-1)[0]
        edge = np.exp(-(((near[:, 1] - near[:, 0]) / 2.5) ** 2)) + rng.normal(0, 0.05, len(near))
        result[z] = np.rint(np.clip(edge, 0, 1) * 255).reshape(TORUS[1:])
    return result


@dataclass(frozen=True)
class Boundaries:
    """Writes a block of boundaries."""

    job: Job
    file: str

    def __call__(self, block: Block) -> dict[str, Any]:
        """Cut the block out of the endless repetition of the torus."""
        cell = np.load(self.file, mmap_mode="r")
        for axis, (begin, end) in enumerate(zip(block.begin, block.end, strict=True)):
            cell = np.take(cell, np.arange(begin, end) % TORUS[axis], axis=axis)
        box = Block((0, *block.begin), (self.job.network.channels, *block.end))
        write_box(self.job.boundaries, box, np.broadcast_to(cell, box.shape))
        return {}


def processes() -> list[psutil.Process]:
    """Return this process and all that it has started, workers among them."""
    return [psutil.Process(), *psutil.Process().children(recursive=True)]


def of_all(measure: Callable[[psutil.Process], float]) -> float:
    """Sum a measure over all processes that are still there."""
    total = 0.0
    for process in processes():
        with contextlib.suppress(psutil.NoSuchProcess):
            total += measure(process)
    return total


def cpu_seconds() -> float:
    """Return the CPU time that all processes have taken, seconds."""
    return of_all(lambda process: sum(process.cpu_times()[:2]))


class Memory:
    """Samples the resident memory of this process and its children."""

    def __init__(self) -> None:
        self.peak = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def _sample(self) -> None:
        while not self._stop.wait(0.25):
            self.peak = max(self.peak, of_all(lambda process: process.memory_info().rss))

    def __enter__(self) -> Memory:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()


class Stopwatch:
    """Times calls by name, in seconds of the clock and of CPU, of all processes and of this one."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self._gigavoxels = float(np.prod(shape)) / 1e9
        self.clock: dict[str, float] = {}
        self.cpu: dict[str, float] = {}
        self.client: dict[str, float] = {}
        self.peak = 0.0

    def __call__(self, name: str, call: Callable[[], Any]) -> Any:  # noqa: ANN401
        """Call, and return what the call returns."""
        clock, cpu, client = time.perf_counter(), cpu_seconds(), time.process_time()
        with Memory() as memory:
            outcome = call()
        self.client[name] = time.process_time() - client
        self.cpu[name] = cpu_seconds() - cpu
        self.clock[name] = time.perf_counter() - clock
        self.peak = max(self.peak, memory.peak)
        print(f"{name}: {self.clock[name]:.1f} s, peak {memory.peak / 1e9:.2f} GB", file=sys.stderr, flush=True)
        return outcome

    def report(self) -> dict[str, Any]:
        """Return the times in seconds a gigavoxel, the sum of the four stages, and the peak of the memory."""
        stages = ("watershed", "graph", "solve", "write")
        times = {"seconds a GVox": self.clock, "CPU seconds a GVox": self.cpu}
        return {
            what: {
                **{name: round(seconds / self._gigavoxels, 1) for name, seconds in by_name.items()},
                "watershed + graph + solve + write": round(sum(by_name[s] for s in stages) / self._gigavoxels, 1),
            }
            for what, by_name in times.items()
        } | {"peak GB, all processes": round(self.peak / 1e9, 2)}

    def client_report(self) -> dict[str, float]:
        """Return the CPU time of this process by stage, seconds a gigavoxel."""
        return {name: round(seconds / self._gigavoxels, 2) for name, seconds in self.client.items()}


def ours(folder: str, shape: tuple[int, ...], dimension: str, workers: int, settings: list[str]) -> dict[str, Any]:
    """Run all stages from the boundaries on; return times and memory."""
    raw = f"{folder}/raw.zarr"
    array = zarr.create_array(raw, shape=shape, dtype="uint8", chunks=(32, 512, 512), zarr_format=2, fill_value=128)
    array.attrs["resolution"] = [40.0, 4.0, 4.0] if dimension == "2d" else [8.0, 8.0, 8.0]
    array[:16, :256, :256] = np.random.default_rng(0).integers(1, 255, (16, 256, 256))
    config = load_config(SegmentConfig, None, [f"run.workers={workers}", *settings])
    job = prepare(raw, f"{folder}/out.zarr", config)
    np.save(f"{folder}/texture.npy", texture())
    timed = Stopwatch(shape)
    with open_cluster("local", workers) as pool:
        claim_output(job, new_manifest(job, "benchmark"))
        execution = Execution(pool, silent())
        make = Boundaries(job, f"{folder}/texture.npy")
        timed("boundaries", lambda: replace(predict_stage(job), task=make, held=0).run(execution))
        timed("watershed", lambda: fragments_stage(job).run(execution))
        timed("graph", lambda: graph_stage(job).run(execution))
        solving = [stage for stage in stages_of(job) if stage.kind in ("costs", "solve", "contacts", "sizes")]
        result = timed("solve", lambda: run_stages(solving, execution))
        timed("write", lambda: write_stage(job).run(execution))
        timed("label pyramid", lambda: run_stages(pyramid_stages(job, labels=True), execution))
    return {
        "voxels": int(np.prod(shape)),
        "workers": workers,
        "dimension": dimension,
        **timed.report(),
        "client's own CPU seconds a GVox": timed.client_report(),
        "last solve, s": solve_stage(job).ledger.only()["seconds"],
        "load": os.getloadavg()[0],
        "fragments": result["fragments"],
        "segments": result["segments"],
        "levels": result["levels"],
    }


def boundaries_of(shape: tuple[int, ...]) -> np.ndarray:
    """Return the boundaries of the whole volume in memory, float32 in [0, 1]."""
    index = [np.arange(s) % t for s, t in zip(shape, TORUS, strict=True)]
    return texture()[np.ix_(*index)].astype(np.float32) / 255


def elf(shape: tuple[int, ...], dimension: str, threads: int) -> dict[str, Any]:
    """Run elf's functions on the same boundaries, in memory."""
    import elf.segmentation.features as features
    import elf.segmentation.multicut as multicut
    import elf.segmentation.watershed as watershed

    boundaries = boundaries_of(shape)
    timed = Stopwatch(shape)

    if dimension == "2d":
        fragments, _ = timed(
            "watershed",
            lambda: watershed.stacked_watershed(boundaries, threshold=0.4, sigma_seeds=2.0, n_threads=threads),
        )
    else:
        fragments, _ = timed(
            "watershed",
            lambda: watershed.distance_transform_watershed(boundaries, threshold=0.4, sigma_seeds=2.0),
        )

    def graph() -> tuple[Any, Any]:
        rag = features.compute_rag(fragments, n_threads=threads)
        return rag, features.compute_boundary_mean_and_length(rag, fragments, boundaries, n_threads=threads)

    rag, feats = timed("graph", graph)

    def partition() -> np.ndarray:
        costs = multicut.transform_probabilities_to_costs(feats[:, 0], edge_sizes=feats[:, 1], beta=0.5)
        return multicut.multicut_kernighan_lin(rag, costs)

    labels = timed("solve", partition)
    timed("write", lambda: features.project_node_labels_to_pixels(rag, fragments, labels, n_threads=threads))
    return timed.report()


def bioimage_py(shape: tuple[int, ...], dimension: str, threads: int) -> dict[str, Any]:
    """Run bioimage-py's functions on the same boundaries, in memory, in blocks of the size of our watershed tiles."""
    import bioimage_cpp as bic
    from bioimage_py import filters, morphology, segmentation

    boundaries = boundaries_of(shape)
    timed = Stopwatch(shape)
    block, halo = ((1, 512, 512), (0, 64, 64)) if dimension == "2d" else ((32, 512, 512), (8, 32, 32))
    # a filter takes no width of 0
    sigma = (1e-3, 2.0, 2.0) if dimension == "2d" else (2.0, 2.0, 2.0)
    blocks: dict[str, Any] = {"block_shape": tuple(map(min, block, shape)), "num_workers": threads}

    def watershed() -> np.ndarray:
        depths = morphology.distance_transform(boundaries < 0.4, halo, **blocks)
        depths = filters.gaussian_smoothing(depths, sigma, **blocks)
        # across slices this sees maxima of the volume, where slices by themselves have more
        maxima = morphology.find_local_maxima(depths, threshold_abs=1e-3, **blocks)
        seeds = np.zeros(shape, np.uint32)
        seeds[tuple(maxima.T)] = np.arange(1, len(maxima) + 1)
        return np.asarray(segmentation.watershed(boundaries, seeds, halo=halo, **blocks))

    fragments = timed("watershed", watershed)

    def graph() -> tuple[Any, np.ndarray, np.ndarray]:
        rag = bic.graph.region_adjacency_graph(fragments, number_of_threads=threads)
        found = bic.graph.features.edge_map_features(rag, fragments, boundaries, number_of_threads=threads)
        return rag, found[:, 0], found[:, 1]

    rag, mean, size = timed("graph", graph)

    def partition() -> np.ndarray:
        costs = segmentation.compute_edge_costs(mean, size, beta=0.5, weighting_scheme="all")
        return segmentation.multicut_kernighan_lin(rag, costs)

    labels = timed("solve", partition)
    lookup = dict(enumerate(labels.tolist()))
    timed("write", lambda: segmentation.relabel(fragments, lookup, np.empty_like(fragments), **blocks))
    return timed.report()


OTHERS = {"elf": elf, "bioimage_py": bioimage_py}
"""By the name of the package that is needed."""


def main() -> None:
    """Run, print one JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", type=int, nargs=3, default=(128, 1024, 1024))
    parser.add_argument("--dimension", choices=("2d", "3d"), default="3d", help="fragments of slices or of the volume")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE")
    parser.add_argument("--others", action="store_true", help="also run elf's and bioimage-py's functions, in memory")
    parser.add_argument("--json", help="also write the result here")
    args = parser.parse_args()
    folder = tempfile.mkdtemp(prefix="agglomeration-")
    try:
        result = {"vimvol": ours(folder, tuple(args.shape), args.dimension, args.workers, args.set)}
    finally:
        shutil.rmtree(folder)
    for package, run in OTHERS.items() if args.others else ():
        try:
            importlib.import_module(package)
        except ImportError as error:
            result[package] = {"absent": str(error)}
        else:
            result[package] = run(tuple(args.shape), args.dimension, args.workers)
    print(json.dumps(result, indent=2))
    if args.json:
        Path(args.json).write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
