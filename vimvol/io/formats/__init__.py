"""The formats that volumes are read from: one module each, and one line in `OPENERS`."""

from vimvol.io.formats import hdf5, n5, precomputed, tiff, zarr
from vimvol.io.formats.base import Opener

OPENERS: dict[str, Opener] = {
    # before zarr, which takes every other URL
    "n5": Opener(n5.matches, n5.find, n5.arrays, n5.open_array, n5.state),
    "precomputed": Opener(
        precomputed.matches, precomputed.find, precomputed.arrays, precomputed.open_array, precomputed.state
    ),
    "zarr": Opener(zarr.matches, zarr.find, zarr.arrays, zarr.open_array, zarr.state),
    "hdf5": Opener(hdf5.matches, hdf5.find, hdf5.arrays, hdf5.open_array, hdf5.state),
    "tiff": Opener(tiff.matches_file, tiff.find_file, tiff.arrays_file, tiff.open_file, tiff.state_file),
    "tiff folder": Opener(
        tiff.matches_folder, tiff.find_folder, tiff.arrays_folder, tiff.open_folder, tiff.state_folder
    ),
}
"""Readers by name; the first whose ``matches`` accepts a path opens it."""
