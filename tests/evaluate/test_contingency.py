import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from vimvol.evaluate.contingency import Contingency


def as_dict(table):
    return dict(zip(zip(table.seg.tolist(), table.gt.tolist(), strict=True), table.count.tolist(), strict=True))


def brute_force(seg, gt, ignore=(0,)):
    pairs = [(int(s), int(g)) for s, g in zip(seg.ravel(), gt.ravel(), strict=True) if g not in ignore]
    return {pair: pairs.count(pair) for pair in sorted(set(pairs))}


@st.composite
def labelled(draw, max_side=6):
    shape = draw(hnp.array_shapes(max_dims=3, max_side=max_side))
    ids = draw(st.sampled_from([[0, 1, 2, 3], [0, 7, 2**40, 2**63 + 1]]))
    arrays = hnp.arrays(np.uint64, shape, elements=st.sampled_from(ids))
    return draw(arrays), draw(arrays)


@given(labelled())
def test_a_table_counts_voxels(arrays):
    table = Contingency.from_arrays(*arrays)
    assert as_dict(table) == brute_force(*arrays)
    assert list(as_dict(table)) == sorted(as_dict(table))
    assert table.total == (arrays[1] > 0).sum()


@given(labelled(), st.data())
def test_any_blocks_in_any_order_give_the_table_of_the_whole(arrays, data):
    cuts = sorted(data.draw(st.lists(st.integers(0, arrays[0].size), max_size=4)))
    parts = zip(*(np.split(array.ravel(), cuts) for array in arrays), strict=True)
    tables = data.draw(st.permutations([Contingency.from_arrays(*part) for part in parts]))
    merged = Contingency.merge([Contingency.merge(tables[:2]), *tables[2:]])
    whole = Contingency.from_arrays(*arrays)
    for name in ("seg", "gt", "count"):
        assert getattr(merged, name).dtype == getattr(whole, name).dtype
        assert (getattr(merged, name) == getattr(whole, name)).all()


@given(labelled())
def test_sizes_are_those_of_the_labels_that_count(arrays):
    seg, gt = arrays
    table = Contingency.from_arrays(seg, gt)
    for found, labels in ((table.seg_sizes(), seg), (table.gt_sizes(), gt)):
        expected = np.unique(labels[gt > 0], return_counts=True)
        assert (found[0] == expected[0]).all()
        assert (found[1] == expected[1]).all()


def test_labels_to_ignore_can_be_chosen():
    seg, gt = np.array([1, 1, 2, 2]), np.array([0, 5, 5, 6])
    assert as_dict(Contingency.from_arrays(seg, gt, ())) == {(1, 0): 1, (1, 5): 1, (2, 5): 1, (2, 6): 1}
    assert as_dict(Contingency.from_arrays(seg, gt, (0, 5))) == {(2, 6): 1}


def test_small_objects_are_left_out_and_small_segments_become_background():
    seg = np.array([1, 1, 1, 1, 2, 2, 3, 3, 3])
    gt = np.array([5, 5, 5, 5, 5, 6, 7, 7, 7])
    table = Contingency.from_arrays(seg, gt).without_small(2)
    assert as_dict(table) == {(0, 5): 1, (1, 5): 4, (3, 7): 3}


def test_labels_of_any_integer_type_can_be_compared():
    table = Contingency.from_arrays(np.array([[1, 2]], np.int32), np.array([[3, 3]], np.uint8))
    assert as_dict(table) == {(1, 3): 1, (2, 3): 1}


@pytest.mark.parametrize(
    ("seg", "gt", "message"),
    [
        (np.ones((2, 3), int), np.ones((3, 2), int), "do not match"),
        (np.ones(3), np.ones(3, int), "no integers"),
    ],
)
def test_what_cannot_be_compared_is_refused(seg, gt, message):
    with pytest.raises(ValueError, match=message):
        Contingency.from_arrays(seg, gt)
