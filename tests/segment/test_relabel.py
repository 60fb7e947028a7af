import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from vimvol.segment.relabel import consecutive

LABELS = hnp.arrays(np.uint64, st.integers(0, 30), elements=st.integers(0, 40) | st.integers(0, 2**64 - 1))


def numbered(labels):
    seen = {}
    return [seen.setdefault(label, len(seen)) for label in labels.tolist()]


@given(LABELS)
def test_groups_are_numbered_by_their_first_node(labels):
    result = consecutive(labels)
    assert result.dtype == np.uint64
    assert result.tolist() == numbered(labels)
