"""Networks that predict boundaries in images, and their weights."""

from vimvol.models.checkpoint import LoadedModel, ModelSpec, load_checkpoint, save_checkpoint, shipped
from vimvol.models.registry import MODELS, Entry, build_model

__all__ = [
    "MODELS",
    "Entry",
    "LoadedModel",
    "ModelSpec",
    "build_model",
    "load_checkpoint",
    "save_checkpoint",
    "shipped",
]
