import itertools
import logging
import time
import tracemalloc
import zlib
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vimvol.engine import recorder as module
from vimvol.engine import segments
from vimvol.engine.ledger import Ledger, block_name
from vimvol.engine.missing import Left
from vimvol.engine.plan import StagePlan
from vimvol.engine.recorder import Recorder
from vimvol.engine.segments import Segment, decode, encode, join_segments, make_segment
from vimvol.errors import StorageError
from vimvol.geometry import Block, Grid, Index
from vimvol.io.objects import FolderObjects, open_objects

BLOCKS = Grid((8, 8, 8), (2, 4, 4))
UNIT = (2, 2, 4)


def make(folder: Path, key: str = "k", unit: tuple[int, ...] | None = None) -> Ledger:
    return Ledger(open_objects(str(folder)), "stage", key, unit)


def blocks_of(grid: Grid) -> list[Block]:
    return [grid.block(index) for index in grid]


def failures(ledger: Ledger) -> dict[Block, str]:
    ledger.describe(BLOCKS, len(BLOCKS), BLOCKS.voxels)
    found = ledger.progress()
    assert found is not None
    return found.failures


def files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.records"))


def test_records_come_back_with_their_results(tmp_path: Path) -> None:
    with Recorder(make(tmp_path)) as recorder:
        for number, block in enumerate(blocks_of(BLOCKS)):
            recorder.done(block, {"number": number, "counts": {"3": 4}})
    results = dict(make(tmp_path).entries())
    assert [results[b]["number"] for b in blocks_of(BLOCKS)] == list(range(16))
    assert results[BLOCKS.block((1, 0, 1))]["counts"] == {"3": 4}


def test_records_are_few_objects_and_all_are_there_after_folding(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(module, "SECONDS_BETWEEN_SEGMENTS", 0)
    grid = Grid((1, 20, 20), (1, 1, 1))
    with Recorder(make(tmp_path)) as recorder:
        for block in blocks_of(grid):
            recorder.done(block, {"at": list(block.begin)})
    assert len(files(tmp_path)) <= 3 * module.SEGMENTS_TO_FOLD
    entries = list(make(tmp_path).entries())
    assert len(entries) == 400
    assert all(result["at"] == list(block.begin) for block, result in entries)


def test_what_many_short_runs_left_is_folded_by_the_next(tmp_path: Path) -> None:
    ledger = make(tmp_path)
    for block in blocks_of(Grid((1, 10, 7), (1, 1, 1))):
        ledger.record(block, {})
    assert len(files(tmp_path)) == 70
    ledger.begin(BLOCKS)
    assert len(files(tmp_path)) == 1
    assert len(ledger.done()) == 70


@pytest.mark.parametrize("harm", ["cut", "flip", "empty", "garbage"])
def test_a_damaged_segment_is_noted_and_its_blocks_count_as_not_done(tmp_path: Path, caplog, harm: str) -> None:
    ledger = make(tmp_path)
    first, second = blocks_of(BLOCKS)[:2]
    ledger.record(first, {})
    (path,) = files(tmp_path)
    ledger.record(second, {})
    data = path.read_bytes()
    harmed = {
        "cut": data[:-7],
        "flip": data[:40] + bytes([data[40] ^ 1]) + data[41:],
        "empty": b"",
        "garbage": b"x" * 99,
    }
    path.write_bytes(harmed[harm])
    with caplog.at_level(logging.WARNING):
        assert ledger.done() == {block_name(second)}
    assert path.name in caplog.text
    ledger.begin(BLOCKS)
    assert not path.exists()
    assert ledger.missing(BLOCKS)(first) == [first]
    assert ledger.missing(BLOCKS)(second) == []


def test_a_draft_that_a_crash_left_is_no_segment(tmp_path: Path) -> None:
    ledger = make(tmp_path)
    ledger.record(BLOCKS.block((0, 0, 0)), {})
    (path,) = files(tmp_path)
    path.with_name(f".{path.name}.0123").write_bytes(path.read_bytes()[:50])
    assert len(ledger.done()) == 1


@given(data=st.data())
def test_write_units_that_other_blocks_finished_are_not_repeated(tmp_path_factory, data) -> None:
    """Compared voxel by voxel with what the records cover."""
    shape = (6, 10, 9)
    unit = data.draw(st.tuples(*(st.integers(1, 4) for _ in shape)))
    before, now = (Grid(shape, tuple(u * data.draw(st.integers(1, 3)) for u in unit)) for _ in range(2))
    finished = data.draw(st.sets(st.sampled_from(list(before))))
    ledger = make(tmp_path_factory.mktemp("ledger"), unit=unit)
    done = np.zeros(shape, bool)
    with Recorder(ledger) as recorder:
        for index in finished:
            recorder.done(before.block(index), {})
            done[before.block(index).slices] = True
    missing = ledger.missing(now)
    again = np.zeros(shape, int)
    for block in blocks_of(now):
        for part in missing(block):
            assert block.contains(part)
            again[part.slices] += 1
    np.testing.assert_array_equal(again, ~done)
    corners = [sorted(data.draw(st.tuples(*[st.integers(0, extent)] * 2))) for extent in shape]
    region = data.draw(st.sampled_from([None, Block(*map(tuple, zip(*corners, strict=True)))]))
    stage = StagePlan("predict", now, unit, region)
    one_by_one = [missing(block) for block in stage]
    parts = [part for parts in one_by_one for part in parts]
    assert list(missing.parts(stage)) == parts
    finished = sum(not parts for parts in one_by_one)
    assert missing.count(stage) == Left(finished, len(parts), sum(map(stage.wanted_of, parts)))
    assert stage.wanted == sum(map(stage.wanted_of, stage))
    assert [stage.wanted_of(block) for block in stage] == [
        block.size if region is None else int(np.prod(np.maximum(0, _shared(block, region)))) for block in stage
    ]


def _shared(one: Block, other: Block) -> np.ndarray:
    return np.minimum(one.end, other.end) - np.maximum(one.begin, other.begin)


@pytest.mark.parametrize("cell", [(32, 512, 512), (64, 1024, 1024)], ids=["same blocks", "other blocks"])
def test_millions_of_blocks_are_counted_at_once(tmp_path: Path, cell: Index) -> None:
    """A step a block, of 10 microseconds and more, would take minutes before a large run goes on."""
    shape, unit = (200 * 32, 100 * 512, 100 * 512), (32, 512, 512)
    before = Grid(shape, cell)
    ledger = make(tmp_path, unit=unit)
    half = len(before) // 2
    begin = np.stack(np.unravel_index(np.arange(half), before.counts), axis=-1) * cell
    results = zlib.compress(b"[" + b"{}," * (half - 1) + b"{}]")
    ledger.write(Segment(np.stack([begin, begin + cell], axis=1), np.zeros(half, bool), results, 0.0))
    plan = StagePlan("predict", Grid(shape, unit), unit)
    start = time.process_time()
    missing = ledger.missing(plan.blocks)
    assert missing.count(plan) == Left(len(plan) // 2, len(plan) // 2, plan.voxels // 2)
    assert next(missing.parts(plan)) == plan[len(plan) // 2]
    assert time.process_time() - start < 4e-6 * len(plan)


def test_without_a_unit_a_record_vouches_for_exactly_its_block(tmp_path: Path) -> None:
    ledger = make(tmp_path)
    ledger.record(BLOCKS.block((0, 0, 0)), {})
    assert ledger.missing(BLOCKS)(BLOCKS.block((0, 0, 0))) == []
    for cell in itertools.product((1, 2, 4), (2, 4, 8), (2, 4, 8)):
        grid = Grid(BLOCKS.shape, cell)
        if grid != BLOCKS:
            assert all(ledger.missing(grid)(block) == [block] for block in blocks_of(grid))


def test_other_blocks_begin_anew_where_a_record_vouches_for_exactly_its_block(tmp_path: Path) -> None:
    other = Grid(BLOCKS.shape, (4, 4, 4))
    for unit, left in ((None, 0), (UNIT, 1)):
        ledger = make(tmp_path, unit=unit)
        ledger.begin(BLOCKS)
        ledger.describe(BLOCKS, len(BLOCKS), BLOCKS.voxels)
        ledger.record(BLOCKS.block((0, 0, 0)), {})
        ledger.begin(BLOCKS)
        assert len(ledger.done()) == 1
        ledger.begin(other)
        assert len(ledger.done()) == left


def test_a_failure_stands_until_the_block_is_done(tmp_path: Path) -> None:
    ledger = make(tmp_path, unit=UNIT)
    first, second = blocks_of(BLOCKS)[:2]
    with Recorder(ledger) as recorder:
        recorder.failed(first, {"error": "OSError: broken", "attempts": 3})
        recorder.done(second, {})
    assert ledger.done() == {block_name(second)}
    assert failures(ledger) == {first: "OSError: broken"}
    assert ledger.missing(BLOCKS)(first) == [first]
    ledger.record(first, {})
    assert failures(ledger) == {}


def test_another_key_forgets_what_was_done(tmp_path: Path) -> None:
    first, second = (make(tmp_path, key) for key in "ab")
    first.record(BLOCKS.block((0, 0, 0)), {})
    second.begin(BLOCKS)
    assert first.done() == set()


def test_what_ends_a_stage_leaves_no_record_unwritten(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), Recorder(make(tmp_path)) as recorder:  # noqa: PT012 - what is tested
        for block in blocks_of(BLOCKS)[:5]:
            recorder.done(block, {})
        raise KeyboardInterrupt
    assert len(make(tmp_path).done()) == 5


def test_segments_survive_joining_and_encoding() -> None:
    records = [(block, i % 3 == 0, {"i": i}) for i, block in enumerate(blocks_of(BLOCKS))]
    joined = join_segments([make_segment(records[:5]), make_segment(records[5:])])
    back = decode(encode(joined))
    assert list(back.results()) == [{"i": i} for i in range(16)]
    np.testing.assert_array_equal(back.failed, [state for _, state, _ in records])
    np.testing.assert_array_equal(back.boxes, [(b.begin, b.end) for b, _, _ in records])


@pytest.mark.parametrize("at_once", [1, 2, 7, 1 << 20])
def test_results_come_back_and_are_joined_whatever_is_unpacked_together(monkeypatch, at_once: int) -> None:
    monkeypatch.setattr(segments, "_AT_ONCE", at_once)
    monkeypatch.setattr(segments, "_RECORDS_AT_ONCE", max(2, at_once))
    texts = ["", "]", "},{", 'a "quoted" \\ path', "\u00e9\u4e2d\U0001f600", "[" * 50]
    records = [(block, i % 3 == 0, {"t": texts[i % 6], "n": [{"i": i}]}) for i, block in enumerate(blocks_of(BLOCKS))]
    joined = join_segments([make_segment(records[:1]), make_segment(records[1:9]), make_segment(records[9:])])
    for segment in (joined, make_segment(records)):
        assert list(segment.records()) == records
    assert list(join_segments([make_segment(records), join_segments([joined])]).records()) == 2 * records


def test_sums_count_every_block_once_and_no_other(tmp_path: Path) -> None:
    ledger, first = make(tmp_path), BLOCKS.block((0, 0, 0))
    records = [(block, False, {"n": i, "m": 10**17}) for i, block in enumerate(blocks_of(BLOCKS))]
    for part in (records[:9], records[7:], [records[3], *records[3:5]]):  # as after a crash
        ledger.write(make_segment(part))
    other = Block(first.begin, tuple(2 * e for e in first.end))
    outside = Block(BLOCKS.shape, tuple(s + c for s, c in zip(BLOCKS.shape, BLOCKS.cell, strict=True)))
    ledger.write(make_segment([(other, False, {"n": 1000, "m": 0}), (outside, False, {}), (first, True, {})]))
    assert ledger.sums(BLOCKS, ("n", "m")) == {"n": sum(range(16)), "m": 16 * 10**17}
    assert make(tmp_path / "nothing").sums(BLOCKS, ("n",)) == {"n": 0}


def test_many_results_are_summed_and_folded_in_little_memory(tmp_path: Path) -> None:
    """As dicts they would take 365 bytes each."""
    grid = Grid((100, 100, 10), (1, 1, 1))
    records = [(block, False, {"seconds": 0.125, "edges": i}) for i, block in enumerate(blocks_of(grid))]
    ledger, many = make(tmp_path), len(grid)
    names = [ledger.write(make_segment(records[first : first + 5000])) for first in range(0, many, 5000)]
    del records
    tracemalloc.start()
    try:
        ledger.fold(names)
        assert ledger.sums(grid, ("edges",)) == {"edges": many * (many - 1) // 2}
        assert tracemalloc.get_traced_memory()[1] < 300 * many
    finally:
        tracemalloc.stop()


def test_numbers_of_numpy_are_recorded_as_numbers_and_nothing_as_its_text() -> None:
    (block, *_) = blocks_of(BLOCKS)
    (back,) = make_segment([(block, False, {"n": np.int64(5), "x": np.float32(0.5), "y": np.bool_(False)})]).results()
    assert back == {"n": 5, "x": 0.5, "y": False}
    assert {type(value) for value in back.values()} == {int, float, bool}
    for value in (np.zeros(3), Path("x"), {5}):
        with pytest.raises(TypeError, match="has no place in a record or key"):
            make_segment([(block, False, {"value": value})])


class Faulty(FolderObjects):
    """Fails the first writes."""

    left: ClassVar[int] = 0

    def put(self, name: str, data: bytes) -> None:
        if Faulty.left:
            Faulty.left -= 1
            raise StorageError("broken on purpose")
        super().put(name, data)


def test_a_passing_failure_of_the_storage_loses_no_record(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(module, "SECONDS_BETWEEN_SEGMENTS", 0)
    monkeypatch.setattr(Faulty, "left", 3)
    ledger = Ledger(Faulty(str(tmp_path)), "stage", "k")
    with Recorder(ledger) as recorder:
        for block in blocks_of(BLOCKS):
            recorder.done(block, {})
    assert len(ledger.done()) == 16


def test_storage_that_fails_for_good_ends_the_stage(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(module, "SECONDS_BEFORE_RETRY", 0)
    monkeypatch.setattr(Faulty, "left", 10**6)
    with (
        pytest.raises(StorageError, match="on purpose"),
        Recorder(Ledger(Faulty(str(tmp_path)), "s", "k")) as recorder,
    ):
        recorder.done(BLOCKS.block((0, 0, 0)), {})


def test_results_are_never_gathered_without_those_of_a_damaged_segment(tmp_path: Path) -> None:
    ledger = make(tmp_path)
    for block in blocks_of(BLOCKS)[:2]:
        ledger.record(block, {})
    files(tmp_path)[0].write_bytes(b"cut")
    with pytest.raises(StorageError, match="is damaged; run the same command again"):
        list(ledger.entries())
    with pytest.raises(StorageError, match="is damaged; run the same command again"):
        ledger.sums(BLOCKS, ())


def test_a_segment_that_was_damaged_is_no_reason_for_a_traceback(tmp_path: Path) -> None:
    ledger = make(tmp_path)
    names = [ledger.write(make_segment([(block, False, {})])) for block in blocks_of(BLOCKS)[:3]]
    (tmp_path / names[1]).write_bytes(b"cut")
    with pytest.raises(StorageError, match="is damaged; run the same command again"):
        ledger.fold(names)
    assert len(ledger.done()) == 2


@pytest.mark.parametrize("harm", ["damage", "storage"])
def test_folding_that_fails_costs_no_record_and_ends_no_stage(tmp_path: Path, monkeypatch, harm: str) -> None:
    """Every record is written at once, and folding fails each time that it is due."""
    monkeypatch.setattr(module, "SECONDS_BETWEEN_SEGMENTS", 0)
    monkeypatch.setattr(module, "SEGMENTS_TO_FOLD", 2)
    monkeypatch.setattr(module, "TRIES", 1)

    class Harmed(Ledger):
        def fold(self, names):
            if harm == "storage":
                raise StorageError("broken on purpose")
            (tmp_path / names[0]).write_bytes(b"cut")
            return super().fold(names)

    with Recorder(Harmed(open_objects(str(tmp_path)), "stage", "k")) as recorder:
        for block in blocks_of(BLOCKS):
            recorder.done(block, {})
    assert len(make(tmp_path).done()) == (16 if harm == "storage" else 8)
