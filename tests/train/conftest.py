"""A volume small enough to train on within a test."""

from pathlib import Path

import h5py
import numpy as np
import pytest
from scipy import ndimage

from vimvol.config import TrainConfig, parse_config


@pytest.fixture(scope="session")
def annotated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An HDF5 file with dark membranes between bright cells, in CREMI's layout, (8, 60, 70) voxels of 10 nm."""
    rng = np.random.default_rng(0)
    centres = rng.uniform((0, 0, 0), (8, 60, 70), (30, 3))
    z, y, x = np.indices((8, 60, 70))
    distance = sum((a[..., None] - c) ** 2 for a, c in zip((z, y, x), centres.T, strict=True))
    labels = distance.argmin(-1).astype(np.uint64) + 2**40  # too large for float32
    membrane = ndimage.grey_dilation(labels, (1, 3, 3)) != ndimage.grey_erosion(labels, (1, 3, 3))
    raw = ndimage.gaussian_filter(np.where(membrane, 40.0, 180.0), (0, 0.7, 0.7)) + rng.normal(0, 10, labels.shape)
    labels[0][membrane[0]] = 0
    path = tmp_path_factory.mktemp("annotated") / "cells.h5"
    with h5py.File(path, "w") as file:
        for name, array in (("raw", raw.clip(0, 255).astype(np.uint8)), ("labels/neuron_ids", labels)):
            dataset = file.create_dataset(f"volumes/{name}", data=array)
            dataset.attrs["resolution"] = (10.0, 10.0, 10.0)
    return path


@pytest.fixture
def config(annotated: Path, tmp_path: Path) -> TrainConfig:
    """Four steps of a small network, validated and saved after two."""
    return parse_config(
        TrainConfig,
        {
            "model": "unet-nano",
            "options": {"features": 4},
            "out": str(tmp_path / "out"),
            "root": str(annotated.parent),
            "volumes": [
                {
                    "raw": "cells.h5:volumes/raw",
                    "labels": "cells.h5:volumes/labels/neuron_ids",
                    "train": [0, 6],
                    "validate": [6, 8],
                    "planes": ["z", "y"],
                }
            ],
            "patch": [32, 32],
            "batch": 1,
            "steps": 4,
            "validate_every": 2,
            "threads": 1,
            "workers": 0,
            "card": {"licence": "none of your concern"},
        },
    )
