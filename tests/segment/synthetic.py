"""Boundary maps to segment."""

import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree


def cells(shape, n, seed=0):
    """Voronoi cells of random points: integers 1..n."""
    rng = np.random.default_rng(seed)
    points = rng.random((n, len(shape))) * shape
    grid = np.stack(np.meshgrid(*(np.arange(s) for s in shape), indexing="ij"), axis=-1)
    return cKDTree(points).query(grid)[1].reshape(shape) + 1


def boundaries_of(labels, sigma=1.0, noise=0.02, seed=0):
    """Blurred, slightly noisy uint8 boundaries of labels, about 230 in the middle."""
    edge = np.zeros(labels.shape, bool)
    for axis in range(labels.ndim):
        a, b = np.moveaxis(edge, axis, 0), np.moveaxis(labels, axis, 0)
        different = b[1:] != b[:-1]
        a[1:] |= different
        a[:-1] |= different
    soft = ndimage.gaussian_filter(edge.astype(float), sigma)
    soft = soft / np.median(soft[edge]) * 0.9
    soft += np.random.default_rng(seed).normal(0, noise, soft.shape)
    return np.rint(np.clip(soft, 0, 1) * 255).astype(np.uint8)


def same_partition(a, b):
    """Tell whether two label arrays split the same positions in the same way, whatever the numbers."""
    pairs = np.unique(np.stack([np.ravel(a), np.ravel(b)]), axis=1)
    return len(np.unique(pairs[0])) == len(np.unique(pairs[1])) == pairs.shape[1]
