import math

import elf.evaluation
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from vimvol.errors import InputError
from vimvol.evaluate.contingency import Contingency
from vimvol.evaluate.metrics import METRICS, mean_segmentation_accuracy, sa50, segmentation_accuracy

ERRORS = ("voi_split", "voi_merge", "adapted_rand", "cremi")


def everything(seg, gt):
    """The table of all voxels, background included."""
    return Contingency.from_arrays(np.asarray(seg), np.asarray(gt), ignore_gt=())


@st.composite
def labelled(draw):
    shape = draw(st.tuples(st.integers(1, 9), st.integers(1, 9)))
    arrays = hnp.arrays(np.uint64, shape, elements=st.integers(0, 4))
    return draw(arrays), draw(arrays)


@given(labelled())
def test_partition_metrics_equal_elf(arrays):
    expected = elf.evaluation.cremi_score(*arrays)
    found = [METRICS[name](everything(*arrays)) for name in ERRORS]
    assert found[:3] == pytest.approx(expected[:3], abs=1e-12)
    # a square root turns an error of 1e-16 into one of 1e-8, and of a negative one elf makes nan
    assert found[3] ** 2 == pytest.approx(expected[2] * (expected[0] + expected[1]), abs=1e-12)


@given(labelled())
def test_partition_metrics_equal_elf_where_ground_truth_is_ignored(arrays):
    seg, gt = arrays
    gt[0, 0] = 1
    expected = elf.evaluation.cremi_score(seg, gt, ignore_gt=[0])
    found = [METRICS[name](Contingency.from_arrays(seg, gt)) for name in ERRORS[:3]]
    assert found == pytest.approx(expected[:3], abs=1e-12)


@given(labelled())
@settings(max_examples=60)
def test_object_metrics_equal_elf(arrays):
    mean, accuracies = elf.evaluation.mean_segmentation_accuracy(*arrays, return_accuracies=True)
    table = everything(*arrays)
    assert mean_segmentation_accuracy(table) == pytest.approx(mean, abs=1e-12)
    assert METRICS["sa50"](table) == pytest.approx(accuracies[0], abs=1e-12)
    expected = elf.evaluation.matching(*arrays, threshold=0.75)["segmentation_accuracy"]
    assert METRICS["sa75"](table) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("name", METRICS)
class TestEveryMetric:
    def test_a_perfect_segmentation_is_best(self, name):
        labels = np.arange(100).reshape(10, 10) // 7 + 1
        score = METRICS[name](everything(labels, labels))
        assert score == (0 if name in ERRORS else 1)

    @given(arrays=labelled())
    @settings(max_examples=25)
    def test_the_numbers_of_labels_mean_nothing(self, name, arrays):
        seg, gt = arrays
        other = np.array([0, 9, 2**50, 1, 4], np.uint64)
        assert METRICS[name](everything(seg, gt)) == pytest.approx(METRICS[name](everything(other[seg], gt)), abs=1e-7)

    @given(arrays=labelled())
    @settings(max_examples=25)
    def test_scores_are_finite_and_not_negative(self, name, arrays):
        score = METRICS[name](everything(*arrays))
        assert isinstance(score, float)
        assert 0 <= score < math.inf
        assert score <= 1 or name not in (set(METRICS) - {"voi_split", "voi_merge", "cremi"})

    def test_nothing_to_score_is_the_users_mistake(self, name):
        with pytest.raises(InputError, match="0 voxels are labelled"):
            METRICS[name](Contingency.from_arrays(np.ones(3, int), np.zeros(3, int)))


def test_a_split_is_charged_to_voi_split_and_a_merge_to_voi_merge():
    one, two = np.ones(8, int), np.array([1] * 4 + [2] * 4)
    assert METRICS["voi_split"](everything(two, one)) == 1
    assert METRICS["voi_merge"](everything(two, one)) == 0
    assert METRICS["voi_split"](everything(one, two)) == 0
    assert METRICS["voi_merge"](everything(one, two)) == 1


def test_of_two_halves_only_one_matches():
    # both overlap the object by exactly one half
    assert sa50(everything([1, 2], [1, 1])) == 1 / 2
    # a chain of halves, where taking the wrong one first would lose a match
    assert sa50(everything([1, 1, 2], [3, 4, 4])) == 1
    assert segmentation_accuracy(everything([1, 1, 2], [3, 4, 4]), 0.55) == 0


def test_squares_of_many_voxels_do_not_overflow():
    table = Contingency(np.array([1, 2], np.uint64), np.array([1, 1], np.uint64), np.array([2**40, 2**40]))
    assert METRICS["adapted_rand"](table) == pytest.approx(1 - 2 * 0.5 / 1.5)
    assert METRICS["voi_split"](table) == 1
