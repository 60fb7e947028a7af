"""Graphs like those of neurites, in tables as the stages before leave them."""

import numpy as np
from scipy.spatial import Delaunay, cKDTree

from vimvol.engine.ledger import block_name
from vimvol.engine.plan import plan_stage
from vimvol.geometry import Block, Grid
from vimvol.io.arrays import create_array, write_box
from vimvol.io.tables import write_table
from vimvol.segment.multicut.division import CostTable
from vimvol.stages.hierarchy import Hierarchy


def neurite_graph(nodes, tiles, seed=0, fragments_a_neurite=12):
    """Random fragments in tiles, neighbours by Delaunay, joined by noisy evidence that they are one neurite.

    Returns the tile (N, 3) of every fragment, edges (E, 2) by place among them, and costs (E,). As of real fragments,
    there are edges within a tile and across a face between two, and no others.
    """
    rng = np.random.default_rng(seed)
    largest = max(tiles)
    points = rng.random((nodes, 3)) * (np.array(tiles) / largest)
    neurites = max(2, int((nodes / fragments_a_neurite) ** (2 / 3)))
    direction = rng.normal(0, 1, (neurites, 1, 3))
    direction /= np.linalg.norm(direction, axis=2, keepdims=True)
    course = (
        rng.random((neurites, 1, 3)) * (np.array(tiles) / largest)
        + direction * np.linspace(-0.6, 0.6, 60)[None, :, None]
    )
    course = course + np.cumsum(rng.normal(0, 0.006, (neurites, 60, 3)), axis=1)
    truth = cKDTree(course.reshape(-1, 3)).query(points)[1] // 60
    corners = Delaunay(points).simplices
    edges = np.concatenate([corners[:, [a, b]] for a in range(4) for b in range(a + 1, 4)]).astype(np.int64)
    edges.sort(axis=1)
    key = np.unique(edges[:, 0] * nodes + edges[:, 1])
    uv = np.stack([key // nodes, key % nodes], axis=1)
    tile = np.minimum((points * largest).astype(int), np.array(tiles) - 1)
    uv = uv[np.abs(tile[uv[:, 0]] - tile[uv[:, 1]]).sum(axis=1) <= 1]
    same = truth[uv[:, 0]] == truth[uv[:, 1]]
    size = rng.gamma(1.2, 20, len(uv)).astype(int) + 1
    return tile, uv, (np.where(same, 2.0, -2.0) + rng.normal(0, 2.4, len(uv))) * size


def store_graph(folder, tile, uv, costs, tiles, cell, blocks=2, **settings):
    """Store a graph whose tiles are single voxels, numbered as fragments are; return its hierarchy and its edges."""
    grid = Grid(tiles, (1, 1, 1))
    tile = np.ravel_multi_index(tile.T, grid.counts)
    order = np.argsort(tile, kind="stable")
    ids = np.empty(len(tile), np.uint64)
    ids[order] = np.arange(1, len(tile) + 1)
    offsets = np.concatenate([[0], np.cumsum(np.bincount(tile, minlength=len(grid)))]).astype(np.uint64)
    url = f"{folder}/offsets"
    create_array(url, offsets.shape, "uint64", chunk=(1 << 16,))
    write_box(url, Block((0,), offsets.shape), offsets)
    edges = CostTable.from_costs(ids[uv], costs)
    plan = plan_stage("graph", grid.shape, (1, 1, 1), (blocks,) * 3)
    home = np.searchsorted(offsets, edges.u - np.uint64(1), side="right") - 1
    home = np.stack(np.unravel_index(home, grid.counts)) // blocks
    for index in plan.blocks:
        own = edges.where((home == np.array(index)[:, None]).all(axis=0))
        write_table(f"{folder}/costs", block_name(plan.blocks.block(index)), own.columns())
    defaults = {"margin": 2, "solver": "kernighan-lin"} | settings
    return Hierarchy(f"{folder}/levels", f"{folder}/costs", plan, grid, url, (cell,) * 3, **defaults), edges
