"""A segmentation job with everything decided: input, network, tiles, storage, and the key of every stage.

The job is a small frozen value. It is pickled to the workers, which open the data by themselves.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from vimvol.config import FragmentsConfig, SegmentConfig
from vimvol.geometry import Block, Grid, Index
from vimvol.infer.planes import Plane
from vimvol.infer.standardization import Standardization
from vimvol.io import Level, Volume
from vimvol.io.mask import Mask
from vimvol.stages.keys import keys_after, stage_keys
from vimvol.stages.learned import Learned
from vimvol.stages.names import BESIDE, SEGMENTATION

Sections = tuple[int, int]
"""First section, and section after the last."""


@dataclass(frozen=True)
class Cells:
    """How cells are made of a prediction.

    Attributes
    ----------
    method
        Key of `vimvol.segment.cells.METHODS`.
    channels
        Indices of the channels that it takes.
    """

    method: str
    channels: tuple[int, ...]


def are_instances(config: SegmentConfig, cells: Cells | None, fragments: FragmentsConfig) -> bool:
    """Tell whether fragments are whole instances of slices but for the faces of tiles; see `Job.stitched`."""
    return config.segment.mode == "2d" and (cells is not None or fragments.seeds == "components")


@dataclass(frozen=True)
class Network:
    """What a job knows of its network, or of the array that holds its boundaries already.

    Attributes
    ----------
    checkpoint
        Name or path that loads it; of an array, its address.
    digest
        SHA-256 of the weights, or of what identifies the array.
    channels
        Output channels.
    boundary
        Index of the boundary channel.
    cells
        How cells are made, of a network that predicts foreground; none: boundaries are all that there is.
    given
        The array (c, z, y, x) that stands in place of a network; none: there is a network.
    """

    checkpoint: str
    digest: str
    channels: int
    boundary: int
    cells: Cells | None = None
    given: Volume | None = None


@dataclass(frozen=True)
class Job:
    """Everything that the blocks of all stages need to know.

    Attributes
    ----------
    source
        The input volume.
    out
        Path of the output OME-Zarr.
    config
        The configuration, as given.
    network
        The network.
    standardization
        From intensities to network input.
    planes
        Slices that are predicted, and their tiles: across z, or across z, y and x.
    fragments_config
        How fragments are made, nothing left open.
    fragment_tiles
        Tiles of the watershed, (z, y, x).
    chunk, shard
        Voxels (z, y, x) of the output's chunks and shards at full resolution.
    levels
        Levels of the pyramid, full resolution first.
    roi
        The region of interest; none: the volume. Nothing outside is computed, and all of it stays 0.
    mask
        Which voxels are wanted; none: all.
    learned
        The file that edges cost by; none: by the mean of their boundaries.
    name
        Name of the segmentation among the labels of the output.
    replaced
        Sections that were replaced since the first run, see `vimvol.outputs.replaced`.
    recorded
        Names and keys of the stages that serve every segmentation, of a job on what these have left, see
        `vimvol.outputs.stored`; empty: they follow from the input.
    """

    source: Volume
    out: str
    config: SegmentConfig
    network: Network
    standardization: Standardization
    planes: tuple[Plane, ...]
    fragments_config: FragmentsConfig
    fragment_tiles: Grid
    chunk: Index
    shard: Index
    levels: tuple[Level, ...]
    roi: Block | None = None
    mask: Mask | None = None
    learned: Learned | None = None
    name: str = SEGMENTATION
    replaced: tuple[Sections, ...] = ()
    recorded: tuple[tuple[str, str], ...] = ()

    @property
    def shape(self) -> Index:
        """Voxels (z, y, x) of the volume."""
        # across z, the axes of the slices are those of the volume
        return self.planes[0].tiling.grid.shape

    @property
    def flat(self) -> bool:
        """Whether the instances of every slice are wanted, not whole neurons."""
        return self.config.segment.mode == "2d"

    @property
    def stitched(self) -> bool:
        """Whether fragments are whole instances but for the faces of tiles, so that nothing is left to agglomerate."""
        return are_instances(self.config, self.network.cells, self.fragments_config)

    @property
    def sectioned(self) -> bool:
        """Whether fragments of single slices are joined to neurons across sections."""
        return not self.flat and self.fragments_config.dimension == "2d"

    @property
    def small_below(self) -> int:
        """Voxels below which a segment may become part of another; 0 where none does."""
        return max(self.config.agglomerate.join_below, self.config.agglomerate.fill_below)

    @property
    def boundaries(self) -> str:
        """Array of the boundaries, (c, z, y, x) uint8."""
        return f"{self.out}/0"

    @property
    def fragments(self) -> str:
        """Array of the fragments, (z, y, x) uint32, see `vimvol.stages.fragments`."""
        return f"{self.work}/fragments"

    @property
    def labels(self) -> str:
        """Group of the segmentation."""
        return f"{self.out}/labels/{self.name}"

    @property
    def work(self) -> str:
        """Group of everything that is neither image nor segmentation."""
        return f"{self.out}/vimvol"

    @property
    def results(self) -> str:
        """Group of what belongs to this one segmentation: costs, levels, lookup table; the rest serves several."""
        return self.work if self.name == SEGMENTATION else f"{self.work}/{BESIDE}/{self.name}"

    @cached_property
    def identity(self) -> str:
        """Of the input, see `Volume.identity`; looked at once."""
        return self.source.identity()

    @cached_property
    def keys(self) -> dict[str, str]:
        """Digest of all that determines the result of each stage, the stages before it included."""
        return keys_after(self, dict(self.recorded)) if self.recorded else self.keys_of(self.identity)

    def keys_of(self, identity: str) -> dict[str, str]:
        """Return what `keys` would be for an input of this identity, see `Volume.identity`."""
        return stage_keys(self, identity)
