"""A random forest that tells which edges to cut, as plain arrays: no code in its file, and none of its library needed.

The trees of a forest lie one after the other, each in depth-first order: the left child of a node is the next node. An
edge's votes are added up tree by tree, one edge at a time, so that a probability does not depend on what other edges
stand beside it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from vimvol.jit import compiled
from vimvol.segment.features import Features

KEY = "vimvol-edges"
"""Name of the description, JSON, in the header of a file."""

_DTYPES = {"roots": np.int64, "feature": np.uint8, "number": np.float32, "right": np.int32, "missing_left": np.uint8}

_SMALLEST = 1e-3


@dataclass(frozen=True, slots=True, eq=False)
class Forest:
    """Trees, and the calibration of their votes.

    Attributes
    ----------
    names
        Features that the trees look at.
    roots
        (T + 1,) int64, the first node of every tree, and the number of all nodes.
    feature
        (N,) uint8, which feature a node looks at; 0 at a leaf.
    number
        (N,) float32: at a leaf, the part of its training edges that are to be cut; else the threshold, up to which a
        feature, in float32, leads to the left.
    right
        (N,) int32, the right child; 0 at a leaf.
    missing_left
        (N,) uint8, whether a missing feature leads to the left.
    calibration
        Slope and intercept on the log-odds of the votes, after Platt (1999).
    card
        What it was trained on, as text by name.
    """

    names: tuple[str, ...]
    roots: NDArray[np.int64]
    feature: NDArray[np.uint8]
    number: NDArray[np.float32]
    right: NDArray[np.int32]
    missing_left: NDArray[np.uint8]
    calibration: tuple[float, float] = (1.0, 0.0)
    card: dict[str, str] | None = None

    def __post_init__(self) -> None:
        fault = self._fault()
        if fault is not None:
            raise ValueError(fault)

    def votes(self, features: Features) -> NDArray[np.float64]:
        """Return the mean over the trees of their probabilities of a cut, (E,).

        Raises
        ------
        ValueError
            If a feature is missing.
        """
        missing = [name for name in self.names if name not in features.names]
        if missing:
            raise ValueError(f"edges have no feature {missing[0]!r}")
        chosen = features.values[:, [features.names.index(name) for name in self.names]]
        values = np.ascontiguousarray(chosen, dtype=np.float32)
        result = np.zeros(len(values))
        _add_votes(values, self.roots, self.feature, self.number, self.right, self.missing_left, result)
        return result / (len(self.roots) - 1)

    def probability(self, features: Features) -> NDArray[np.float64]:
        """Return the calibrated probability of a cut, (E,)."""
        votes = self.votes(features)
        _calibrate(votes, *self.calibration)
        return votes

    def to_bytes(self) -> bytes:
        """Return the content of a file: safetensors, with the description in its header."""
        described = {"names": self.names, "calibration": self.calibration, "card": self.card or {}}
        return save({name: getattr(self, name) for name in _DTYPES}, {KEY: json.dumps(described)})

    @classmethod
    def from_bytes(cls, data: bytes) -> Forest:
        """Return the forest of a file.

        Raises
        ------
        ValueError
            If it holds none, or one whose trees lead nowhere.
        """
        try:
            arrays = load(data)
            length = int.from_bytes(data[:8], "little")
            text = json.loads(data[8 : 8 + length]).get("__metadata__", {}).get(KEY)
        except (SafetensorError, ValueError, KeyError) as error:
            raise ValueError(f"it is no intact safetensors file: {error}") from None
        if text is None or set(arrays) != set(_DTYPES):
            raise ValueError("it holds something else")
        wrong = [name for name, dtype in _DTYPES.items() if arrays[name].dtype != dtype or arrays[name].ndim != 1]
        if wrong:
            raise ValueError(f"its array {wrong[0]!r} has another type")
        try:
            described: dict[str, Any] = json.loads(text)
            slope, intercept = map(float, described["calibration"])
            names = tuple(map(str, described["names"]))
            card = {str(key): str(value) for key, value in described["card"].items()}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"its description is broken: {error!r}") from None
        return cls(names, **arrays, calibration=(slope, intercept), card=card)

    def _fault(self) -> str | None:
        """Return why the trees cannot be walked; compiled code would not notice."""
        nodes = len(self.feature)
        if {len(self.number), len(self.right), len(self.missing_left)} != {nodes} or len(self.roots) < 2:
            return "its arrays do not fit each other"
        if self.roots[0] != 0 or self.roots[-1] != nodes or (np.diff(self.roots) < 1).any():
            return "its trees do not follow each other"
        node = np.arange(nodes)
        end = np.repeat(self.roots[1:], np.diff(self.roots))
        inner = self.right != 0
        if (inner & ((self.right <= node + 1) | (self.right >= end))).any():
            return "a node leads out of its tree"
        if (self.feature >= max(len(self.names), 1)).any():
            return "a node looks at a feature that has no name"
        leaf = self.number[~inner]
        if not ((leaf >= 0) & (leaf <= 1)).all() or np.isnan(self.number).any():
            return "a leaf holds no probability"
        return None if np.isfinite(self.calibration).all() else "its calibration is not finite"


def log_odds(votes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the log-odds of votes, kept off 0 and 1."""
    p = np.clip(votes, _SMALLEST, 1 - _SMALLEST)
    return np.asarray(np.log(p / (1 - p)))


def join_trees(trees: Sequence[dict[str, NDArray[Any]]]) -> dict[str, Any]:
    """Return the arrays of a forest from those of its trees, whose ``right`` count within the tree."""
    roots = np.cumsum([0, *(len(tree["feature"]) for tree in trees)])
    right = [np.where(tree["right"] > 0, tree["right"] + root, 0) for tree, root in zip(trees, roots[:-1], strict=True)]
    columns = {name: np.concatenate([tree[name] for tree in trees]) for name in ("feature", "number", "missing_left")}
    joined = {"roots": roots, "right": np.concatenate(right), **columns}
    return {name: np.ascontiguousarray(joined[name], dtype) for name, dtype in _DTYPES.items()}


@compiled()
def _add_votes(
    values: NDArray[np.float32],
    roots: NDArray[np.int64],
    feature: NDArray[np.uint8],
    number: NDArray[np.float32],
    right: NDArray[np.int32],
    missing_left: NDArray[np.uint8],
    result: NDArray[np.float64],
) -> None:
    # a tree stays in the cache while all edges pass it; an edge's sum runs over the trees in order all the same
    for tree in range(len(roots) - 1):
        for edge in range(len(values)):
            node = roots[tree]
            while right[node] != 0:
                x = values[edge, feature[node]]
                left = missing_left[node] != 0 if np.isnan(x) else x <= number[node]
                node = node + 1 if left else np.int64(right[node])
            result[edge] += number[node]


@compiled()
def _calibrate(votes: NDArray[np.float64], slope: float, intercept: float) -> None:
    # one by one: vectorised logarithms may round differently at the end of an array
    for edge in range(len(votes)):
        p = min(max(votes[edge], _SMALLEST), 1 - _SMALLEST)
        votes[edge] = 1 / (1 + np.exp(-(slope * np.log(p / (1 - p)) + intercept)))
