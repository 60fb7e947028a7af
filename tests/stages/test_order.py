"""Of every stage alike: what is said of it is what a run does and leaves."""

from dataclasses import replace
from pathlib import Path

import pytest

from tests.support import small_config
from vimvol.engine.ledger import block_name
from vimvol.io.arrays import has_layout
from vimvol.io.tables import read_table
from vimvol.preflight.prepare import prepare
from vimvol.stages.job import Job
from vimvol.stages.names import BESIDE
from vimvol.stages.order import stages_of

OF_ONE = {"costs", "solve", "contacts", "sizes", "write", "label-pyramid"}


@pytest.fixture(scope="module")
def done(sample: Path, reference: Path) -> Job:
    return prepare(f"{sample}:raw", str(reference), small_config())


@pytest.mark.parametrize("join_below", [0, 5])
def test_every_stage_has_a_key_and_keys_are_in_the_order_of_stages(
    sample: Path, tmp_path: Path, join_below: int
) -> None:
    job = prepare(f"{sample}:raw", str(tmp_path / "out.zarr"), small_config(agglomerate__join_below=join_below))
    stages = stages_of(job)
    assert list(dict.fromkeys(stage.kind for stage in stages)) == list(job.keys)
    assert len({stage.name for stage in stages}) == len(stages)
    assert ("contacts" in job.keys) == bool(join_below)


def test_records_are_where_a_stage_says_and_of_all_its_blocks(done: Job) -> None:
    for stage in stages_of(done):
        found = stage.ledger.progress()
        assert found is not None, stage.name
        assert found.complete, stage.name
        assert not any(stage.ledger.missing(stage.plan.blocks)(block) for block in stage.plan), stage.name


def test_blocks_write_what_their_stage_says(done: Job) -> None:
    for stage in stages_of(done):
        if stage.array is not None:
            assert has_layout(*stage.array), stage.name
            shard = stage.array.shard[-3:]
            # two blocks never write one shard
            assert all(size % unit == 0 for size, unit in zip(stage.plan.blocks.cell, shard, strict=True))
            assert stage.ledger.unit == shard
        for group in stage.tables:
            assert all(read_table(group, block_name(block)) for block in stage.plan), stage.name
            assert stage.ledger.unit is None
        if stage.resource is None:
            assert len(stage.plan) == 1


def test_what_belongs_to_one_segmentation_is_recorded_with_it(done: Job) -> None:
    other = stages_of(replace(done, name="other"))
    beside = {stage.kind for stage in other if f"/{BESIDE}/other/ledger" in str(stage.ledger.objects)}
    assert beside == {stage.kind for stage in other if stage.own} == OF_ONE - {"contacts"}
