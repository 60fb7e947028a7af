"""What can be configured: one frozen model a stage, loaded from YAML and ``key=value`` overrides.

Units and axis order are part of every field's description. Unknown keys are refused and the valid
ones listed. Paths are plain strings; they are opened by those who read there, not here.
"""

from vimvol.config.base import Section
from vimvol.config.load import load_config, parse_config
from vimvol.config.segment import (
    AgglomerateConfig,
    CellsConfig,
    FragmentsConfig,
    InputConfig,
    OutputConfig,
    PredictConfig,
    RunConfig,
    SegmentConfig,
    SegmentSection,
)
from vimvol.config.train import AugmentConfig, TrainConfig, TrainDrawn, TrainImages, TrainVolume

__all__ = [
    "AgglomerateConfig",
    "AugmentConfig",
    "CellsConfig",
    "FragmentsConfig",
    "InputConfig",
    "OutputConfig",
    "PredictConfig",
    "RunConfig",
    "Section",
    "SegmentConfig",
    "SegmentSection",
    "TrainConfig",
    "TrainDrawn",
    "TrainImages",
    "TrainVolume",
    "load_config",
    "parse_config",
]
