"""Training of the random forest that tells which edges to cut."""

from __future__ import annotations

import importlib.util
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vimvol.errors import InputError, MissingExtraError, install_text
from vimvol.segment.features import Features
from vimvol.segment.forest import Forest, join_trees, log_odds

TREES = 100
SMALLEST_LEAF = 20
"""Edges of a leaf at least: probabilities stay off 0 and 1, and a file below a megabyte."""


def train_forest(features: Features, cut: NDArray[np.bool_]) -> tuple[Forest, dict[str, float]]:
    """Train on edges of known truth; the same edges in the same order give the same forest.

    The votes are calibrated on the edges that a tree has not seen, its out-of-bag samples, by a logistic regression of
    their log-odds (Platt 1999, "Probabilistic outputs for support vector machines").

    Parameters
    ----------
    features
        Of E edges.
    cut
        (E,) whether an edge lies between two objects.

    Returns
    -------
    forest : Forest
        Without a card.
    importances : dict
        Mean decrease in impurity by feature, greatest first; their sum is 1.

    Raises
    ------
    MissingExtraError
        If scikit-learn is not installed.
    InputError
        If all edges are to be cut, or none.
    """
    model, used = _fitted(features, cut)
    votes = model.oob_decision_function_[:, 1]
    seen = np.isfinite(votes)
    calibration = _calibration(log_odds(votes[seen]), cut[seen])
    forest = Forest(
        used.names, **join_trees([_arrays(one.tree_) for one in model.estimators_]), calibration=calibration
    )
    order = np.argsort(-model.feature_importances_, kind="stable")
    return forest, {used.names[i]: float(model.feature_importances_[i]) for i in order}


def check_installed() -> None:
    """Refuse to learn without scikit-learn.

    Raises
    ------
    MissingExtraError
        If it is not installed.
    """
    if importlib.util.find_spec("sklearn") is None:
        raise MissingExtraError(f"scikit-learn is not installed, so edges cannot be learned; {install_text('edges')}")


def _fitted(features: Features, cut: NDArray[np.bool_]) -> tuple[Any, Features]:
    """Return the classifier of scikit-learn, and the features that it takes: those that some edge has."""
    check_installed()
    from sklearn.ensemble import RandomForestClassifier

    if cut.all() or not cut.any():
        what = "between two objects" if len(cut) and cut.all() else "inside one object"
        raise InputError(
            f"all {len(cut)} annotated edges lie {what}, so there is nothing to tell apart; give more ground truth"
        )
    there = ~np.isnan(features.values).all(axis=0)
    used = Features(tuple(np.array(features.names)[there].tolist()), features.values[:, there])
    model = RandomForestClassifier(
        TREES, min_samples_leaf=min(SMALLEST_LEAF, max(len(cut) // 10, 1)), oob_score=True, random_state=0, n_jobs=1
    )
    model.fit(used.values.astype(np.float32), cut)
    return model, used


def _calibration(odds: NDArray[np.float64], cut: NDArray[np.bool_]) -> tuple[float, float]:
    from sklearn.linear_model import LogisticRegression

    line = LogisticRegression(C=1e6).fit(odds[:, None], cut)
    return float(line.coef_[0, 0]), float(line.intercept_[0])


def _arrays(tree: Any) -> dict[str, NDArray[Any]]:  # noqa: ANN401 - scikit-learn has no types
    """Return one tree as `vimvol.segment.forest.join_trees` takes it."""
    nodes = tree.__getstate__()["nodes"]
    leaf = nodes["left_child"] < 0
    if (nodes["left_child"][~leaf] != np.flatnonzero(~leaf) + 1).any():
        raise ValueError("the nodes of a tree are not in depth-first order")
    # the greatest float32 up to a threshold parts numbers in float32 in the same way
    threshold = nodes["threshold"].astype(np.float32)
    above = threshold > nodes["threshold"]
    threshold[above] = np.nextafter(threshold[above], np.float32(-np.inf))
    weight = tree.value[:, 0]
    return {
        "feature": np.where(leaf, 0, nodes["feature"]),
        "number": np.where(leaf, weight[:, 1] / weight.sum(axis=1), threshold),
        "right": np.where(leaf, 0, nodes["right_child"]),
        "missing_left": np.where(leaf, 0, nodes["missing_go_to_left"]),
    }
