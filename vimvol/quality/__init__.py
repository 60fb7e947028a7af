"""How good a segmentation is, sample by sample or block by block: what `vimvol score` and `vimvol qa` look at."""
