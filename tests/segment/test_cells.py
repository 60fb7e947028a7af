import numpy as np
import pytest
from scipy import ndimage
from skimage.measure import label
from skimage.segmentation import watershed

from tests.segment.synthetic import cells, same_partition
from vimvol.config import CellsConfig
from vimvol.geometry import Block, Grid
from vimvol.segment.cells import METHODS, cells_2d, cells_tile
from vimvol.segment.stitch import union, unique_pairs
from vimvol.train.targets import TARGETS

SHAPE = (90, 100)


def prediction_of(method, seed=0):
    """Slightly blurred targets of touching and of lonely cells on a background, as a network would give them."""
    truth = cells(SHAPE, 30, seed)
    truth[ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=SHAPE), 8) > 0.02] = 0
    target, _ = TARGETS["foreground-boundary" if method == "components" else "distances"].draw(truth, 2)
    soft = ndimage.gaussian_filter(target, (0, 0.7, 0.7)) + np.random.default_rng(seed).normal(0, 0.03, target.shape)
    return np.rint(soft.clip(0, 1) * 255).astype(np.uint8)


def as_torch_em_defines(prediction, method):
    """Seeds and cells by scikit-image, with torch-em's default thresholds."""
    values = prediction / 255
    foreground = values[0] > 0.5
    if method == "components":
        seeds, heights = (values[0] - values[1] > 0.5) & foreground, values[1]
    else:
        centre, heights = (ndimage.gaussian_filter(channel, 1.6) for channel in values[1:])
        seeds = (centre < 0.5) & (heights < 0.5) & foreground
    return watershed(heights, label(seeds), mask=foreground)


def by_tiles(prediction, method, tile, halo):
    """Cells of a slice, tile by tile, joined by their links."""
    grid = Grid((1, *SHAPE), (1, *tile))
    labels, links, n = np.zeros((1, *SHAPE), np.int64), [], 0
    for index in grid:
        own = grid.block(index)
        window = own.grow((0, *halo)).clip(grid.shape)
        cut = prediction[:, None][(slice(None), *window.slices)]
        found, count, pairs = cells_tile(cut, own.within(window), method, CellsConfig())
        labels[own.slices] = np.where(found, found + np.int64(n), 0)
        links.append(pairs + np.array(window.begin))
        n += count
    voxels = np.concatenate(links)
    first, second = (labels[tuple(voxels[:, side].T)].astype(np.uint64) for side in (0, 1))
    both = (first > 0) & (second > 0)
    return union(n + 1, unique_pairs(first[both], second[both]))[labels][0]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("seed", range(3))
def test_cells_are_those_of_the_paper(method, seed):
    prediction = prediction_of(method, seed)
    found, expected = cells_2d(prediction, method, CellsConfig()), as_torch_em_defines(prediction, method)
    assert found.max() > 10
    assert ((found > 0) == (expected > 0)).mean() > 0.999
    pairs, counts = np.unique(np.stack([found.ravel(), expected.ravel()]), axis=1, return_counts=True)
    assert len(np.unique(pairs[0])) == len(np.unique(pairs[1]))
    largest = sum(counts[pairs[0] == i].max() for i in np.unique(pairs[0]))
    assert largest / found.size > 0.995  # voxels as near to one cell as to another may go to either


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("tile", [(32, 32), (17, 100), (90, 23), (64, 48)])
def test_joined_tiles_equal_the_whole_slice(method, tile):
    for seed in range(3):
        prediction = prediction_of(method, seed)
        assert same_partition(by_tiles(prediction, method, tile, (45, 45)), cells_2d(prediction, method, CellsConfig()))


def test_seeds_that_touch_by_a_corner_are_one_cell_across_a_corner_of_tiles():
    prediction = np.zeros((2, *SHAPE), np.uint8)
    prediction[0, 28:32, 28:32] = prediction[0, 32:36, 32:36] = 255
    prediction[0, 60:64, 32:36] = prediction[0, 64:68, 28:32] = 255
    found = by_tiles(prediction, "components", (32, 32), (8, 8))
    assert found[31, 31] == found[32, 32] > 0
    assert found[63, 32] == found[64, 31] > 0
    assert len(np.unique(found)) == 3


@pytest.mark.parametrize("method", METHODS)
def test_nothing_is_found_where_nothing_is_predicted(method):
    nothing = np.zeros((len(METHODS[method].classes), 8, 9), np.uint8)
    nothing[1:] = 255
    assert not cells_2d(nothing, method, CellsConfig()).any()
    labels, count, links = cells_tile(nothing[:, None], Block.whole((1, 8, 9)), method, CellsConfig())
    assert (labels.shape, count, links.shape) == ((1, 8, 9), 0, (0, 2, 3))


def test_foreground_that_no_seed_reaches_is_background():
    prediction = np.zeros((2, 20, 20), np.uint8)
    prediction[0, 2:8, 2:8] = 255
    prediction[0, 12:18, 12:18] = 140
    prediction[1, 12:18, 12:18] = 100
    found = cells_2d(prediction, "components", CellsConfig())
    assert found[5, 5] == 1
    assert not found[10:].any()


def test_other_arrays_are_refused():
    with pytest.raises(ValueError, match="does not hold foreground, boundary"):
        cells_2d(np.zeros((3, 4, 4), np.uint8), "components", CellsConfig())
    with pytest.raises(ValueError, match="lies outside"):
        cells_tile(np.zeros((2, 1, 4, 4), np.uint8), Block((0, 0, 0), (1, 5, 4)), "components", CellsConfig())
