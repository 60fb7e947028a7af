"""Segment electron-microscopy volumes that do not fit one machine, with ViM-UNet.

What the command line does is also a call: `segment_volume`, `score`, `fit`, `open_volume`. The names load on first
use; importing the package loads neither PyTorch nor Dask.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from vimvol.commands.score import score
    from vimvol.commands.segment import segment_volume
    from vimvol.config import SegmentConfig, TrainConfig, load_config
    from vimvol.io import open_volume
    from vimvol.models import build_model, load_checkpoint
    from vimvol.train.fit import fit

_HOMES = {
    "SegmentConfig": "vimvol.config",
    "TrainConfig": "vimvol.config",
    "build_model": "vimvol.models",
    "fit": "vimvol.train.fit",
    "load_checkpoint": "vimvol.models",
    "load_config": "vimvol.config",
    "open_volume": "vimvol.io",
    "score": "vimvol.commands.score",
    "segment_volume": "vimvol.commands.segment",
}

__all__ = [
    "SegmentConfig",
    "TrainConfig",
    "__version__",
    "build_model",
    "fit",
    "load_checkpoint",
    "load_config",
    "open_volume",
    "score",
    "segment_volume",
]


def __getattr__(name: str) -> Any:  # noqa: ANN401 - any of the names above
    if name not in _HOMES:
        raise AttributeError(f"module 'vimvol' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
