"""What `vimvol segment` can be told: one frozen section a stage."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from vimvol.config.base import (
    Axes,
    Fraction,
    Halo2,
    Halo3,
    Missing,
    NonNegative,
    Point3,
    Positive,
    Section,
    Shape2,
    Shape3,
    Size3,
)


class InputConfig(Section):
    """How to read the input where its metadata do not say."""

    axes: Axes | None = Field(default=None, description="axis names of the stored array, slowest first, e.g. 'zyx'")
    voxel_size: Size3 | None = Field(default=None, description="nm along z, y, x", examples=[[50, 4.6, 4.6]])
    missing: Missing = Field(
        default=0,
        description="intensity of lost sections and padding; squares of 15 x 15 such voxels become background",
    )
    roi: tuple[Point3, Shape3] | None = Field(
        default=None,
        description="region of interest: first voxel and voxel after the last, (z, y, x); the output keeps the "
        "geometry of the input and is 0 outside",
        examples=[[[0, 0, 0], [64, 512, 512]]],
    )
    mask: str | None = Field(
        default=None,
        description="PATH[:DATASET] of a volume of the same extent at any scale that is not 0 where voxels are wanted",
    )


class PredictConfig(Section):
    """Boundary prediction, slice by slice."""

    model: str = Field(
        default="vimunet-nano", description="a name that `vimvol models` lists, or the path of a checkpoint"
    )
    tile: Shape2 = Field(default=(512, 512), description="voxels (y, x) that one forward pass contributes to a slice")
    halo: Halo2 = Field(default=(32, 32), description="voxels (y, x) of context on every side of a tile")
    axes: Literal["z", "zyx"] = Field(
        default="z",
        description="z: slices as they are stored; zyx: slices across each axis, and the mean of the three, for voxels "
        "about as deep as wide in 3d mode; takes three times as long",
    )
    augment: Literal["none", "flips", "all"] = Field(
        default="none",
        description="flips: the mean over a slice and its 3 mirror images; all: over these and their transposes, 8; "
        "takes that many times as long",
    )
    batch: Positive = Field(default=1, description="tiles a forward pass; more on a GPU")
    precision: Literal["float32", "bfloat16"] = Field(
        default="float32", description="bfloat16: mixed precision, faster on devices that have it"
    )
    device: str = Field(default="auto", description="auto, cpu, cuda, cuda:N or mps")
    normalize: Literal["volume", "slice"] = Field(
        default="volume", description="whose mean and standard deviation standardise the intensities"
    )
    invert: bool = Field(
        default=False,
        description="show intensities to the network inverted, where membranes are bright and it knows dark ones",
    )
    rescale: Literal["auto", "none"] = Field(
        default="auto",
        description="auto: slices are resampled for the network where the size of their voxels is not one that it was "
        "trained on, as its card tells; none: they are shown as they are stored",
    )
    boundaries: str | None = Field(
        default=None,
        description="PATH[:DATASET] of probabilities that are there already, in place of a network's: (c, z, y, x) of "
        "the extent of the input; 0 to 1, or the range of uint8 or uint16",
    )
    classes: tuple[str, ...] = Field(default=("boundary",), description="what each channel of these is")


class SegmentSection(Section):
    """What is segmented."""

    mode: Literal["2d", "3d"] = Field(
        default="3d", description="3d: whole neurons; 2d: the instances of every slice by itself"
    )
    min_size: NonNegative = Field(
        default=25, description="voxels below which a segment becomes background, 0; after agglomerate.join_below"
    )


class FragmentsConfig(Section):
    """Watershed fragments (supervoxels) from boundaries."""

    dimension: Literal["auto", "2d", "3d"] = Field(
        default="auto",
        description="watershed by slice or by volume; auto: 3d where z is sampled at most twice as coarsely as x",
    )
    seeds: Literal["distance", "components"] = Field(
        default="distance",
        description="distance: maxima of the distance to boundaries, joined by multicut; components: connected voxels "
        "below the threshold, in 2d mode the instances of the paper",
    )
    threshold: Fraction = Field(default=0.4, description="boundary probability above which a voxel counts as boundary")
    sigma_seeds: float = Field(
        default=2.0, ge=0, description="Gaussian on the distances before their maxima are taken, voxels"
    )
    sigma_weights: float = Field(
        default=0.7, ge=0, description="Gaussian on the boundaries for the watershed heights, voxels"
    )
    alpha: Fraction = Field(
        default=0.9, description="weight of the boundaries against the distances in the watershed heights"
    )
    min_size: NonNegative = Field(
        default=25, description="voxels below which a fragment is given to its neighbours; not for components"
    )
    tile: Shape3 | None = Field(
        default=None,
        description="voxels (z, y, x) of one watershed; none: (1, 512, 512) or (32, 512, 512), within a shard; of "
        "cells, a slice of up to 1024 x 1024 at once",
        examples=[[32, 512, 512]],
    )
    halo: Halo3 | None = Field(
        default=None,
        description="voxels (z, y, x) of context on every side of it; none: (0, 64, 64) or (8, 32, 32), of cells "
        "(0, 128, 128)",
        examples=[[8, 32, 32]],
    )


class CellsConfig(Section):
    """Cells on a background, by networks that predict foreground; in 2d mode, in place of fragments and multicut."""

    foreground: Fraction = Field(
        default=0.5, description="foreground probability above which a voxel is part of a cell"
    )
    seed: Fraction = Field(
        default=0.5, description="foreground less boundary probability above which a voxel is part of a seed"
    )
    center: Fraction = Field(
        default=0.5, description="distance to the centre below which a voxel may be part of a seed"
    )
    boundary: Fraction = Field(
        default=0.5, description="inverted distance to the boundary below which it is one, if so"
    )
    smoothing: float = Field(default=1.6, ge=0, description="Gaussian on the distances, voxels")


class AgglomerateConfig(Section):
    """From fragments to segments by multicut."""

    solver: Literal[
        "kernighan-lin", "greedy", "fusion-moves", "nifty", "lifted", "mutex-watershed", "average", "components"
    ] = Field(
        default="kernighan-lin",
        description="what partitions the graph; the first five solve a multicut, of which nifty is to be installed",
    )
    costs: str = Field(
        default="boundary",
        description="boundary: from mean boundary probabilities; or a file that vimvol train-edges wrote",
    )
    beta: float = Field(
        default=0.25, gt=0, lt=1, description="prior probability of a cut; higher splits more, lower merges"
    )
    beta_across: float = Field(
        default=0.4,
        gt=0,
        lt=1,
        description="the same across sections, of boundary means where fragments are of single slices",
    )
    beta_profiles: float = Field(
        default=0.5,
        gt=0,
        le=1,
        description="the same of fragments of a slice that become one profile before overlaps across sections are "
        "measured; 1 joins none",
    )
    beta_learned: float = Field(
        default=0.5, gt=0, lt=1, description="the same of learned costs; 0.5 takes their probabilities as they are"
    )
    size_weighting: bool = Field(
        default=True,
        description="scale an edge's cost by its number of voxel pairs, or across sections by the root of it",
    )
    memory: Positive = Field(
        default=2**31,
        description="bytes that the last solve may take; 450 an edge that the levels have left, 700 of lifted",
    )
    levels: Annotated[int, Field(ge=0, le=16)] | None = Field(
        default=None,
        description="times that the graph is reduced out of core, fewer where a cell spans the volume before; "
        "none: until a million edges are left",
    )
    cell: Shape3 | None = Field(
        default=None,
        description="voxels (z, y, x) of a subproblem of the lowest level, in whole watershed tiles; none: "
        "(64, 1024, 1024); its sides are doubled while subproblems hold fewer than 10,000 edges on the mean",
        examples=[[64, 1024, 1024]],
    )
    margin: Positive = Field(
        default=2, description="fragments around a subproblem that it takes into account, in edges"
    )
    join_below: NonNegative = Field(
        default=0,
        description="voxels below which a segment joins the neighbour behind the lowest mean boundary; one without any "
        "stays, see segment.min_size",
    )
    fill_below: NonNegative = Field(
        default=0,
        description="voxels below which a segment that touches one other and nothing else becomes part of it: a hole",
    )


class OutputConfig(Section):
    """How the result is stored."""

    chunk: Shape3 = Field(default=(16, 128, 128), description="voxels (z, y, x) that are compressed together")
    shard: Shape3 | None = Field(
        default=None,
        description="voxels (z, y, x) of one file or object, a multiple of the chunk; none: (32, 512, 512), less where "
        "a volume is so small that workers would idle",
        examples=[[32, 512, 512]],
    )
    levels: Annotated[int, Field(ge=1, le=16)] | None = Field(
        default=None, description="levels of the pyramid; none: until a level is at most 256 voxels wide"
    )


class RunConfig(Section):
    """How the work is scheduled; none of it changes the result."""

    workers: NonNegative | None = Field(
        default=None, description="worker processes of this machine; none: one a core; 0: this process"
    )
    block: Shape3 | None = Field(
        default=None,
        description="voxels (z, y, x) of one task; a multiple of the shard; none: the shard",
        examples=[[64, 1024, 1024]],
    )
    window: Positive | None = Field(default=None, description="tasks in flight; none: 4 a worker")
    retries: NonNegative = Field(default=2, description="times that a block is tried again")
    deadline: float | None = Field(
        default=None,
        gt=0,
        description="seconds after which a block has hung; none: 5 times the slowest so far, 60 at least, and an hour "
        "or more before five have ended",
    )


class SegmentConfig(Section):
    """Everything that `vimvol segment` can be told."""

    input: InputConfig = InputConfig()
    predict: PredictConfig = PredictConfig()
    segment: SegmentSection = SegmentSection()
    fragments: FragmentsConfig = FragmentsConfig()
    cells: CellsConfig = CellsConfig()
    agglomerate: AgglomerateConfig = AgglomerateConfig()
    output: OutputConfig = OutputConfig()
    run: RunConfig = RunConfig()
