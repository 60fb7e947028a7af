import numpy as np
import pytest

from vimvol.evaluate.seams import Endings, endings, judge


def test_a_segment_ends_where_it_nowhere_goes_on():
    low = np.array([[1, 1, 2, 2], [1, 1, 3, 0]])
    high = np.array([[1, 5, 3, 2], [0, 5, 3, 0]])
    # 2 and 3 go on at one voxel, 1 at one; 5 begins
    assert endings(low, high, smallest=1) == Endings(1, 7)
    # nothing lies behind itself: what does elsewhere ends all the same; segments of one voxel do not count
    assert endings(low[:, ::-1], high, smallest=2) == Endings(4, 4)
    assert endings(np.zeros((2, 2), int), np.zeros((2, 2), int)) == Endings(0, 0)


def test_slivers_do_not_count():
    low, high = np.full((5, 5), 1), np.full((5, 5), 1)
    low[0, :3] = 7
    assert endings(low, high, smallest=4) == Endings(0, 2)
    assert endings(low, high, smallest=3) == Endings(1, 3)


def test_two_sides_have_one_shape():
    with pytest.raises(ValueError, match="not the two sides of a plane"):
        endings(np.zeros((2, 2), int), np.zeros((2, 3), int))


def test_more_endings_than_nearby_are_a_seam():
    usual = [Endings(5, 100)] * 8
    assert judge(usual, [Endings(20, 400)] * 8, 4, 3).passed
    verdict = judge([Endings(30, 100)] * 8, [Endings(20, 400)] * 8, 4, 3)
    assert not verdict.passed
    assert verdict.seam.rate == 0.3
    assert verdict.interior == Endings(40, 800)


def test_neither_chance_nor_what_cannot_be_seen_is_a_seam():
    assert judge([Endings(2, 10)], [Endings(4, 40)], 4, 1).passed
    many = judge([Endings(6_000, 100_000)], [Endings(5_000, 100_000)], 1, 1)
    assert many.p < 1e-6
    assert many.passed
    assert judge([], [], 0, 0).passed
    assert judge([Endings(0, 0)], [Endings(0, 0)], 4, 2).passed


def test_chance_alone_seldom_raises_an_alarm():
    rng = np.random.default_rng(0)
    alarms = 0
    for _ in range(300):
        seam, interior = ([Endings(int(rng.binomial(60, 0.1)), 60) for _ in range(10)] for _ in range(2))
        alarms += not judge(seam, interior, 1, 1).passed
    assert alarms <= 6
