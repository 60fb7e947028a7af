import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vimvol.errors import InputError
from vimvol.segment.features import Features, feature_names
from vimvol.segment.forest import Forest
from vimvol.train.edges import _fitted, train_forest

NAMES = feature_names()[:6]


def problem(n, seed=0):
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(n, len(NAMES))) * 10.0 ** np.arange(-3, 3)
    cut = rng.random(n) < 1 / (1 + np.exp(-3 * np.sign(values[:, 0]) - values[:, 1] / values[:, 1].std()))
    values[rng.random(values.shape) < 0.2] = np.nan
    # values on thresholds are as likely as others
    values[:, 2] = np.round(rng.normal(size=n), 1)
    return Features(NAMES, values), cut


@pytest.fixture(scope="module")
def trained():
    features, cut = problem(1500)
    return (*train_forest(features, cut), features, cut)


def test_the_votes_are_those_of_scikit_learn(trained):
    forest, _, features, cut = trained
    model, used = _fitted(features, cut)
    for seed in range(3):
        others = problem(2000, seed + 1)[0]
        expected = model.predict_proba(others.values.astype(np.float32))[:, 1]
        assert np.abs(forest.votes(others) - expected).max() < 1e-6
    assert used.names == forest.names


def test_the_file_gives_the_forest_back(trained):
    forest, _, features, _ = trained
    forest = dataclasses.replace(forest, card={"data": "synthetic"})
    again = Forest.from_bytes(forest.to_bytes())
    assert again.to_bytes() == forest.to_bytes()
    assert again.card == {"data": "synthetic"}
    assert again.probability(features).tobytes() == forest.probability(features).tobytes()


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=20)
def test_an_edge_costs_the_same_whatever_stands_beside_it(trained, seed):
    forest, _, features, _ = trained
    rng = np.random.default_rng(seed)
    chosen = rng.permutation(len(features.values))[: rng.integers(1, 50)]
    columns = rng.permutation(len(NAMES))
    part = Features(tuple(NAMES[i] for i in columns), features.values[chosen][:, columns])
    assert forest.probability(part).tobytes() == forest.probability(features)[chosen].tobytes()


def test_calibration_helps_on_edges_not_seen(trained):
    forest = trained[0]
    features, cut = problem(20000, 77)

    def loss(p):
        p = np.clip(p, 1e-3, 1 - 1e-3)
        return -np.log(np.where(cut, p, 1 - p)).mean()

    votes, calibrated = forest.votes(features), forest.probability(features)
    assert loss(calibrated) < loss(votes) - 0.01
    assert abs(calibrated.mean() - cut.mean()) < 0.03


def test_importances_name_what_tells_edges_apart(trained):
    _, importances, _, _ = trained
    assert sum(importances.values()) == pytest.approx(1)
    assert set(list(importances)[:2]) == set(NAMES[:2])


def test_training_is_repeatable_and_leaves_out_what_no_edge_has():
    features, cut = problem(400)
    features.values[:, 4] = np.nan
    first, second = (train_forest(features, cut)[0] for _ in range(2))
    assert first.to_bytes() == second.to_bytes()
    assert NAMES[4] not in first.names


def test_edges_of_one_kind_teach_nothing():
    features, cut = problem(50)
    for all_of_them in (np.zeros_like(cut), np.ones_like(cut)):
        with pytest.raises(InputError, match="all 50 annotated edges lie"):
            train_forest(features, all_of_them)


def broken(forest, **changes):
    arrays = {name: getattr(forest, name).copy() for name in ("roots", "feature", "number", "right", "missing_left")}
    for name, (at, value) in changes.items():
        arrays[name][at] = value
    return arrays


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"right": (0, 1)}, "out of its tree"),
        ({"right": (0, 2**30)}, "out of its tree"),
        ({"right": (-1, 5)}, "out of its tree"),
        ({"feature": (0, 200)}, "no name"),
        ({"number": (-1, 1.5)}, "no probability"),
        ({"number": (-1, np.nan)}, "no probability"),
        ({"roots": (0, 3)}, "do not follow"),
    ],
)
def test_trees_that_cannot_be_walked_are_refused(trained, change, match):
    with pytest.raises(ValueError, match=match):
        dataclasses.replace(trained[0], **broken(trained[0], **change))


def test_files_of_something_else_are_refused(trained):
    data = trained[0].to_bytes()
    undescribed = data.replace(b"calibration", b"kalibration")
    for bad in (b"", b"no such thing", data[:-1], data[: len(data) // 2], undescribed):
        with pytest.raises(ValueError, match=r"no intact|holds something|description is broken"):
            Forest.from_bytes(bad)
