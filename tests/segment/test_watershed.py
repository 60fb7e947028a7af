import numpy as np
import pytest
from elf.segmentation.watershed import distance_transform_watershed
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage
from skimage.metrics import adapted_rand_error

from tests.segment.synthetic import boundaries_of, cells, same_partition
from vimvol.config import FragmentsConfig
from vimvol.geometry import Block
from vimvol.segment.watershed import crop_and_relabel, fragments_2d, fragments_3d, fragments_tile, seed_mask

DISTANCE = FragmentsConfig(seeds="distance")
COMPONENTS = FragmentsConfig(seeds="components")


@pytest.fixture(scope="module")
def slice_cells():
    return cells((200, 240), 40)


@pytest.fixture(scope="module")
def slice_map(slice_cells):
    return boundaries_of(slice_cells)


@pytest.fixture(scope="module")
def volume_map():
    return boundaries_of(cells((24, 72, 80), 25))


def assert_valid(labels):
    """Labels are 1..n without a gap, and each is connected."""
    n = int(labels.max())
    assert labels.dtype == np.uint32
    assert (np.unique(labels) == np.arange(1, n + 1)).all()
    assert all(ndimage.label(labels == label)[1] == 1 for label in range(1, n + 1))


@given(st.floats(0, 1))
def test_a_seed_has_a_probability_below_the_threshold(threshold):
    values = np.arange(256, dtype=np.uint8)
    assert (seed_mask(values, threshold) == (values.astype(float) < threshold * 255)).all()


@pytest.mark.parametrize("config", [DISTANCE, COMPONENTS], ids=["distance", "components"])
class TestBothSeeds:
    def test_every_voxel_of_a_slice_gets_a_connected_fragment(self, config, slice_map):
        assert_valid(fragments_2d(slice_map, config))

    def test_every_voxel_of_a_volume_gets_a_connected_fragment(self, config, volume_map):
        assert_valid(fragments_3d(volume_map, config, (20, 10, 10)))

    @pytest.mark.parametrize("value", [0, 255])
    def test_a_slice_without_contrast_is_one_fragment(self, config, value):
        assert (fragments_2d(np.full((9, 7), value, np.uint8), config) == 1).all()

    def test_a_run_can_be_repeated(self, config, slice_map):
        assert (fragments_2d(slice_map, config) == fragments_2d(slice_map.copy(), config)).all()

    def test_cells_are_found(self, config, slice_cells, slice_map):
        # fragments may split a cell but should not span two
        labels = fragments_2d(slice_map, config)
        error, precision, _ = adapted_rand_error(slice_cells, labels)
        assert precision > 0.97
        assert error < 0.35

    @pytest.mark.parametrize("shape", [(1, 1), (1, 30), (2, 2), (30, 1)])
    def test_tiny_slices_work(self, config, shape):
        boundaries = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
        assert (fragments_2d(boundaries, config) > 0).all()

    @settings(max_examples=30)
    @given(boundaries=hnp.arrays(np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, max_side=12)))
    def test_any_slice_is_covered(self, config, boundaries):
        assert_valid(fragments_2d(boundaries, config))


@pytest.mark.parametrize("sigma", [0.0, 2.0])
def test_the_distance_watershed_agrees_with_elf(slice_map, sigma):
    config = FragmentsConfig(threshold=0.5, sigma_seeds=sigma, sigma_weights=sigma, min_size=30)
    expected, _ = distance_transform_watershed(slice_map / np.float32(255), 0.5, sigma, sigma, min_size=30)
    error, _, _ = adapted_rand_error(expected.astype(np.int64), fragments_2d(slice_map, config))
    assert error < 0.02


def test_the_watershed_in_3d_agrees_with_elf(volume_map):
    expected, _ = distance_transform_watershed(volume_map / np.float32(255), 0.5, 1.0, 1.0, min_size=30)
    config = FragmentsConfig(threshold=0.5, sigma_seeds=1.0, sigma_weights=1.0, min_size=30)
    error, _, _ = adapted_rand_error(expected.astype(np.int64), fragments_3d(volume_map, config))
    assert error < 0.02


def test_no_fragment_is_smaller_than_asked(slice_map):
    small = fragments_2d(slice_map, FragmentsConfig(sigma_seeds=0.5, min_size=0))
    assert np.bincount(small.ravel())[1:].min() < 200
    labels = fragments_2d(slice_map, FragmentsConfig(sigma_seeds=0.5, min_size=200))
    assert_valid(labels)
    assert np.bincount(labels.ravel())[1:].min() >= 200


def test_where_all_fragments_are_small_the_largest_stays(slice_map):
    assert (fragments_2d(slice_map, FragmentsConfig(min_size=10**6)) == 1).all()


def test_components_are_the_connected_voxels_below_the_threshold(slice_map):
    config = FragmentsConfig(seeds="components", threshold=0.4)
    seeds, n = ndimage.label(slice_map < 0.4 * 255)
    labels = fragments_2d(slice_map, config)
    assert labels.max() == n
    assert same_partition(labels[seeds > 0], seeds[seeds > 0])


def test_a_saturated_boundary_is_parted_in_the_middle():
    boundaries = np.zeros((20, 40), np.uint8)
    boundaries[:, 10:22] = 255
    labels = fragments_2d(boundaries, COMPONENTS)
    assert (labels[:, :16] == labels[0, 0]).all()
    assert (labels[:, 16:] == labels[0, -1]).all()


def test_only_the_ratio_of_voxel_sizes_matters(volume_map):
    first = fragments_3d(volume_map, DISTANCE, (40, 10, 10))
    assert (first == fragments_3d(volume_map, DISTANCE, (4, 1, 1))).all()
    assert (first != fragments_3d(volume_map, DISTANCE, (1, 1, 1))).any()


def test_axes_are_treated_alike(volume_map):
    # a volume sampled coarsely along x is one sampled coarsely along z, turned
    upright = fragments_3d(volume_map, DISTANCE, (30, 10, 10))
    turned = fragments_3d(np.ascontiguousarray(volume_map.transpose(2, 1, 0)), DISTANCE, (10, 10, 30))
    assert adapted_rand_error(upright, turned.transpose(2, 1, 0))[0] < 0.05


def test_a_crop_numbers_the_pieces_of_a_fragment():
    labels = np.array([[1, 1, 1, 1], [1, 2, 2, 1], [1, 2, 2, 1]], np.uint32)
    cropped, n = crop_and_relabel(labels, Block((1, 0), (3, 4)))
    assert n == 3
    assert cropped.tolist() == [[1, 2, 2, 3], [1, 2, 2, 3]]


@given(
    labels=hnp.arrays(np.uint32, hnp.array_shapes(min_dims=2, max_dims=3, max_side=6), elements=st.integers(0, 3)),
    data=st.data(),
)
@settings(max_examples=50)
def test_a_crop_keeps_fragments_apart_and_pieces_connected(labels, data):
    begin = tuple(data.draw(st.integers(0, s - 1)) for s in labels.shape)
    end = tuple(data.draw(st.integers(b + 1, s)) for b, s in zip(begin, labels.shape, strict=True))
    cropped, n = crop_and_relabel(labels, Block(begin, end))
    source = labels[Block(begin, end).slices]
    assert ((cropped == 0) == (source == 0)).all()
    assert set(np.unique(cropped)) - {0} == set(range(1, n + 1))
    pieces = sum(ndimage.label(source == label)[1] for label in np.unique(source) if label)
    assert pieces == n
    assert all(len(np.unique(source[cropped == label])) == 1 for label in range(1, n + 1))


def test_a_tile_of_slices_uses_no_halo_along_z(volume_map):
    inner = Block((2, 10, 12), (6, 60, 70))
    labels, n, _ = fragments_tile(volume_map, inner, DISTANCE, "2d")
    assert set(np.unique(labels)) == set(range(1, n + 1))
    for z in range(4):
        expected, _ = crop_and_relabel(fragments_2d(volume_map[2 + z], DISTANCE), Block((10, 12), (60, 70)))
        assert (labels[z] - labels[z].min() + 1 == expected).all()
    assert all(np.intersect1d(labels[z], labels[z + 1]).size == 0 for z in range(3))


def test_a_tile_in_3d_is_the_crop_of_its_window(volume_map):
    inner = Block((4, 10, 12), (20, 60, 70))
    labels, n, _ = fragments_tile(volume_map, inner, DISTANCE, "3d", (20, 10, 10))
    expected, m = crop_and_relabel(fragments_3d(volume_map, DISTANCE, (20, 10, 10)), inner)
    assert n == m
    assert (labels == expected).all()


def test_in_a_tile_of_components_every_fragment_has_a_seed(volume_map):
    inner = Block((2, 10, 12), (6, 60, 70))
    labels, n, _ = fragments_tile(volume_map, inner, COMPONENTS, "2d")
    seeds = seed_mask(volume_map[inner.slices], 0.5)
    assert len(np.unique(labels[seeds])) == n


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: fragments_2d(np.zeros((2, 3, 4), np.uint8), DISTANCE), "are not 2 axes of uint8"),
        (lambda: fragments_3d(np.zeros((2, 3, 4), np.float32), DISTANCE), "are not 3 axes of uint8"),
        (lambda: fragments_2d(np.zeros((0, 3), np.uint8), DISTANCE), "are not 2 axes"),
        (lambda: crop_and_relabel(np.zeros((2, 3), np.uint32), Block((0, 0), (3, 3))), "lies outside labels"),
        (
            lambda: fragments_tile(np.zeros((1, 3, 3), np.uint8), Block((0, 0, 0), (2, 3, 3)), DISTANCE, "2d"),
            "lies outside a window",
        ),
    ],
)
def test_wrong_arrays_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
