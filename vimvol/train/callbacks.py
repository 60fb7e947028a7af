"""What happens beside the training: checkpoints between validations, stopping at once, pictures."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import lightning
import numpy as np
import torch
from matplotlib import image as images
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from vimvol.train.export import LAST
from vimvol.train.module import BoundaryModule
from vimvol.train.targets import TARGETS

PICTURE_WIDTH = 512
"""Voxels (y, x) of a slice that a picture shows at most."""
CAPTION = 30
"""Pixels above a panel of a picture for its name."""


class StopRequest:
    """Whether somebody asked this process to stop, and how.

    Within `listening`, SIGINT and SIGTERM (Ctrl-C, the end of a batch job) are only noted, so that the training can
    save the step that it is in; a second one acts at once. Behind it the noted signal takes its course.
    """

    def __init__(self) -> None:
        self.signal: int | None = None

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Note signals inside; let the first one act as it would have behind it. Only the main thread can."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        numbers = (signal.SIGINT, signal.SIGTERM)
        before = {number: signal.getsignal(number) for number in numbers}

        def note(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - the signature of a signal handler
            self.signal = number
            for each in numbers:
                signal.signal(each, before[each])

        for number in numbers:
            signal.signal(number, note)
        try:
            yield
        finally:
            for number in numbers:
                signal.signal(number, before[number])
        if self.signal is not None:
            signal.raise_signal(self.signal)


class Stopping(BaseException):
    """Leaves Lightning after the checkpoint of a stop is written; nothing that handles errors holds it up."""


class SaveBetween(lightning.Callback):
    """Write ``last.ckpt`` now and then between validations, and at once when a stop is requested.

    Parameters
    ----------
    folder
        Where it goes.
    minutes
        Longest time between two checkpoints.
    request
        Tells of a stop.
    """

    def __init__(self, folder: str, minutes: float, request: StopRequest) -> None:
        self.path = Path(folder) / LAST
        self.seconds = minutes * 60
        self.request = request
        self._saved = time.monotonic()

    def on_train_start(self, trainer: lightning.Trainer, pl_module: Any) -> None:  # noqa: ANN401, ARG002
        """Start the clock."""
        self._saved = time.monotonic()

    def on_train_batch_end(self, trainer: lightning.Trainer, pl_module: Any, *rest: Any) -> None:  # noqa: ANN401, ARG002
        """Save if it is time; leave if a stop is requested."""
        overdue = time.monotonic() - self._saved > self.seconds
        stop, due = self._agreed(trainer, self.request.signal is not None, overdue)
        # Behind the last step of an epoch comes a validation, which saves by itself and must not be skipped.
        if (stop or due) and not trainer.fit_loop.epoch_loop.batch_progress.is_last_batch:
            trainer.save_checkpoint(self.path)
            self._saved = time.monotonic()
            if stop:
                raise Stopping

    def on_train_batch_start(self, trainer: lightning.Trainer, *rest: Any) -> None:  # noqa: ANN401, ARG002
        """Leave if a stop was requested during the validation that has just been saved."""
        first = trainer.fit_loop.epoch_loop.batch_progress.current.ready == 1
        if first and any(self._agreed(trainer, self.request.signal is not None)):
            raise Stopping

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: Any) -> None:  # noqa: ANN401, ARG002
        """Start the clock again: the validation has saved."""
        self._saved = time.monotonic()

    @staticmethod
    def _agreed(trainer: lightning.Trainer, *mine: bool) -> list[bool]:
        """Let all devices do what one wants to; otherwise one would leave while the others wait for it.

        Every device waits here for the slowest, so all answers go in one reduction.
        """
        if trainer.world_size == 1:
            return list(mine)
        flags = torch.tensor(mine, dtype=torch.int32, device=trainer.strategy.root_device)
        return [count > 0 for count in trainer.strategy.reduce(flags, reduce_op="sum").tolist()]


class Pictures(lightning.Callback):
    """Draw raw, target and prediction of the first slice of every source, after a number of validations each.

    Parameters
    ----------
    folder
        Where PNG files go, ``step-00000500-NAME.png``; they go to TensorBoard, too, if it is on.
    every
        Validations from one picture to the next.
    """

    def __init__(self, folder: Path, every: int) -> None:
        self.folder = folder
        self.every = every

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: Any) -> None:  # noqa: ANN401
        """Draw, if it is time."""
        assert isinstance(pl_module, BoundaryModule)
        number = -(-trainer.global_step // pl_module.config.validate_every)
        if not trainer.is_global_zero or trainer.sanity_checking or number % self.every:
            return
        self.folder.mkdir(exist_ok=True)
        for name, sample in pl_module.samples.items():
            classes = TARGETS[pl_module.config.target].classes
            image, target, prediction = (sample[key].numpy() for key in ("image", "target", "prediction"))
            picture = draw_sample(image, target, prediction, classes)
            images.imsave(self.folder / f"step-{trainer.global_step:08d}-{name}.png", picture)
            for logger in trainer.loggers:
                draw = getattr(getattr(logger, "experiment", None), "add_image", None)
                if draw is not None:
                    draw(f"prediction/{name}", picture, trainer.global_step, dataformats="HWC")


def draw_sample(
    raw: NDArray[np.float32], target: NDArray[np.float32], prediction: NDArray[np.float32], classes: Sequence[str]
) -> NDArray[np.uint8]:
    """Return raw, targets and, below, predictions of a slice side by side, each under its name.

    Parameters
    ----------
    raw
        (1, y, x) standardised intensities.
    target, prediction
        (c, y, x) in [0, 1].
    classes
        What each of the c is.

    Returns
    -------
    NDArray
        (rows, columns, 3) uint8: raw and the channels of the target above, a blank and those of the prediction below.
    """
    cut = (slice(None), slice(PICTURE_WIDTH), slice(PICTURE_WIDTH))
    low, high = np.percentile(raw, (1, 99))
    grey = ((raw[cut] - low) / max(float(high - low), 1e-6)).clip(0, 1)
    blank = np.ones_like(grey)
    rows = []
    for first, name, what, values in ((grey, "raw", "target", target), (blank, "", "prediction", prediction)):
        captions = (name, *(f"{what}\n{each}" for each in classes))
        rows.append(np.concatenate(list(map(_captioned, (first[0], *values[cut]), captions)), axis=1))
    return np.repeat(np.concatenate(rows)[..., None], 3, axis=2)


def _captioned(panel: NDArray[np.float32], text: str) -> NDArray[np.uint8]:
    """Return a panel, (y, x) in [0, 1], as uint8 under a white strip with a text of up to two lines."""
    strip = Image.new("L", (panel.shape[1], CAPTION), 255)
    ImageDraw.Draw(strip).multiline_text((3, 2), text, fill=0, font=ImageFont.load_default(CAPTION / 2.5), spacing=2)
    return np.concatenate([np.asarray(strip), np.rint(panel.clip(0, 1) * 255).astype(np.uint8)])
