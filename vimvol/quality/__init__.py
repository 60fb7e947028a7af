"""How good a segmentation is, sample by sample or block by block: what `vimvol evaluate` and `vimvol qa` look at."""
