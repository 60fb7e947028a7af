"""Every architecture trains, leaves weights, and segments a volume with them."""

import numpy as np
import pytest
import zarr

from tests.support import small_config
from tests.train.test_configs import SMALL
from vimvol.commands.segment import segment_volume
from vimvol.models.registry import MODELS
from vimvol.outputs.manifest import read_manifest
from vimvol.train.fit import fit


@pytest.mark.parametrize("name", MODELS)
def test_it_trains_two_steps_and_segments(name, config, sample, tmp_path):
    options = SMALL[MODELS[name].build]
    weights = fit(config.model_copy(update={"model": name, "options": options, "steps": 2, "pictures": 0}))
    assert weights.name == f"{name}.safetensors"
    out = tmp_path / "out.zarr"
    result = segment_volume(f"{sample}:raw", str(out), small_config(predict__model=str(weights)))
    assert read_manifest(str(out))["state"] == "complete"
    boundaries = zarr.open_array(str(out / "0"), mode="r")[:]
    assert boundaries.shape == (1, 4, 128, 120)
    assert all(section.std() > 0 for section in boundaries[0])  # the network looks at the image
    labels = zarr.open_array(str(out / "labels" / "segmentation" / "0"), mode="r")[:]
    assert len(np.unique(labels[labels > 0])) == result.segments
