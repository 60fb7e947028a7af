"""Reading volumes of every supported format, and writing OME-Zarr and tables."""
