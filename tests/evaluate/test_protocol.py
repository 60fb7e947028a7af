import numpy as np
import pytest
from elf.evaluation import cremi_score
from elf.evaluation import mean_segmentation_accuracy as elf_accuracy
from scipy import ndimage

from vimvol.errors import InputError
from vimvol.evaluate.contingency import Contingency
from vimvol.evaluate.fill import fill_background
from vimvol.evaluate.metrics import METRICS
from vimvol.evaluate.protocol import (
    OBJECT_METRICS,
    PARTITION_METRICS,
    boundary_band,
    score_slices,
    score_volume,
    volume_table,
)


@pytest.fixture(scope="module")
def pair():
    """A ground truth of blobs with background, and a segmentation that splits, merges and misses some."""
    rng = np.random.default_rng(0)
    gt = ndimage.zoom(rng.integers(0, 12, (1, 5, 6)), (2, 8, 8), order=0).astype(np.uint64)
    seg = np.roll(gt, (1, 2), axis=(1, 2)) // np.uint64(2)
    seg[:, :, 25:] += np.uint64(50)
    seg[:, 20:23] = 0
    return seg, gt


def brute_band(gt, width):
    """Distances to boundary voxels, one by one."""
    padded = np.pad(gt, 1, mode="edge")
    shifts = (padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:])
    edge = np.argwhere(np.any([gt != shifted for shifted in shifts], axis=0))
    grid = np.argwhere(np.ones(gt.shape, bool))
    distance = np.linalg.norm(grid[:, None] - edge[None], axis=2).min(axis=1, initial=np.inf)
    return (distance < width).reshape(gt.shape)


@pytest.mark.parametrize("width", [0, 1, 2, 3, 5])
def test_the_band_holds_what_is_nearer_to_a_boundary(pair, width):
    assert (boundary_band(pair[1][0], width) == brute_band(pair[1][0], width)).all()


@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (4, 4)])
def test_a_slice_of_one_label_has_no_band(shape):
    assert not boundary_band(np.ones(shape, int), 2).any()


@pytest.mark.parametrize("band", [0, 2])
def test_a_volume_is_scored_like_elf_does(pair, band):
    seg, gt = pair
    kept = gt.copy()
    for z in range(len(gt)):
        kept[z][brute_band(gt[z], band)] = 0
    expected = cremi_score(fill_background(seg), kept, ignore_gt=[0])
    scores = score_volume(seg, gt, band)
    assert list(scores) == list(PARTITION_METRICS)
    assert list(scores.values()) == pytest.approx(expected, abs=1e-12)


def test_stacks_of_slices_merge_to_the_table_of_the_volume(pair):
    seg, gt = pair
    whole = volume_table(seg, gt, 2)
    merged = Contingency.merge([volume_table(seg[3:], gt[3:], 2), volume_table(seg[:3], gt[:3], 2)])
    assert (merged.seg == whole.seg).all()
    assert (merged.gt == whole.gt).all()
    assert (merged.count == whole.count).all()


def test_labels_can_be_left_out_of_a_volume(pair):
    seg, gt = pair
    masked = gt.copy()
    masked[gt == 5] = 0
    assert score_volume(seg, gt, 0, ignore_gt=(0, 5)) == score_volume(seg, masked)


def test_slices_are_scored_like_elf_does(pair):
    seg, gt = pair
    scores = []
    for s, g in zip(seg, gt, strict=True):
        masked = np.where(g == 0, 0, s)
        ids, sizes = np.unique(masked, return_counts=True)
        masked[np.isin(masked, ids[sizes < 25])] = 0
        mean, accuracies = elf_accuracy(masked, g, return_accuracies=True)
        scores.append([*cremi_score(s, g, ignore_gt=[0]), mean, accuracies[0], accuracies[5]])
    found = score_slices(seg, gt)
    assert list(found) == [*PARTITION_METRICS, *OBJECT_METRICS] == list(METRICS)
    assert list(found.values()) == pytest.approx(np.mean(scores, axis=0), abs=1e-12)


def test_a_dense_segmentation_of_what_is_annotated_is_perfect():
    gt = np.zeros((1, 30, 30), int)
    gt[0, 2:14, 2:28], gt[0, 16:28, 2:28] = 1, 2
    seg = np.where(np.arange(30) < 15, 5, 6)[None, :, None] * np.ones((1, 1, 30), int)
    assert score_slices(seg, gt) == dict.fromkeys(PARTITION_METRICS, 0) | dict.fromkeys(OBJECT_METRICS, 1)


def test_cells_on_a_background_are_scored_like_elf_does(pair):
    """As in the paper's evaluation: the metric of the images as they are, and the mean over images."""
    seg, gt = pair
    seg = seg.copy()
    seg[0, :6, 30:36] = np.where(gt[0, :6, 30:36] == 0, 77, seg[0, :6, 30:36])  # false, and of 36 voxels at most
    scores = []
    for s, g in zip(seg, gt, strict=True):
        mean, accuracies = elf_accuracy(s, g, return_accuracies=True)
        scores.append([*cremi_score(s, g), mean, accuracies[0], accuracies[5]])
    found = score_slices(seg, gt, background="keep")
    assert list(found.values()) == pytest.approx(np.mean(scores, axis=0), abs=1e-12)


def test_what_lies_on_a_kept_background_is_false():
    gt = np.zeros((1, 40, 40), int)
    gt[0, :10, :10], gt[0, 20:30, 20:30] = 1, 2
    assert score_slices(gt, gt, background="keep") == dict.fromkeys(PARTITION_METRICS, 0) | dict.fromkeys(
        OBJECT_METRICS, 1
    )
    more, wide = gt.copy(), gt.copy()
    more[0, 35:38, :3] = 3  # however small
    wide[0, :10, 10:15] = 1  # an overlap of 2 / 3
    scores = [score_slices(seg, gt, background="keep") for seg in (more, wide)]
    assert [s["sa50"] for s in scores] == pytest.approx([2 / 3, 1])
    assert [s["sa75"] for s in scores] == pytest.approx([2 / 3, 1 / 3])
    assert [score_slices(seg, gt)["sa75"] for seg in (more, wide)] == [1, 1]
    assert score_slices(gt, np.zeros_like(gt), background="keep")["sa50"] == 0


def test_small_objects_do_not_count():
    gt = np.zeros((1, 20, 20), int)
    gt[0, :10], gt[0, 12:14, :10] = 1, 2
    seg = np.where(gt == 2, 0, gt)
    seg[0, 0, :5] = 9
    assert score_slices(seg, gt)["sa50"] == 1
    assert score_slices(seg, gt, min_size=0)["sa50"] == pytest.approx(1 / 3)


def test_slices_without_ground_truth_are_left_out(pair):
    seg, gt = pair
    empty = np.zeros_like(gt[:1])
    assert score_slices(np.concatenate([seg, seg[:1]]), np.concatenate([gt, empty])) == score_slices(seg, gt)


@pytest.mark.parametrize("score", [score_slices, score_volume])
def test_the_users_mistakes_are_told(score):
    with pytest.raises(InputError, match=r"shape \(1, 2, 3\) and ground truth of shape \(1, 3, 3\)"):
        score(np.ones((1, 2, 3), int), np.ones((1, 3, 3), int))
    with pytest.raises(InputError, match="cannot be compared"):
        score(np.ones((2, 3), int), np.ones((2, 3), int))
    with pytest.raises(InputError, match="nothing can be scored"):
        score(np.ones((1, 2, 3), int), np.zeros((1, 2, 3), int))
    with pytest.raises(InputError, match="segmentation of dtype bool holds no labels, which are integers"):
        score(np.ones((1, 2, 3), bool), np.ones((1, 2, 3), int))
    with pytest.raises(InputError, match="ground truth of dtype float64 holds no labels, which are integers"):
        score(np.ones((1, 2, 3), int), np.ones((1, 2, 3)))
