"""Segment electron-microscopy volumes that do not fit one machine, with ViM-UNet."""

__version__ = "0.1.0"
