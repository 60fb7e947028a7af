"""The draws of a tuning: values of parameters, guided by the scores of those before.

The tree-structured Parzen estimator (Bergstra et al. 2011, "Algorithms for hyper-parameter optimization", NeurIPS) of
Optuna; the draws follow from the seed and the scores.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vimvol.errors import MissingExtraError, install_text
from vimvol.tuning.tunable import Objective, Parameter

WARM_UP = 10
"""Trials that are drawn at random, before scores guide them."""


class Draws:
    """Draws values, and learns from the scores they get.

    Parameters
    ----------
    space
        What is varied.
    objective
        What the scores are.
    seed
        Of the draws.

    Raises
    ------
    MissingExtraError
        If Optuna is not installed.
    """

    def __init__(self, space: Sequence[Parameter], objective: Objective, seed: int) -> None:
        try:
            import optuna
        except ImportError:
            raise MissingExtraError(
                f"tuning needs Optuna, which is not installed, so nothing is tried; {install_text('tune')}"
            ) from None
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._study = optuna.create_study(
            direction="maximize" if objective.more_is_better else "minimize",
            sampler=optuna.samplers.TPESampler(seed=seed, n_startup_trials=WARM_UP),
        )
        # places on the grid of a parameter: integers are the same in every table and file
        self._grid: dict[str, Any] = {
            p.key: optuna.distributions.IntDistribution(0, round((p.high - p.low) / p.step)) for p in space
        }
        self._space = space
        self._trial: Any = None

    def draw(self) -> dict[str, float]:
        """Return the next values."""
        self._trial = self._study.ask(self._grid)
        return {p.key: _value(p, self._trial.params[p.key]) for p in self._space}

    def learn(self, score: float) -> None:
        """Take the score of the values that were drawn last."""
        self._study.tell(self._trial, score)


def _value(parameter: Parameter, place: int) -> float:
    """Return the value at a place on the grid; an integer if the grid is one of integers."""
    value = parameter.low + place * parameter.step
    return value if isinstance(value, int) else round(value, 6)
