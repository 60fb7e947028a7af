"""Rows of equal pairs become one, in the order of pairs, whatever the ids and the order of rows."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vimvol.pairs import Pairs

# ids below 2^32 are sorted by one key, others by two
IDS = st.sampled_from([0, 1, 2, 2**32 - 1]) | st.sampled_from([0, 3, 2**32, 2**63 + 1])
ROWS = st.lists(st.tuples(IDS, IDS, st.integers(-5, 5)), max_size=30)


@pytest.mark.parametrize(("by", "one"), [(np.add, sum), (np.minimum, min), (np.maximum, max)])
@given(rows=ROWS)
def test_rows_of_equal_pairs_become_one(by: np.ufunc, one, rows: list[tuple[int, int, int]]) -> None:
    u, v = (np.array([row[end] for row in rows], np.uint64) for end in (0, 1))
    numbers = np.array([row[2] for row in rows], np.int64)
    of_pairs: dict[tuple[int, int], list[int]] = {}
    for a, b, number in rows:
        of_pairs.setdefault((a, b), []).append(number)
    expected = sorted(of_pairs.items())
    pairs = Pairs.of(u, v)
    assert list(zip(pairs.u.tolist(), pairs.v.tolist(), strict=True)) == [pair for pair, _ in expected]
    assert pairs.merged(numbers, by).tolist() == [one(found) for _, found in expected]
    assert pairs.first(numbers).tolist() == [found[0] for _, found in expected]


@given(rows=ROWS)
def test_columns_keep_their_type_and_leading_axes(rows: list[tuple[int, int, int]]) -> None:
    u, v = (np.array([row[end] for row in rows], np.uint64) for end in (0, 1))
    pairs = Pairs.of(u, v)
    for dtype in (np.uint16, np.uint32, np.int64):
        merged = pairs.merged(np.ones((2, 3, len(rows)), dtype))
        assert (merged.dtype, merged.shape) == (dtype, (2, 3, len(pairs.u)))
        assert merged.sum() == 6 * len(rows)
