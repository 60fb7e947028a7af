import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vimvol.evaluate.contingency import Contingency
from vimvol.evaluate.metrics import voi_merge, voi_split
from vimvol.evaluate.objects import COLUMNS, Places, largest_errors


def labels(seed, shape=(3, 9, 20)):
    rng = np.random.default_rng(seed)
    return np.kron(rng.integers(0, 5, (shape[0], shape[1] // 3, shape[2] // 4)), np.ones((1, 3, 4), int))


@given(st.integers(0, 2**32))
@settings(max_examples=30, deadline=None)
def test_the_rows_add_up_to_the_variation_of_information(seed):
    seg, gt = labels(seed), labels(seed + 1)
    table = Contingency.from_arrays(seg, gt)
    rows = largest_errors(table, Places.from_arrays(seg, gt))
    for kind, metric in (("split", voi_split), ("merge", voi_merge)):
        assert sum(row["bits"] for row in rows if row["kind"] == kind) == pytest.approx(metric(table), abs=1e-9)


@given(st.integers(0, 2**32))
@settings(max_examples=30, deadline=None)
def test_the_place_lies_in_the_second_part_and_the_sizes_are_counted(seed):
    seg, gt = labels(seed), labels(seed + 1)
    for row in largest_errors(Contingency.from_arrays(seg, gt), Places.from_arrays(seg, gt)):
        assert tuple(row) == COLUMNS
        whole, part = (gt, seg) if row["kind"] == "split" else (seg, gt)
        inside = (whole == row["id"]) & (gt > 0)
        ids, sizes = np.unique(part[inside], return_counts=True)
        assert row["parts"] == len(ids) > 1
        assert row["voxels"] == inside.sum()
        assert [row["largest_voxels"], row["second_voxels"]] == sorted(sizes)[::-1][:2]
        at = row["z"], row["y"], row["x"]
        assert (whole[at], part[at]) == (row["id"], row["second"])


def test_places_of_blocks_merge():
    seg, gt = labels(0), labels(1)
    cut = [Places.from_arrays(seg[z : z + 1], gt[z : z + 1], (z, 0, 0)) for z in range(3)]
    merged, whole = Places.merge(cut[::-1]), Places.from_arrays(seg, gt)
    for name in ("seg", "gt", "length", "voxel"):
        np.testing.assert_array_equal(getattr(merged, name), getattr(whole, name))


def test_a_perfect_segmentation_has_no_rows():
    gt = labels(3)
    assert largest_errors(Contingency.from_arrays(gt, gt), Places.from_arrays(gt, gt)) == []


def test_the_costliest_come_first_and_the_list_is_cut():
    seg, gt = labels(5), labels(6)
    table, places = Contingency.from_arrays(seg, gt), Places.from_arrays(seg, gt)
    splits = [row["bits"] for row in largest_errors(table, places) if row["kind"] == "split"]
    assert splits == sorted(splits, reverse=True)
    assert len(largest_errors(table, places, limit=1)) == 2
