"""The look of a synthetic volume: it changes grey values and never the truth, and fits together from blocks."""

import dataclasses

import numpy as np
import pytest

from vimvol.errors import InputError
from vimvol.geometry import Block
from vimvol.sample import Look, SampleSpec, generate

SPEC = SampleSpec((2, 200, 200), seed=5)
OTHER = {
    "tones": 3.0,
    "dark": 0.5,
    "texture": 0.2,
    "grains": 0.0,
    "crowding": 2.0,
    "mitochondria": 0.0,
    "matrix": 150.0,
    "cristae": 0.0,
    "membrane": 90.0,
    "patchy": 2.0,
    "thickened": 2.0,
    "reticulum": 2.0,
    "blur": 2.0,
}


@pytest.fixture(scope="module")
def usual():
    return generate(SPEC)


def test_every_number_is_tried_below():
    assert set(OTHER) == {field.name for field in dataclasses.fields(Look)}


@pytest.mark.parametrize("name", OTHER)
def test_every_number_changes_the_picture_and_none_the_truth(usual, name):
    raw, labels = generate(dataclasses.replace(SPEC, look=Look(**{name: OTHER[name]})))
    assert (raw != usual[0]).mean() > 0.001
    np.testing.assert_array_equal(labels, usual[1])


def darkness(raw, labels):
    """Mean grey value beside a change of label, and elsewhere."""
    edge = np.zeros(labels.shape, dtype=bool)
    edge[:, :, 1:] = labels[:, :, 1:] != labels[:, :, :-1]
    return raw[edge].mean(), raw[~edge].mean()


def test_membranes_are_as_pale_as_asked(usual):
    pale = darkness(*generate(dataclasses.replace(SPEC, look=Look(membrane=90.0))))
    dark = darkness(*usual)
    assert pale[0] > dark[0] + 20
    assert pale[0] < pale[1] - 20  # and still membranes


def test_thickened_membranes_are_darker_around_and_not_everywhere(usual):
    raw, _ = generate(dataclasses.replace(SPEC, look=Look(thickened=1.0)))
    lower = raw.astype(int) < usual[0].astype(int) - 5
    assert 0.001 < lower.mean() < 0.2


def test_the_reticulum_keeps_away_from_membranes(usual):
    changed = generate(dataclasses.replace(SPEC, look=Look(reticulum=2.0)))[0] != usual[0]
    beside = np.zeros(changed.shape, dtype=bool)
    beside[:, :, 1:] = usual[1][:, :, 1:] != usual[1][:, :, :-1]
    assert changed.mean() > 0.001
    assert not changed[beside].any()


@pytest.mark.parametrize("voxel_size", [(50.0, 4.6, 4.6), (8.0, 8.0, 8.0)])
def test_a_block_equals_the_crop_of_the_whole(voxel_size):
    spec = SampleSpec((2, 150, 160), voxel_size, seed=9, look=Look(**OTHER))
    block = Block((1, 33, 41), (2, 140, 97))
    raw, labels = generate(spec)
    for part, whole in zip(generate(spec, block), (raw, labels), strict=True):
        np.testing.assert_array_equal(part, whole[block.slices])


@pytest.mark.parametrize(
    ("look", "most"), [({"dark": 1.5}, "1"), ({"tones": -0.1}, "4"), ({"blur": float("nan")}, "3")]
)
def test_what_cannot_be_is_refused(look, most):
    (name,) = look
    with pytest.raises(InputError, match=f"^{name} of a sample's look is .*; give a number from 0 to {most}$"):
        Look(**look)
