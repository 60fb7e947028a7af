"""One line now and then on how far a training is."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Any

import lightning
from rich.console import Console

EVERY = 60.0
"""Seconds between two lines."""


class ProgressLines(lightning.Callback):
    """Tell step, loss, speed and the time that is left; and the scores after every validation.

    Parameters
    ----------
    steps
        Optimiser steps in all.
    console
        Where lines go; none: standard error.
    """

    def __init__(self, steps: int, console: Console | None = None) -> None:
        self.steps = steps
        self.console = console or Console(stderr=True, highlight=False, soft_wrap=True)
        self._started = self._told = time.monotonic()
        self._first = 0

    def on_train_start(self, trainer: lightning.Trainer, pl_module: Any) -> None:  # noqa: ANN401, ARG002
        """Start the clock at the step that the training goes on from."""
        self._started = self._told = time.monotonic()
        self._first = trainer.global_step

    def on_train_batch_end(self, trainer: lightning.Trainer, pl_module: Any, outputs: Any, *rest: Any) -> None:  # noqa: ANN401, ARG002
        """Tell the progress, if the last line is old enough."""
        now = time.monotonic()
        if now - self._told < EVERY:
            return
        self._told = now
        done = trainer.global_step
        speed = (done - self._first) / (now - self._started)
        left = timedelta(seconds=round((self.steps - done) / speed)) if speed > 0 else "unknown"
        self.console.print(
            f"step {done}/{self.steps}  loss {float(outputs['loss']):.3f}  {speed:.2f} steps/s  {left} left"
        )

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: Any) -> None:  # noqa: ANN401, ARG002
        """Tell the scores."""
        scores = "  ".join(f"{k} {float(v):.3f}" for k, v in trainer.callback_metrics.items() if k.startswith("val/"))
        self.console.print(f"step {trainer.global_step}/{self.steps}  {scores}")
