import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from vimvol.train.targets import boundary_target, grow_instances, label_changes


def row(text: str, height: int = 5) -> np.ndarray:
    """Repeat one row of digits, so that the labels of a slice can be written as text."""
    return np.repeat(np.array([[int(c) for c in text]]), height, axis=0)


def text(row_: np.ndarray) -> str:
    return "".join(str(int(v)) for v in row_)


def test_instances_meet_in_the_middle_of_a_membrane():
    assert text(grow_instances(row("1110000222"), 5.0)[2]) == "1111122222"


def test_instances_grow_no_further_than_told():
    assert text(grow_instances(row("11000000002"), 2.0)[2]) == "11110000222"


def test_slices_grow_apart_from_each_other():
    labels = np.stack([row("1100"), row("0000")])
    grown = grow_instances(labels, 5.0)
    assert text(grown[0, 2]) == "1111"
    assert not grown[1].any()


def test_the_boundary_between_touching_instances_is_two_voxels_wide():
    target, weight = boundary_target(row("1111122222"))
    assert target.shape == weight.shape == (1, 5, 10)
    assert target.dtype == weight.dtype == np.float32
    assert text(target[0, 2]) == "0000110000"
    assert weight.all()


@pytest.mark.parametrize(("width", "expected"), [(2, "0000110000"), (4, "0001111000"), (6, "0011111100")])
def test_the_width_is_as_asked(width, expected):
    assert text(label_changes(row("1111122222"), width)[2]) == expected


def test_a_body_that_touches_itself_has_no_boundary():
    """A 3D body may bend back: one label in the slice, whatever the path through the other slices."""
    assert not boundary_target(row("7777777777"))[0].any()


def test_changes_between_slices_are_no_boundary():
    assert not label_changes(np.stack([row("1111"), row("2222")])).any()


def test_the_inside_of_glia_is_ignored_and_its_rim_is_boundary():
    target, weight = boundary_target(row("1110000002"))
    assert text(target[0, 2]) == "0011000011"
    assert text(weight[0, 2]) == "1111000011"


@given(hnp.arrays(np.int32, (9, 11), elements=st.integers(0, 3)), st.sampled_from([0.0, 1.0, 2.5, 20.0]))
def test_growing_keeps_every_instance_and_invents_none(labels, distance):
    grown = grow_instances(labels, distance)
    assert (grown[labels > 0] == labels[labels > 0]).all()
    assert set(np.unique(grown)) <= set(np.unique(labels)) | {0}
    if distance == 20.0 and labels.any():
        assert (grown > 0).all()


@given(hnp.arrays(np.int32, (9, 11), elements=st.integers(0, 3)))
def test_what_is_ignored_is_never_boundary(labels):
    target, weight = boundary_target(labels)
    assert not (target * (1 - weight)).any()
    assert (weight[0][labels > 0] == 1).all()
