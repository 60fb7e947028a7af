"""One line now and then on how far a training is."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import lightning
from rich.console import Console

SOON = 10.0
"""Seconds between two lines while that is a tenth of all steps, and before the first."""
SHARE = 0.1
LONGEST_SILENCE = 60.0
"""Seconds between two lines otherwise."""


class ProgressLines(lightning.Callback):
    """Tell what begins; step, loss, speed and the time that is left; and the scores after every validation.

    Of several devices the first tells.

    Parameters
    ----------
    steps
        Optimiser steps in all.
    console
        Where lines go; none: standard error.
    clock
        Seconds, from any time on.
    """

    def __init__(self, steps: int, console: Console | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.steps = steps
        self.console = console or Console(stderr=True, highlight=False, soft_wrap=True)
        self._started = self._told = self._clock()
        self._first = self._line = 0
        self._lines = 0

    def on_train_start(self, trainer: lightning.Trainer, pl_module: Any) -> None:  # noqa: ANN401, ARG002
        """Start the clock at the step that the training goes on from, and tell it."""
        self._started = self._told = self._clock()
        self._first = self._line = trainer.global_step
        if trainer.is_global_zero:
            self.console.print(f"training: step {self._first}/{self.steps}, on {trainer.strategy.root_device}")

    def on_train_batch_end(self, trainer: lightning.Trainer, pl_module: Any, outputs: Any, *rest: Any) -> None:  # noqa: ANN401, ARG002
        """Tell the progress, if the last line is old enough."""
        now, done = self._clock(), trainer.global_step
        silence, share = now - self._told, (done - self._line) / self.steps
        due = silence >= SOON and (share >= SHARE or not self._lines)
        if not trainer.is_global_zero or not (due or silence >= LONGEST_SILENCE):
            return
        self._told, self._line = now, done
        self._lines += 1
        speed = (done - self._first) / (now - self._started)
        left = timedelta(seconds=round((self.steps - done) / speed)) if speed > 0 else "unknown"
        self.console.print(
            f"step {done}/{self.steps}  loss {float(outputs['loss']):.3f}  {speed:.2f} steps/s  {left} left"
        )

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: Any) -> None:  # noqa: ANN401, ARG002
        """Tell the scores."""
        if not trainer.is_global_zero:
            return
        scores = "  ".join(f"{k} {float(v):.3f}" for k, v in trainer.callback_metrics.items() if k.startswith("val/"))
        self.console.print(f"step {trainer.global_step}/{self.steps}  {scores}")
