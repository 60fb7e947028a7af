import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from vimvol.stages.solve import LOOKUP_CHUNK
from vimvol.stages.write import SPAN, _spans


def test_tiles_of_neighbours_between_those_of_a_block_are_read_with_them():
    ids = np.concatenate([np.arange(1, 900), np.arange(3000, 4000), np.arange(5000, 5100)]).astype(np.uint64)
    assert _spans(ids) == [(0, len(ids))]
    far = ids + np.uint64(3 * LOOKUP_CHUNK)
    assert _spans(np.concatenate([ids, far])) == [(0, len(ids)), (len(ids), 2 * len(ids))]
    assert _spans(ids[:0]) == []


@given(st.lists(st.tuples(st.integers(0, 3 * LOOKUP_CHUNK), st.integers(1, 2 * LOOKUP_CHUNK)), min_size=1, max_size=30))
def test_every_fragment_is_read_once_and_never_more_than_fits(runs):
    ids, last = [], 1
    for gap, count in runs:
        ids.append(np.arange(last + gap, last + gap + count, dtype=np.uint64))
        last += gap + count
    ids = np.concatenate(ids)
    spans = _spans(ids)
    assert [0, *(end for _, end in spans)] == [*(begin for begin, _ in spans), len(ids)]
    for begin, end in spans:
        assert ids[end - 1] - ids[begin] < SPAN
        assert (np.diff(ids[begin:end]) <= LOOKUP_CHUNK).all()
