"""The synthetic volume: the same in any blocks, with a ground truth that holds, and with dark membranes."""

import dataclasses

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy import ndimage

from vimvol.errors import InputError
from vimvol.geometry import Block
from vimvol.sample import SampleSpec, count_neurites, generate

SECTIONS = SampleSpec((6, 192, 224), seed=5)
ISOTROPIC = SampleSpec((24, 96, 80), (10.0, 10.0, 10.0), seed=6)
SPECS = [SECTIONS, ISOTROPIC]


@pytest.fixture(scope="module", params=SPECS, ids=["sections", "isotropic"])
def volume(request):
    raw, labels = generate(request.param)
    return request.param, raw, labels


def membrane(labels):
    """Voxels beside a change of label in the section."""
    edge = np.zeros(labels.shape, dtype=bool)
    edge[:, 1:] |= labels[:, 1:] != labels[:, :-1]
    edge[:, :, 1:] |= labels[:, :, 1:] != labels[:, :, :-1]
    return edge


@st.composite
def specs_and_blocks(draw):
    shape = tuple(draw(st.integers(1, high)) for high in (4, 150, 150))
    voxel_size = draw(st.sampled_from([(50.0, 4.6, 4.6), (10.0, 10.0, 10.0), (40.0, 4.0, 6.0), (8.0, 2.0, 2.0)]))
    begin = tuple(draw(st.integers(0, s - 1)) for s in shape)
    end = tuple(draw(st.integers(b + 1, s)) for b, s in zip(begin, shape, strict=True))
    return SampleSpec(shape, voxel_size, seed=draw(st.integers(-(2**70), 2**70))), Block(begin, end)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(specs_and_blocks())
def test_a_block_equals_the_crop_of_the_whole(case):
    spec, block = case
    raw, labels = generate(spec)
    part_raw, part_labels = generate(spec, block)
    np.testing.assert_array_equal(part_raw, raw[block.slices])
    np.testing.assert_array_equal(part_labels, labels[block.slices])


def test_blocks_of_a_large_volume_fit_together():
    # A volume of 34 million million voxels: only what the block needs may be computed.
    spec = SampleSpec((20_000, 41_000, 42_000), seed=1)
    left = Block((12_345, 30_000, 20_000), (12_346, 30_100, 20_130))
    right = Block((12_345, 30_050, 20_070), (12_346, 30_150, 20_200))
    shared = left.intersect(right)
    for a, b in zip(generate(spec, left), generate(spec, right), strict=True):
        np.testing.assert_array_equal(a[shared.within(left).slices], b[shared.within(right).slices])
    assert generate(spec, left)[1].max() <= count_neurites(spec)


def test_a_seed_gives_one_volume_and_another_seed_another():
    small = dataclasses.replace(SECTIONS, shape=(1, 64, 64))
    first, again, other = generate(small), generate(small), generate(dataclasses.replace(small, seed=6))
    assert all((a == b).all() for a, b in zip(first, again, strict=True))
    assert (first[0] != other[0]).mean() > 0.9


def test_shapes_and_types(volume):
    spec, raw, labels = volume
    assert raw.shape == labels.shape == spec.shape
    assert raw.dtype == np.uint8
    assert labels.dtype == np.uint64


def test_labels_are_consecutive_from_1_in_every_section(volume):
    spec, _, labels = volume
    expected = np.arange(1, count_neurites(spec) + 1)
    assert len(expected) > 5
    for section in labels:
        np.testing.assert_array_equal(np.unique(section), expected)


def test_neurites_are_connected_but_for_specks(volume):
    _, _, labels = volume
    cut_off = 0
    for label, box in enumerate(ndimage.find_objects(labels.astype(np.int64)), start=1):
        sizes = np.bincount(ndimage.label(labels[box] == label)[0].ravel())[1:]
        cut_off += sizes.sum() - sizes.max()
    assert cut_off < labels.size / 5000


def test_neurites_go_on_in_the_next_section(volume):
    _, _, labels = volume
    assert (labels[1:] == labels[:-1]).mean() > 0.75


def test_neurites_have_many_sizes():
    labels = generate(SampleSpec((1, 768, 768), seed=8))[1]
    widths = 2 * np.sqrt(np.bincount(labels.ravel().astype(np.int64))[1:] / np.pi) * 4.6
    assert 150 < np.median(widths) < 300
    assert np.quantile(widths, 0.95) > 2 * np.median(widths)


def test_membranes_are_dark_and_cytoplasm_is_bright(volume):
    _, raw, labels = volume
    edge = membrane(labels)
    inside = ndimage.binary_erosion(~edge, np.ones((1, 3, 3)), iterations=4)
    assert np.median(raw[edge]) < 85
    assert np.median(raw[inside]) > 140


def test_contrast_changes_from_section_to_section_only_where_there_are_sections():
    changes = [np.abs(np.diff(generate(spec)[0].mean(axis=(1, 2)))).mean() for spec in (SECTIONS, ISOTROPIC)]
    assert changes[0] > 2 * changes[1]


def test_noise_changes_the_picture_and_not_the_truth():
    noisy = dataclasses.replace(SECTIONS, shape=(1, 96, 96))
    clean_raw, clean_labels = generate(dataclasses.replace(noisy, noise=0.0))
    raw, labels = generate(noisy)
    np.testing.assert_array_equal(labels, clean_labels)
    difference = raw.astype(float) - clean_raw
    assert 8 < difference.std() < 20
    assert abs(difference.mean()) < 1


def test_grey_values_resemble_recordings(shared):
    with h5py.File(shared / "data" / "vnc_stack1_z00-14.h5") as file:
        real = file["volumes/raw"][4, :512, :512]
    raw = generate(SampleSpec((1, 512, 512), seed=2))[0]
    steps = np.quantile(raw, (0.05, 0.25, 0.5, 0.75, 0.95)) - np.quantile(real, (0.05, 0.25, 0.5, 0.75, 0.95))
    assert np.abs(steps).max() < 45
    assert 0.7 < raw.std() / real.std() < 1.3


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"shape": (0, 5, 5)}, "(0, 5, 5)"),
        ({"shape": (5, 5)}, "(5, 5)"),
        ({"voxel_size": (50.0, -1.0, 4.6)}, "-1.0"),
        ({"voxel_size": (50.0, float("nan"), 4.6)}, "nan"),
        ({"neurite_size": 20.0}, "at least 36.8"),
        ({"membrane_width": 500.0}, "500.0"),
        ({"noise": -1.0}, "-1.0"),
    ],
)
def test_a_sample_that_cannot_be_is_refused_in_one_line(change, says):
    with pytest.raises(InputError) as error:
        dataclasses.replace(SECTIONS, **change)
    assert says in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "block", [Block((0, 0, 0), (1, 1, 225)), Block((-1, 0, 0), (1, 1, 1)), Block((2, 2, 2), (2, 3, 3))]
)
def test_a_block_outside_is_refused(block):
    with pytest.raises(InputError, match="inside"):
        generate(SECTIONS, block)
