"""What the segmentations of an output are called, and where what belongs to each lies; loads nothing that computes."""

from __future__ import annotations

SEGMENTATION = "segmentation"
"""Name of the segmentation that a run makes; others may be added to its output."""

BESIDE = "agglomerated"
"""Folder of what belongs to the segmentations that were added to an output, by their name."""

NOTE = "run.json"
"""What made such a segmentation, in its folder."""
