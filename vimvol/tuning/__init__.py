"""Tuning: what is varied and wanted, how values are drawn, and what was tried; `vimvol.commands.tune` runs trials."""
