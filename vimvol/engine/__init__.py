"""Planning and running blocks: the only folder that imports Dask."""
