import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from vimvol.segment.relabel import consecutive, lookup_table

LABELS = hnp.arrays(np.uint64, st.integers(0, 30), elements=st.integers(0, 40) | st.integers(0, 2**64 - 1))


def numbered(labels):
    seen = {}
    return [seen.setdefault(label, len(seen)) for label in labels.tolist()]


@given(LABELS)
def test_groups_are_numbered_by_their_first_node(labels):
    result = consecutive(labels)
    assert result.dtype == np.uint64
    assert result.tolist() == numbered(labels)


@given(LABELS.filter(len))
def test_segments_start_at_1_and_follow_their_first_fragment(labels):
    lut = lookup_table(labels)
    assert lut.dtype == np.uint64
    assert lut.tolist() == [0, *(1 + label for label in numbered(labels[1:]))]


@given(LABELS.filter(len), st.integers(0, 12), st.data())
def test_small_segments_become_background(labels, min_size, data):
    sizes = data.draw(hnp.arrays(np.int64, len(labels), elements=st.integers(0, 6)))
    lut = lookup_table(labels, sizes, min_size)
    groups = np.array(numbered(labels[1:]), int)
    voxels = np.bincount(groups, sizes[1:])
    kept = [group for group in range(len(voxels)) if voxels[group] >= min_size]
    assert lut[0] == 0
    assert lut[1:].tolist() == [kept.index(group) + 1 if group in kept else 0 for group in groups]


def test_the_background_joins_nothing():
    # node 0 may carry the label of a fragment
    assert lookup_table(np.array([1, 1, 0], np.uint64)).tolist() == [0, 1, 2]


def test_sizes_are_needed_to_drop_small_segments():
    with pytest.raises(ValueError, match="need as many sizes"):
        lookup_table(np.zeros(3, np.uint64), min_size=2)
