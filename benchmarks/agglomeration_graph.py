"""A large synthetic graph solved out of core under a hard memory limit, beside one global solve.

    python benchmarks/agglomeration_graph.py --edges 1e7 --limit 2e9 --levels 1 --whole

The graph is that of a lattice of fragments with 7 neighbours each towards the origin, joined by noisy evidence that
they belong to one neurite. It is made, and solved as a whole, in other processes than the one that is limited. As a
whole it is solved by bioimage-cpp's Kernighan-Lin, too, from the same start, in as many rounds and in 10, or in those
of --rounds; 100, its default, take minutes.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import shutil
import tempfile
import time
from pathlib import Path

import bioimage_cpp as bic
import numpy as np
from scipy.spatial import cKDTree

from vimvol.engine.cluster import open_cluster
from vimvol.engine.ledger import block_name
from vimvol.engine.plan import plan_stage
from vimvol.engine.run import Execution
from vimvol.geometry import Block, Grid
from vimvol.io.arrays import create_array, write_box
from vimvol.io.objects import open_objects
from vimvol.io.tables import read_table, write_table
from vimvol.report.progress import silent
from vimvol.segment.multicut.division import UNIT, CostTable, merge_costs, solve_table
from vimvol.segment.multicut.solvers import ROUNDS, energy
from vimvol.stages.hierarchy import Hierarchy
from vimvol.stages.levels import LevelReport, climb
from vimvol.stages.solve import LEAST_EDGES

STEPS = ((0, 0, 1), (0, 1, 0), (1, 0, 0), (0, 1, 1), (1, 0, 1), (1, 1, 0), (0, 1, -1))
NOISE = 2.4


def peak() -> float:
    """Peak resident memory of this process, bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0


def spent() -> float:
    """Processor time of this process and of its workers that have ended, seconds."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def make(folder: str, side: int, tiles: int, seed: int = 0) -> None:
    """Store a graph of side^3 fragments in tiles^3 tiles; a table of costs a tile."""
    rng = np.random.default_rng(seed)
    grid = Grid((tiles,) * 3, (1, 1, 1))
    per = side // tiles
    place = np.stack(np.meshgrid(*(np.arange(side),) * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    tile = np.ravel_multi_index((place // per).T, grid.counts)
    ids = np.empty(len(place), np.uint64)
    ids[np.argsort(tile, kind="stable")] = np.arange(1, len(place) + 1)
    offsets = (np.arange(len(grid) + 1) * per**3).astype(np.uint64)
    create_array(f"{folder}/offsets", offsets.shape, "uint64", chunk=(1 << 16,))
    write_box(f"{folder}/offsets", Block((0,), offsets.shape), offsets)

    neurites = int((len(place) / 12) ** (2 / 3))
    direction = rng.normal(0, 1, (neurites, 1, 3))
    direction /= np.linalg.norm(direction, axis=2, keepdims=True)
    course = rng.random((neurites, 1, 3)) + direction * np.linspace(-0.6, 0.6, 60)[None, :, None]
    course = course + np.cumsum(rng.normal(0, 0.006, (neurites, 60, 3)), axis=1)
    truth = cKDTree(course.reshape(-1, 3)).query((place + rng.random(place.shape)) / side)[1] // 60

    flat = np.arange(len(place)).reshape((side,) * 3)
    tables = []
    for step in STEPS:
        lower = flat[tuple(slice(max(0, -s), side - max(0, s)) for s in step)].ravel()
        upper = flat[tuple(slice(max(0, s), side + min(0, s)) for s in step)].ravel()
        # as of fragments in tiles, there are no edges across the edge or corner of a tile
        near = np.abs(place[lower] // per - place[upper] // per).sum(axis=1) <= 1
        lower, upper = lower[near], upper[near]
        mean = np.where(truth[lower] == truth[upper], 2.0, -2.0)
        size = rng.gamma(1.2, 20, len(lower)).astype(int) + 1
        costs = (mean + rng.normal(0, NOISE, len(lower))) * size
        tables.append(CostTable.from_costs(np.stack([ids[lower], ids[upper]], axis=1), costs))
    edges = merge_costs(tables)
    home = (edges.u - np.uint64(1)) // np.uint64(per**3)
    for index in grid:
        first, last = np.searchsorted(home, [grid.flat(index), grid.flat(index) + 1])
        own = CostTable(edges.u[first:last], edges.v[first:last], edges.cost[first:last])
        write_table(f"{folder}/costs", block_name(grid.block(index)), own.columns())


def hierarchy_in(folder: str, tiles: int, cell: int, margin: int) -> Hierarchy:
    """Return the graph in a folder, cells of ``cell`` tiles a side."""
    plan = plan_stage("graph", (tiles,) * 3, (1, 1, 1))
    url = f"{folder}/offsets"
    return Hierarchy(
        f"{folder}/levels", f"{folder}/costs", plan, plan.blocks, url, (cell,) * 3, margin, "kernighan-lin", LEAST_EDGES
    )


def whole(folder: str, tiles: int, rounds_of_library: list[int], out: str) -> None:
    """Solve the graph as a whole."""
    grid = plan_stage("graph", (tiles,) * 3, (1, 1, 1)).blocks
    names = [block_name(grid.block(index)) for index in grid]
    edges = merge_costs(CostTable.from_columns(read_table(f"{folder}/costs", name)) for name in names)
    found = {}
    for solver in ("greedy", "kernighan-lin"):
        start, cpu = time.perf_counter(), spent()
        height = solve_table(edges, solver)[1]
        seconds, cpu = time.perf_counter() - start, spent() - cpu
        found[solver] = {"energy": height, "seconds": seconds, "CPU seconds": cpu, "peak": peak()}
    nodes, flat = np.unique(np.stack([edges.u, edges.v], axis=1), return_inverse=True)
    uv, costs = flat.reshape(-1, 2).astype(np.uint64), edges.cost * UNIT
    multicut = bic.graph.multicut
    graph = bic.graph.UndirectedGraph.from_unique_edges(len(nodes), uv)
    for rounds in rounds_of_library:
        start, cpu = time.perf_counter(), spent()
        labels = multicut.GreedyAdditiveMulticut().optimize(multicut.MulticutObjective(graph, costs))
        objective = multicut.MulticutObjective(graph, costs, initial_labels=labels)
        labels = multicut.KernighanLinMulticut(number_of_outer_iterations=rounds).optimize(objective)
        height, seconds, cpu = energy(uv, costs, labels), time.perf_counter() - start, spent() - cpu
        found[f"bioimage-cpp, {rounds} rounds"] = {
            "energy": height,
            "seconds": seconds,
            "CPU seconds": cpu,
            "peak": peak(),
        }
    Path(out).write_text(json.dumps({"edges": len(edges), **found}))


def divided(folder: str, tiles: int, cell: int, margin: int, levels: int, limit: float, workers: int, out: str) -> None:
    """Solve the graph level by level, in this one process or by workers; none may take more than ``limit`` bytes."""
    if limit:
        resource.setrlimit(resource.RLIMIT_DATA, (int(limit), int(limit)))
    hierarchy = hierarchy_in(folder, tiles, cell, margin)
    costs = [read_table(hierarchy.source, block_name(block))["cost"] for block in hierarchy.blocks]
    graph = LevelReport(0, sum(map(len, costs)), sum(int(cost.sum()) for cost in costs) * UNIT)
    before, cpu = peak(), spent()
    with open_cluster("local", workers) as pool:
        start = time.perf_counter()
        ledger = open_objects(f"{folder}/ledger")
        lowest = hierarchy.lowest(graph.edges, hierarchy.filled([Block.whole(hierarchy.tiles.shape)]))
        reports = climb(hierarchy, graph, lowest, "benchmark", ledger, 0, levels, Execution(pool, silent()))
        climbed = time.perf_counter() - start
    start = time.perf_counter()
    _, height = solve_table(merge_costs(hierarchy.own_edges(reports[-1].level)), "kernighan-lin")
    result = {
        "edges": [report.edges for report in reports],
        "energy": height,
        "seconds": climbed + time.perf_counter() - start,
        "CPU seconds": spent() - cpu,
        "last solve": time.perf_counter() - start,
        "peak": peak(),
        "imports": before,
    }
    Path(out).write_text(json.dumps(result))


def in_process(function: object, *args: object) -> None:
    """Run a function in a fresh process, so that its memory is its own."""
    process = multiprocessing.get_context("spawn").Process(target=function, args=args)  # type: ignore[arg-type]
    process.start()
    process.join()
    if process.exitcode:
        raise SystemExit(f"{getattr(function, '__name__', function)} failed with exit code {process.exitcode}")


def main() -> None:
    """Make the graph, solve it, print one JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--edges", type=float, default=1e6)
    parser.add_argument("--tiles", type=int, default=8, help="tiles a side")
    parser.add_argument("--cell", type=int, nargs="+", default=[4], help="tiles a side of a cell, one run each")
    parser.add_argument("--levels", type=int, nargs="+", default=[1], help="levels, one for each of --cell")
    parser.add_argument("--margin", type=int, default=2)
    parser.add_argument("--limit", type=float, default=0, help="bytes of data that the process may allocate; 0: any")
    parser.add_argument("--workers", type=int, default=0, help="workers of the levels; 0: this process")
    parser.add_argument("--whole", action="store_true", help="also solve the graph as a whole")
    parser.add_argument("--rounds", type=int, nargs="+", default=[ROUNDS, 10], help="of bioimage-cpp's whole solve")
    parser.add_argument("--json", help="also write the result here")
    args = parser.parse_args()
    side = round((args.edges / 6.5) ** (1 / 3) / args.tiles) * args.tiles
    folder = tempfile.mkdtemp(prefix="agglomeration-")
    out = f"{folder}/result.json"
    results: dict[str, object] = {"nodes": side**3, "margin": args.margin, "limit": args.limit}
    try:
        in_process(make, folder, side, args.tiles)
        if args.whole:
            in_process(whole, folder, args.tiles, args.rounds, out)
            results["whole"] = json.loads(Path(out).read_text())
        for cell, levels in zip(args.cell, args.levels, strict=True):
            in_process(divided, folder, args.tiles, cell, args.margin, levels, args.limit, args.workers, out)
            result = json.loads(Path(out).read_text())
            if args.whole:
                best = results["whole"]["kernighan-lin"]["energy"]  # type: ignore[index]
                result["gap"] = (result["energy"] - best) / abs(best)
            results[f"{levels} levels, cells of {cell}"] = result
            shutil.rmtree(f"{folder}/levels")
            shutil.rmtree(f"{folder}/ledger")
    finally:
        shutil.rmtree(folder)
    print(json.dumps(results, indent=2))
    if args.json:
        Path(args.json).write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
