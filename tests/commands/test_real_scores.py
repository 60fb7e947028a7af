"""Scores of real segmentations of the development data, and of mangled ones, are those of its scoring script."""

import importlib.util
import itertools
from pathlib import Path

import h5py
import numpy as np
import pytest
import zarr

from vimvol.commands.score import score
from vimvol.commands.segment import segment_volume
from vimvol.config import SegmentConfig, load_config
from vimvol.evaluate.fill import fill_background
from vimvol.evaluate.protocol import score_slices, score_volume

SLICES = ("vnc_stack1_z00-14.h5", np.s_[12:14, 300:520, 300:540])
"""Sections that the shipped network was not trained on."""
BODIES = ("fib25_sample2_z000-149.h5", np.s_[112:124, 60:180, 60:190])
TWO_D = {
    "msa": "mean_segmentation_accuracy",
    "sa50": "sa50",
    "vs": "voi_split",
    "vm": "voi_merge",
    "are": "adapted_rand",
    "cremi": "cremi",
}
THREE_D = {short: name for short, name in TWO_D.items() if short not in ("msa", "sa50")}
"""Our names of the metrics of the script."""


@pytest.fixture(scope="module")
def script(shared):
    """The protocol that the development data come with, written with elf."""
    spec = importlib.util.spec_from_file_location("eval_metrics", shared / "data" / "eval_metrics.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def segmented(shared: Path, folder: Path, part: tuple[str, object], mode: str):
    """Segment a crop with the default network; return segmentation and ground truth."""
    with h5py.File(shared / "data" / part[0]) as file, h5py.File(folder / "crop.h5", "w") as crop:
        crop["raw"] = file["volumes/raw"][part[1]]
        crop["raw"].attrs["resolution"] = file["volumes/raw"].attrs["resolution"]
        gt = file["volumes/labels/neuron_ids"][part[1]]
    config = load_config(SegmentConfig, None, {"segment.mode": mode, "run.workers": 0, "segment.min_size": 100})
    segment_volume(f"{folder}/crop.h5:raw", str(folder / "out.zarr"), config)
    return zarr.open_array(str(folder / "out.zarr/labels/segmentation/0"), mode="r")[:], gt


@pytest.fixture(scope="module")
def slices(shared, tmp_path_factory):
    return segmented(shared, tmp_path_factory.mktemp("slices"), SLICES, "2d")


@pytest.fixture(scope="module")
def bodies(shared, tmp_path_factory):
    return segmented(shared, tmp_path_factory.mktemp("bodies"), BODIES, "3d")


def specks(seg):
    """Segments of 5 x 5 voxels, at the smallest size that counts, and smaller ones."""
    seg = seg.copy()
    seg[:, 50:55, 50:55], seg[:, 90:94, 50:54] = seg.max() + 1, seg.max() + 2
    return seg


MANGLED = {
    "as it is": lambda seg: seg,
    "merged": lambda seg: (seg + 2) // 3 * 3,
    "split": lambda seg: np.where(seg > 0, 2 * seg + (np.arange(seg.shape[-1]) // 40) % 2, 0),
    "shifted": lambda seg: np.roll(seg, (3, -2), axis=(1, 2)),
    "holes": lambda seg: np.where((np.indices(seg.shape[1:]).sum(axis=0) // 6) % 3 > 0, seg, 0),
    "specks": specks,
    "large ids": lambda seg: np.where(seg > 0, seg * 7919 + 2**52, 0),
    "one segment": lambda seg: np.ones_like(seg),
    "noise": lambda seg: np.random.default_rng(0).integers(1, 40, seg.shape).astype(seg.dtype),
}
"""What can go wrong with a segmentation, (z, y, x) uint64."""


def written(folder: Path, seg, gt) -> tuple[str, str]:
    for name, array in (("seg", seg), ("gt", gt)):
        zarr.create_array(str(folder / f"{name}.zarr"), data=array, chunks=(1, 64, 64))
    return str(folder / "seg.zarr"), str(folder / "gt.zarr")


def named(scores: dict[str, float], names: dict[str, str]) -> dict[str, float]:
    return {short: scores[name] for short, name in names.items()}


@pytest.mark.parametrize("way", MANGLED)
def test_instances_of_slices(script, slices, way, tmp_path):
    seg, gt = MANGLED[way](slices[0]).astype(np.uint64), slices[1]
    assert (gt == 0).any()
    expected = script.m2d(seg, gt)
    found = score(*written(tmp_path, seg, gt), "2d", cell=(1, 64, 128))
    assert named(found["scores"]["slices"], TWO_D) == pytest.approx(expected, abs=1e-12)
    assert found["scores"]["slices"] == score_slices(seg, gt)
    for z, one in enumerate(found["slices"]):
        assert named(one, TWO_D) == pytest.approx(script.m2d(seg[z : z + 1], gt[z : z + 1]), abs=1e-12)


@pytest.mark.parametrize("way", MANGLED)
def test_bodies_with_bands_and_labels_that_do_not_count(script, bodies, way, tmp_path):
    seg, gt = MANGLED[way](bodies[0]).astype(np.uint64), bodies[1]
    filled = fill_background(seg)
    addresses = written(tmp_path, seg, gt)
    large = int(np.unique(gt, return_counts=True)[0][np.unique(gt, return_counts=True)[1].argmax()])
    for ignore in ((), (large,)):
        kept = np.where(np.isin(gt, ignore), np.uint64(0), gt)
        found = score(*addresses, "3d", bands=(0, 1, 2, 4), ignore=ignore, cell=(4, 64, 64))["scores"]
        for band in (0, 1, 2, 4):
            scores = found["volume" if not band else f"volume, band {band}"]
            assert named(scores, THREE_D) == pytest.approx(script.m3d(filled, kept, band), abs=1e-12)
            assert scores == score_volume(seg, gt, band, ignore_gt=(0, *ignore))


@pytest.mark.parametrize(("name", "cremi"), [("ffn_segmentation", 0.1038), ("supervoxels", 0.4518)])
def test_reference_results_score_as_they_did(shared, script, name, cremi):
    with h5py.File(shared / "data" / BODIES[0]) as file:
        labels = file["volumes/labels"]
        seg, gt = labels[name][100:120], labels["neuron_ids"][100:120]
    scores = score_volume(seg, gt, 2)
    assert named(scores, THREE_D) == pytest.approx(script.m3d(fill_background(seg), gt, 2), abs=1e-12)
    # of two segments that are equally near, the script takes either
    assert named(scores, THREE_D) == pytest.approx(script.m3d(script.fill0(seg), gt, 2), abs=1e-2)
    assert scores["cremi"] == pytest.approx(cremi, abs=2e-3)


def test_sections_joined_to_neurons_are_not_merged_within(shared, tmp_path):
    """Over a section lie other neurites of the next, too; with one prior for all edges this was one segment."""
    found, gt = segmented(shared, tmp_path, (SLICES[0], np.s_[8:14, 300:520, 300:540]), "3d")
    assert score_slices(found, gt)["voi_merge"] < 0.5
    shares = [np.isin(np.unique(here), behind).mean() for here, behind in itertools.pairwise(found)]
    assert np.mean(shares) > 0.7
