"""Reading volumes of every supported format, and writing OME-Zarr and tables."""

from vimvol.io.errors import storage_errors
from vimvol.io.levels import Level, pyramid, storage_shapes
from vimvol.io.openers import describe, open_volume
from vimvol.io.volume import Volume

__all__ = [
    "Level",
    "Volume",
    "describe",
    "open_volume",
    "pyramid",
    "storage_errors",
    "storage_shapes",
]
