"""Datasets, targets, augmentation, losses and the Lightning module."""
