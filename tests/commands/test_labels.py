from pathlib import Path

import numpy as np
import pytest
import zarr

from vimvol.commands.labels import FEWEST, check_truth, look_at
from vimvol.commands.score import score
from vimvol.errors import InputError
from vimvol.geometry import Block
from vimvol.io import open_volume
from vimvol.sample import SampleSpec, generate


@pytest.fixture(scope="module")
def neurons() -> np.ndarray:
    return generate(SampleSpec(shape=(6, 300, 300)))[1]


def stored(path: Path, data: np.ndarray) -> str:
    zarr.create_array(str(path), data=data, chunks=(2, 64, 64))
    return str(path)


def numbered(labels: np.ndarray, *, anew: bool) -> np.ndarray:
    """The same objects, each slice labelled by itself: from 1 in every slice, or without a label twice."""
    rng, slices, first = np.random.default_rng(0), [], 1
    for section in labels:
        ids, place = np.unique(section, return_inverse=True)
        fresh = rng.permutation(len(ids)) + first
        slices.append(np.where(section > 0, fresh[place.reshape(section.shape)], 0))
        first = 1 if anew else first + len(ids)
    return np.stack(slices)


@pytest.mark.parametrize("anew", [False, True])
def test_slices_that_were_labelled_one_by_one_are_told_and_scored_in_2d(run, neurons, tmp_path, anew) -> None:
    seg = stored(tmp_path / "seg.zarr", neurons)
    truth = stored(tmp_path / "truth.zarr", numbered(neurons, anew=anew))
    code, out, err = run("evaluate", seg, truth)
    (line,) = (line for line in err.splitlines() if not line.startswith("count: "))
    assert (code, "VOI merge" in out) == (0, True)
    assert line.startswith(f"warning: objects of {truth} end with their slice")
    assert "give --mode 2d" in line
    assert "warning" not in score(seg, truth, "2d")


def test_neurons_that_keep_their_label_are_not(neurons, tmp_path) -> None:
    seg = stored(tmp_path / "seg.zarr", neurons)
    assert "warning" not in score(seg, seg)
    sparse = neurons.copy()
    sparse[1::2] = 0  # every second slice annotated: no two of them meet
    for strays in (0, 1, 3):  # voxels that strayed into a slice between make no slice of their own
        sparse[1, 0, :strays] = np.arange(strays) + 1000
        assert "warning" not in score(seg, stored(tmp_path / f"{strays}.zarr", sparse))


@pytest.mark.parametrize("drawn", ["a pixel", "a tenth"])
def test_every_second_slice_annotated_is_something_to_learn_from(neurons, tmp_path, drawn) -> None:
    sparse = neurons.copy()
    sparse[1::2] = 0
    if drawn == "a pixel":
        sparse[1, 5, 5] = sparse.max() + 1
    else:  # more voxels than are needed to tell of a whole stack, and still few of it
        sparse[1, :5] = sparse.max() + 1
        assert (sparse[1] > 0).sum() > FEWEST
    truth = open_volume(stored(tmp_path / "sparse.zarr", sparse), prefer="labels")
    whole = Block.whole(truth.shape)
    check_truth(truth, whole, linked=True)
    assert look_at(truth, whole).linked is None
    other = open_volume(stored(tmp_path / "sliced.zarr", numbered(neurons, anew=False)), prefer="labels")
    with pytest.raises(InputError, match="end with their slice"):  # the rule still refuses what it is for
        check_truth(other, whole, linked=True)


@pytest.mark.parametrize("depth", [1, 6])
def test_intensities_in_place_of_labels_are_refused(run, neurons, tmp_path, depth) -> None:
    seg = stored(tmp_path / "seg.zarr", neurons[:depth])
    raw = stored(tmp_path / "raw.zarr", generate(SampleSpec(shape=(6, 300, 300)))[0][:depth])
    for pair in ((seg, raw), (raw, seg)):
        code, out, err = run("evaluate", *pair)
        (line,) = err.splitlines()
        assert (code, out) == (2, "")
        assert line.startswith(f"error: {raw} (uint8) looks like intensities")
        assert "volumes/labels/neuron_ids" in line


@pytest.mark.parametrize("command", ["train-edges {out} {truth} --out {folder}/f", "tune {folder}/t {raw} {truth}"])
def test_nothing_is_learned_from_them(run, sample, reference, tmp_path, command) -> None:
    labels = zarr.open_array(str(sample / "labels"), mode="r")[:]
    sliced = stored(tmp_path / "sliced.zarr", numbered(labels, anew=False))
    empty, short = stored(tmp_path / "empty.zarr", labels * 0), stored(tmp_path / "short.zarr", labels[:3])
    for truth, message in (
        (sliced, "end with their slice"),
        (f"{sample}:raw", "looks like intensities"),
        (empty, f"{empty} is 0 everywhere in [0:4, 0:128, 0:120], so nothing is annotated there"),
        (short, "voxels do not correspond"),
    ):
        parts = command.format(out=reference, truth=truth, raw=f"{sample}:raw", folder=tmp_path).split()
        code, _, err = run(*parts)
        told = [line for line in err.splitlines() if not line.startswith("opening ")]
        assert (code, len(told)) == (2, 1), err
        assert message in told[0]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty.zarr", "short.zarr", "sliced.zarr"]
