"""How the fragments of a run are made, where settings leave it open."""

from __future__ import annotations

from collections.abc import Sequence

from vimvol.config import FragmentsConfig

LARGEST_TILE = {"2d": (1, 512, 512), "3d": (32, 512, 512)}
HALOS = {"2d": (0, 64, 64), "3d": (8, 32, 32)}
CELLS_HALO = (0, 128, 128)
WHOLE_SLICE = 1024
"""Voxels along y and x up to which the cells of a slice are made at once."""
ANISOTROPIC = 2.0
"""Ratio of the voxel size along z to that along x above which fragments are made slice by slice."""


def resolve_fragments(
    config: FragmentsConfig, mode: str, voxel_size: Sequence[float], shard: Sequence[int]
) -> FragmentsConfig:
    """Return the configuration with every ``auto`` and unset field decided for a volume.

    Parameters
    ----------
    config
        As the user wrote it; what is decided there stays, except that 2d mode always takes slices by themselves.
    mode
        ``2d``: the instances of every slice; ``3d``: whole neurons.
    voxel_size
        nm along (z, y, x).
    shard
        Voxels (z, y, x) of a shard; a default tile is no larger, since a block computes every tile that it touches.
    """
    dimension = "2d" if mode == "2d" else config.dimension
    if dimension == "auto":
        dimension = "2d" if voxel_size[0] > ANISOTROPIC * voxel_size[2] else "3d"
    fitting = tuple(min(t, s) for t, s in zip(LARGEST_TILE[dimension], shard, strict=True))
    tile, halo = config.tile or fitting, config.halo or HALOS[dimension]
    return config.model_copy(update={"dimension": dimension, "tile": tile, "halo": halo})


def resolve_cells(config: FragmentsConfig, shape: Sequence[int]) -> FragmentsConfig:
    """Return the configuration with tile and halo decided for cells, which are always made slice by slice.

    Parameters
    ----------
    config
        As the user wrote it.
    shape
        Voxels (z, y, x) of the volume.
    """
    tile = config.tile or (1, *(s if s <= WHOLE_SLICE else LARGEST_TILE["2d"][1] for s in shape[1:]))
    return config.model_copy(update={"dimension": "2d", "tile": tile, "halo": config.halo or CELLS_HALO})
