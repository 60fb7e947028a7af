"""Networks that predict foreground make cells, the same for any blocks."""

from pathlib import Path

import numpy as np
import pytest
import zarr

from tests.support import digest, random_network, small_config
from vimvol.commands.picture import draw_overview
from vimvol.commands.segment import segment_volume
from vimvol.config import CellsConfig
from vimvol.errors import InputError
from vimvol.segment.cells import METHODS, cells_2d
from vimvol.segment.relabel import consecutive
from vimvol.train.targets import TARGETS


@pytest.fixture(params=["foreground-boundary", "distances"])
def network(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, str]:
    """The method of a random network, and its file; its channels are shifted so that there are cells."""
    classes = TARGETS[request.param].classes
    path = random_network(tmp_path / "cells.safetensors", gain=8, out_channels=len(classes), classes=classes)
    return next(name for name, method in METHODS.items() if method.classes == classes), path


def test_blocks_and_workers_do_not_change_a_byte(network, sample, tmp_path):
    _, model = network
    shared = {"predict__model": model, "segment__mode": "2d", "segment__min_size": 0}
    segment_volume(f"{sample}:raw", str(tmp_path / "a.zarr"), small_config(**shared))
    for number, other in enumerate(({"run__block": [4, 64, 144]}, {"run__block": [2, 128, 48], "run__workers": 1})):
        segment_volume(f"{sample}:raw", str(tmp_path / f"{number}.zarr"), small_config(**shared, **other))
        assert digest(tmp_path / f"{number}.zarr") == digest(tmp_path / "a.zarr")


def test_they_are_the_cells_of_the_whole_slices(network, sample, tmp_path):
    method, model = network
    tile = {"fragments__tile": None, "fragments__halo": None}
    config = small_config(predict__model=model, segment__mode="2d", segment__min_size=0, input__missing=None, **tile)
    segment_volume(f"{sample}:raw", str(tmp_path / "out.zarr"), config)
    predicted = zarr.open_array(str(tmp_path / "out.zarr" / "0"), mode="r")[:]
    labels = zarr.open_array(str(tmp_path / "out.zarr" / "labels" / "segmentation" / "0"), mode="r")[:]
    assert len(np.unique(labels)) > 10
    for z, found in enumerate(labels):
        expected = cells_2d(np.ascontiguousarray(predicted[:, z]), method, CellsConfig())
        assert ((found > 0) == (expected > 0)).all()
        np.testing.assert_array_equal(consecutive(found.ravel()), consecutive(expected.ravel().astype(np.uint64)))
    assert Path(draw_overview(f"{sample}:raw", str(tmp_path / "out.zarr"), config)).is_file()


def test_bodies_are_not_made_of_cells(network, sample, tmp_path):
    with pytest.raises(InputError, match=r"make cells of slices.*segment\.mode=2d"):
        segment_volume(f"{sample}:raw", str(tmp_path / "out.zarr"), small_config(predict__model=network[1]))
    assert not (tmp_path / "out.zarr").exists()


def test_images_of_no_known_voxel_size_are_told_what_their_network_makes(network, tmp_path):
    zarr.create_array(str(tmp_path / "images.zarr"), data=np.zeros((3, 64, 64), np.uint8))
    with pytest.raises(InputError, match=r"make cells of slices.*segment\.mode=2d"):
        segment_volume(
            str(tmp_path / "images.zarr"), str(tmp_path / "out.zarr"), small_config(predict__model=network[1])
        )


def test_a_region_of_interest_keeps_cells_and_ignores_blocks(network, sample, tmp_path):
    _, path = network
    outs = [tmp_path / "a.zarr", tmp_path / "b.zarr"]
    for out, block in zip(outs, ([2, 64, 48], [4, 128, 144]), strict=True):
        settings = {"predict__model": str(path), "segment__mode": "2d", "run__block": block}
        segment_volume(f"{sample}:raw", str(out), small_config(input__roi=[[0, 70, 50], [2, 120, 118]], **settings))
    assert digest(outs[0]) == digest(outs[1])
    labels = zarr.open_array(str(outs[0] / "labels/segmentation/0"), mode="r")[:]
    assert labels[:2, 70:120, 50:118].any()
    labels[:2, 70:120, 50:118] = 0
    assert not labels.any()
