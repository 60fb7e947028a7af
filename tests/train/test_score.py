import numpy as np
import pytest

from vimvol.train.score import THRESHOLDS, slice_accuracies
from vimvol.train.targets import label_changes


def slice_accuracy(boundary, truth):
    return slice_accuracies(boundary, truth)[THRESHOLDS.index(0.5)]


def test_a_faint_boundary_counts_below_its_probability():
    scores = slice_accuracies(label_changes(cells()) * np.float32(0.25), cells())
    np.testing.assert_allclose(scores, [1, 1, 1, 1, 1, 0, 0, 0])


def cells():
    return np.kron(np.arange(1, 17).reshape(4, 4), np.ones((20, 20), int))


def test_true_boundaries_score_1():
    assert slice_accuracy(label_changes(cells()).astype(np.float32), cells()) == pytest.approx(1.0)


def test_no_boundaries_score_0():
    assert slice_accuracy(np.zeros((80, 80), np.float32), cells()) == 0.0


def test_a_gap_in_a_boundary_costs_the_two_cells():
    boundary = label_changes(cells()).astype(np.float32)
    boundary[8:12, 16:24] = 0
    # 14 of 16 cells are found, the two that leak into each other are one fragment: 14 / (16 + 15 - 14)
    assert slice_accuracy(boundary, cells()) == pytest.approx(14 / 17, abs=0.03)


def test_parts_of_a_body_count_one_by_one():
    labels = np.where(cells() % 2 == 1, 1, 2)  # stripes of two bodies, each in two parts
    assert slice_accuracy(label_changes(labels).astype(np.float32), labels) == pytest.approx(1.0)


def test_nothing_to_judge_scores_0():
    assert slice_accuracy(np.zeros((30, 30), np.float32), np.zeros((30, 30), int)) == 0.0
