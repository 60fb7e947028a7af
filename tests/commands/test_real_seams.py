"""Segmentations of the development data have no seams, whatever lies at the faces of tiles."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from vimvol.commands.qa import check_seams
from vimvol.commands.segment import segment_volume
from vimvol.config import SegmentConfig, load_config

SMALL_TILES = {"fragments.tile": [1, 64, 64], "fragments.halo": [0, 32, 32]}


@pytest.mark.parametrize(
    ("name", "mode", "part", "settings"),
    [
        # many pieces inside thick membranes reach through the tiles, 16 sections deep
        ("fib25_sample2_z000-149.h5", "3d", np.s_[:64, :160, :160], {}),
        ("vnc_stack1_z00-14.h5", "2d", np.s_[:4, :384, :384], SMALL_TILES),
    ],
)
def test_no_more_segments_end_where_tiles_meet(
    shared: Path, tmp_path: Path, name: str, mode: str, part: tuple[slice, ...], settings: dict[str, object]
) -> None:
    with h5py.File(shared / "data" / name) as file, h5py.File(tmp_path / "crop.h5", "w") as crop:
        crop["raw"] = file["volumes/raw"][part]
        crop["raw"].attrs["resolution"] = file["volumes/raw"].attrs["resolution"]
    config = load_config(SegmentConfig, None, {"segment.mode": mode, "run.workers": 0, **settings})
    segment_volume(f"{tmp_path}/crop.h5:raw", str(tmp_path / "out.zarr"), config)
    found = check_seams(str(tmp_path / "out.zarr"))
    assert found["planes"]
    assert found["passed"], found["planes"]
