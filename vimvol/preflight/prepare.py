"""From input, settings and network to a job: everything about a run is decided before anything is written."""

from __future__ import annotations

from vimvol.address import absolute, check_there, parse_address, without_format
from vimvol.config import SegmentConfig
from vimvol.engine.plan import default_shard
from vimvol.errors import InputError
from vimvol.geometry import Block, Grid
from vimvol.infer.device import named_device
from vimvol.infer.standardization import Standardization
from vimvol.io import Volume, open_volume, pyramid, storage_shapes
from vimvol.io.errors import as_given
from vimvol.io.mask import Mask, open_mask
from vimvol.models.checkpoint import find_weights
from vimvol.outputs.ahead import keep_apart
from vimvol.outputs.manifest import check_intensities
from vimvol.outputs.moved import known_input
from vimvol.outputs.replaced import as_recorded
from vimvol.preflight.announce import Tell, input_text, mask_text, nobody
from vimvol.preflight.boundaries import Boundaries, find_boundaries
from vimvol.preflight.disk import check_writable
from vimvol.preflight.fragments import resolve_cells, resolve_fragments
from vimvol.preflight.planes import far_text, planes_of
from vimvol.preflight.polarity import bright_text
from vimvol.preflight.scale import check_voxel_size, check_voxel_size_known, odd_text
from vimvol.preflight.survey import survey
from vimvol.preflight.unused import settings_given, unused_texts
from vimvol.segment.multicut import check_solver
from vimvol.stages.job import Job, are_instances
from vimvol.stages.learned import find_learned
from vimvol.stages.predict import predict_stage
from vimvol.stages.region import check_region, region_of
from vimvol.stages.sizes import check_sizes


@as_given()
def prepare(
    source: str, out: str, config: SegmentConfig, *, writing: bool = False, moved: bool = False, tell: Tell = nobody
) -> Job:
    """Decide everything about a segmentation before anything is written.

    Parameters
    ----------
    source, out, config
        As `vimvol.segment_volume` takes them.
    writing
        Whether the output is to be written; whether it can be is then found out before the input is opened.
    moved
        As `vimvol.segment_volume` takes it.
    tell
        Told what is being done.

    Raises
    ------
    InputError
        If input, network and configuration do not fit each other, or the output cannot be written, in one line each.
    """
    out, given = absolute(out), settings_given(config)
    if writing:
        keep_apart(out, without_format(absolute(parse_address(source)[0])))
        check_writable(out)
    _check_without_input(config)
    volume = open_volume(source, axes=config.input.axes, voxel_size=config.input.voxel_size)
    keep_apart(out, volume.url)
    check_intensities(volume)
    volume = known_input(volume, out, moved=moved)
    tell(input_text(source, volume))
    if volume.channels > 1:
        others = f"its axes are not {volume.axes}, name them with --set input.axes"
        if volume.axes == "cyx":
            others = "these are sections, give --set input.axes=zyx"
        raise InputError(
            f"{volume.address} has {volume.channels} channels, and EM has 1, so it is unclear what to segment; "
            f"store the wanted channel by itself, or, where {others}"
        )
    check_voxel_size(volume, config)
    if odd := odd_text(volume, config):
        tell(odd)
    tell(f"boundaries: {config.predict.boundaries or f'network {config.predict.model}'}")
    config, found = find_boundaries(config, volume)
    # a network that makes cells of slices is told first, as it wants another mode, which needs no voxel size
    check_voxel_size_known(volume, config)
    if found.network.given is not None:
        keep_apart(out, found.network.given.url)
    wanted = config.output.shard or default_shard(volume.shape, config.output.chunk, found.tile)
    chunk, shard = storage_shapes(volume.shape, config.output.chunk, wanted)
    roi, mask = region_of(config, volume), None
    if config.input.mask is not None:
        mask = open_mask(config.input.mask, volume)
        tell(mask_text(mask, volume))
        # The mask is found again from another working directory.
        absolutely = config.input.model_copy(update={"mask": mask.volume.address})
        config = config.model_copy(update={"input": absolutely})
    cells = found.network.cells
    if cells is None:
        fragments = resolve_fragments(config.fragments, config.segment.mode, volume.voxel_size, shard)
    else:
        fragments = resolve_cells(config.fragments, volume.shape)
    stitched = are_instances(config, cells, fragments)
    learned = find_learned(config, fragments, stitched=stitched)
    check_sizes(config, stitched=stitched)
    if learned is not None:
        # found again from another working directory
        costs = config.agglomerate.model_copy(update={"costs": learned.path})
        config = config.model_copy(update={"agglomerate": costs})
    job = Job(
        source=volume,
        out=out,
        config=config,
        network=found.network,
        standardization=_standardization(config, volume, found, roi, mask),
        planes=planes_of(config, volume, found),
        fragments_config=fragments,
        fragment_tiles=Grid(volume.shape, fragments.tile or volume.shape),
        chunk=chunk,
        shard=shard,
        levels=tuple(pyramid(volume.shape, volume.voxel_size, config.output.levels)),
        roi=roi,
        mask=mask,
        learned=learned,
    )
    predict_stage(job)  # refuses blocks that share shards
    if found.network.given is None and "predict.invert" not in given and (text := bright_text(volume, roi, mask)):
        tell(text)
    if not odd and (text := far_text(config, volume, found.voxel_sizes)):
        tell(text)
    for text in unused_texts(job, given, sizes_known=bool(found.voxel_sizes)):
        tell(text)
    return as_recorded(job)


def _check_without_input(config: SegmentConfig) -> None:
    """Refuse what needs no look at the input, which may be slow to open."""
    check_region(config)
    for address in filter(None, (config.input.mask, config.predict.boundaries)):
        check_there(address)
    if config.predict.boundaries is None:
        find_weights(config.predict.model)
    check_solver(config.agglomerate.solver)
    if config.predict.device != "auto":
        named_device(config.predict.device)


def _standardization(
    config: SegmentConfig, volume: Volume, found: Boundaries, roi: Block | None, mask: Mask | None
) -> Standardization:
    """Return what makes the input of the network of intensities."""
    fixed = found.standardization
    made = fixed or survey(volume, config.predict.normalize, roi, mask, config.input.missing)
    if not config.predict.invert or found.network.given is not None:
        return made
    return made.inverted(span=0.0 if fixed is None else 1.0)
