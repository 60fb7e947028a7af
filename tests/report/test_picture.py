"""The picture of a result, read back pixel by pixel."""

import itertools
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vimvol.errors import StorageError
from vimvol.report import colours
from vimvol.report.colours import label_colours, told_apart
from vimvol.report.picture import CAPTION, GAP, HEAD, MARGIN, PANEL, Cut, draw_cuts

SHAPE = (6, 150, 150)


@pytest.fixture
def volumes():
    """Raw, boundaries, segmentation and another segmentation, which differ from each other."""
    z, y, x = np.mgrid[: SHAPE[0], : SHAPE[1], : SHAPE[2]]
    labels = (1 + x // 50 + 3 * (y // 50)).astype(np.uint64)
    labels[:, :50, :50] = 0
    boundaries = np.where((x % 50 < 3) | (y % 50 < 3), 255, 0).astype(np.uint8)
    raw = (200 - boundaries // 2 + (x + y + z) % 7).astype(np.uint8)
    return raw, boundaries, labels, (labels > 4).astype(np.uint64) * 2**63


def overview(raw, boundaries, labels, path, *, title, voxel_size_x, ground_truth=None, scores=None):
    draw_cuts(
        [Cut(raw, boundaries, labels, (voxel_size_x, voxel_size_x), ground_truth)], path, title=title, scores=scores
    )


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB")).astype(int)


def panels(path: Path, columns: int, top: int = HEAD + CAPTION, height: int = PANEL) -> list[np.ndarray]:
    image = pixels(path)
    lefts = [MARGIN + i * (PANEL + GAP) for i in range(columns)]
    return [image[top : top + height, left : left + PANEL] for left in lefts]


def colourful(panel: np.ndarray) -> float:
    """Share of the pixels that are no grey."""
    return float((np.ptp(panel, axis=-1) > 12).mean())


def test_the_panels_show_what_they_should(volumes, tmp_path):
    raw, boundaries, labels, truth = (v[0] for v in volumes)
    path = tmp_path / "overview.png"
    overview(raw, boundaries, labels, path, title="a title", voxel_size_x=4.6, ground_truth=truth, scores={"VOI": 0.1})
    first, second, third, fourth = panels(path, 4)
    assert colourful(first[:400]) == 0.0
    assert second[:, 100:150].mean() < 20  # between two boundaries
    assert second[300, :8].mean() > 100  # on one
    assert colourful(third[200:]) > 0.95
    assert colourful(third[:190, :190]) == 0.0  # background keeps the raw
    assert (third != fourth).any(axis=-1).mean() > 0.3


def test_without_ground_truth_there_are_three_panels(volumes, tmp_path):
    raw, boundaries, labels, _ = (v[0] for v in volumes)
    path = tmp_path / "overview.png"
    overview(raw, boundaries, labels, path, title="", voxel_size_x=4.6)
    assert pixels(path).shape[:2] == (HEAD + CAPTION + PANEL + MARGIN, 2 * MARGIN + 3 * PANEL + 2 * GAP)


def test_a_volume_has_cuts_along_z_in_proportion_and_in_the_same_colours(volumes, tmp_path):
    raw, boundaries, labels, _ = volumes
    path = tmp_path / "overview.png"
    volume = raw, boundaries, labels
    cuts = [
        Cut(*(v[3] for v in volume), voxel_size=(5.0, 5.0), plane="xy"),
        Cut(*(v[:, 75] for v in volume), voxel_size=(50.0, 5.0), plane="xz"),
    ]
    draw_cuts(cuts, path, title="")
    height = PANEL * SHAPE[0] * 50 // (SHAPE[2] * 5)
    assert pixels(path).shape[0] == HEAD + 2 * CAPTION + PANEL + GAP + height + MARGIN
    across = panels(path, 3)[2]
    along = panels(path, 3, HEAD + 2 * CAPTION + PANEL + GAP, height)[2]
    for column in (100, 300, 500):  # the middle of a segment, in both cuts
        np.testing.assert_allclose(across[300, column], along[height // 2, column], atol=25)


def test_the_scale_bar_is_as_long_as_it_says(volumes, tmp_path):
    raw, boundaries, labels, _ = (v[0] for v in volumes)
    path = tmp_path / "overview.png"
    overview(raw, boundaries, labels, path, title="", voxel_size_x=10.0)
    bar = panels(path, 1)[0][PANEL - 17]  # a line through the bar: white on a dark box
    # The longest round length that a third of 150 voxels of 10 nm holds is 200 nm.
    assert (bar.min(axis=-1) == 255).sum() == pytest.approx(200 / 10 / 150 * PANEL, abs=1)


def test_equal_input_gives_equal_files(volumes, tmp_path):
    raw, boundaries, labels, _ = (v[0] for v in volumes)
    for name in "ab":
        overview(raw, boundaries, labels, tmp_path / name, title="x", voxel_size_x=4.6)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "b"]


@pytest.mark.parametrize(
    ("title", "shape"),
    [("a $b_ {c", (1, 1)), ("\u4e2d\u6587\n" * 200, (3, 400)), ("word " * 200, (900, 30)), ("", (1500, 1700))],
)
def test_any_title_and_shape_can_be_drawn(title, shape, tmp_path):
    raw = np.zeros(shape, dtype=np.uint8)
    path = tmp_path / "p.png"
    overview(raw, raw, raw.astype(np.uint64), path, title=title, voxel_size_x=4.6, scores={"VOI": 1.0})
    assert max(pixels(path).shape) < 3000


def test_shapes_that_differ_are_refused(volumes, tmp_path):
    raw, boundaries, labels, _ = (v[0] for v in volumes)
    with pytest.raises(ValueError, match="do not fit together"):
        overview(raw[1:], boundaries, labels, tmp_path / "p.png", title="", voxel_size_x=4.6)
    assert not list(tmp_path.iterdir())


def test_a_place_that_cannot_be_written_is_one_line(volumes, tmp_path):
    raw, boundaries, labels, _ = (v[0] for v in volumes)
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match=r"file.p\.png") as error:
        overview(raw, boundaries, labels, tmp_path / "file" / "p.png", title="", voxel_size_x=4.6)
    assert "\n" not in str(error.value)


def test_drawing_leaves_matplotlib_alone(tmp_path):
    program = (
        "import numpy as np, sys; from vimvol.report.picture import Cut, draw_cuts; a = np.zeros((9, 9), np.uint8);"
        f"draw_cuts([Cut(a, a, a.astype(np.uint64), (1.0, 1.0))], {str(tmp_path / 'p.png')!r}, title='t');"
        "assert 'matplotlib.pyplot' not in sys.modules and 'torch' not in sys.modules and 'dask' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_colours_are_a_function_of_the_id_and_far_apart():
    ids = np.arange(1, 2001, dtype=np.uint64)
    colours = label_colours(ids)
    np.testing.assert_array_equal(label_colours(ids[50:60]), colours[50:60])
    np.testing.assert_array_equal(label_colours(np.zeros((2, 3), np.uint64)), np.zeros((2, 3, 4)))
    assert (colours[:, 3] == 1).all()
    assert colours.min() >= 0
    assert colours.max() <= 1
    # of ids near each other, as segments that touch have, none look the same; by chance 5 % did
    for step, least in ((1, 0.2), (8, 0.14), (31, 0.05), (500, 0.015)):
        apart = [np.abs(colours[d:] - colours[:-d]).max(axis=-1).min() for d in range(1, step + 1)]
        assert min(apart) > least, (step, min(apart))
    # a grid of segments that are numbered row by row has no column of one colour, whatever the length of its rows
    columns = [np.ptp(colours[: 4 * d : d], axis=0).max() for d in range(1, 501)]
    assert min(columns) > 0.09, np.argmin(columns) + 1
    huge = label_colours(np.array([2**63 + 1, 2**63 + 2, 2**64 - 1], np.uint64))
    assert np.abs(np.diff(huge, axis=0)).max(axis=-1).min() > 0.1


def test_segments_that_touch_are_told_apart():
    one, same = 1, 559  # 558 apart: nobody could tell the two from each other
    assert np.abs(np.diff(label_colours(np.array([one, same], np.uint64)), axis=0)).max() < 0.03
    near = np.full((20, 30), one, np.uint64)
    near[:, 15:] = same
    near[:, 13:15] = 0  # a line of background between them
    apart = near.copy()
    apart[:, 5:25] = 2
    found = told_apart([near])
    colours = dict(zip(found.ids.tolist(), found.colours, strict=True))
    assert np.abs(colours[one] - colours[same]).max() > 0.1
    assert (colours[0] == 0).all()
    own = label_colours(found.ids)
    # the larger one keeps its colour, and all do where they do not touch
    assert [(c == o).all() for c, o in zip(found.colours, own, strict=True)] == [True, False, True]
    np.testing.assert_array_equal(told_apart([apart]).colours, label_colours(told_apart([apart]).ids))
    # what is shown together has one colour
    both = told_apart([apart, near])
    np.testing.assert_array_equal(both.of(near)[:, 15:], np.broadcast_to(both.of(apart)[0, 29], (20, 15, 4)))
    assert np.abs(both.of(near)[0, 0] - both.of(near)[0, 29]).max() > 0.1


def test_many_segments_are_told_apart_from_all_that_they_touch():
    rng = np.random.default_rng(0)
    labels = np.repeat(np.repeat(rng.integers(1, 2**63, (40, 40)).astype(np.uint64), 5, 0), 5, 1)

    def alike(colours):
        beside = [np.abs(np.diff(colours[::5, ::5], axis=axis)).max(axis=-1).ravel() for axis in (0, 1)]
        return (np.concatenate(beside) < 0.1).mean()

    assert alike(label_colours(labels)) > 0.01
    assert alike(told_apart([labels]).of(labels)) == 0


def told_apart_one_by_one(labels):
    """The rule: from the largest to the smallest, the first colour that is not like those of larger ones around."""
    ids, sizes = np.unique(labels, return_counts=True)
    touching = {each: set() for each in ids.tolist()}
    for axis, step in itertools.product((0, 1), range(1, colours.REACH + 1)):
        along = np.moveaxis(labels, axis, 0)
        for one, other in zip(along[:-step].ravel().tolist(), along[step:].ravel().tolist(), strict=True):
            if one != other:
                touching[one].add(other)
                touching[other].add(one)
    chosen = {}
    for each in ids[np.argsort(-sizes)].tolist():
        tries = colours._lab(np.array([each], np.uint64) + colours._NEXT * np.arange(colours.TRIES, dtype=np.uint64))
        around = np.array([chosen[other] for other in touching[each] if other in chosen]).reshape(-1, 3)
        nearest = np.linalg.norm(tries[:, None] - around, axis=-1).min(axis=1, initial=np.inf)
        fitting = np.flatnonzero(nearest >= colours.APART)
        chosen[each] = tries[fitting[0] if len(fitting) else nearest.argmax()]
    return colours._opaque(np.array([chosen[each] for each in ids.tolist()]), ids)


def test_colours_are_chosen_from_the_largest_segment_to_the_smallest():
    rng = np.random.default_rng(1)
    ids = (rng.permutation(60).reshape(2, 30).astype(np.uint64)) * np.uint64(558) + np.uint64(1)  # alike, most of them
    widths = rng.permutation(np.arange(1, 31))
    labels = ids.repeat((7, 31), axis=0).repeat(widths, axis=1)
    assert len(set(np.unique(labels, return_counts=True)[1])) == 60  # so that there is one answer
    found = told_apart([labels])
    np.testing.assert_array_equal(found.colours, told_apart_one_by_one(labels))
    assert (found.colours != label_colours(found.ids)).any(axis=1).sum() > 20


def test_pictures_of_very_many_segments_take_no_longer_than_by_their_number():
    """Each voxel is one, so that each touches others of its size, and none may wait for all before it."""
    labels = np.arange(1, 512**2 + 1, dtype=np.uint64).reshape(512, 512)
    told_apart([labels[:8]])  # what is loaded on first use
    start = time.process_time()
    found = told_apart([labels])
    assert time.process_time() - start < 6  # one by one it takes 18
    assert len(found.ids) == labels.size
