"""The picture of an output, where its intensities are not all finite."""

import shutil
from pathlib import Path

import numpy as np
import zarr

from tests.report.test_picture import panels
from tests.support import small_config
from vimvol.commands.picture import draw_overview
from vimvol.geometry import Block
from vimvol.io import open_volume
from vimvol.report.picture import PANEL


def test_a_voxel_that_is_not_a_number_leaves_the_others_to_be_seen(
    sample: Path, reference: Path, tmp_path: Path
) -> None:
    volume = open_volume(f"{sample}:raw")
    raw = volume.read(Block.whole(volume.shape)).astype(np.float32)
    lost = raw.copy()
    lost[2, :8, :8], lost[2, :8, 8:16] = np.nan, np.inf
    out = tmp_path / "out.zarr"
    shutil.copytree(reference, out)
    shown = []
    for number, data in enumerate((raw, lost)):
        path = str(tmp_path / f"{number}.zarr")
        zarr.create_array(path, data=data)
        picture = draw_overview(path, str(out), small_config(input__voxel_size=[50, 4.6, 4.6]))
        shown.append(panels(Path(picture), 3)[0].astype(float)[PANEL // 8 : PANEL // 2])
    assert np.ptp(shown[0]) > 100
    np.testing.assert_allclose(*shown, atol=20)
