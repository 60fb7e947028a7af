"""Comparing a segmentation with a ground truth: a mergeable contingency table and metrics that are functions of it."""
