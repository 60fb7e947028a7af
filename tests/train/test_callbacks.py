import io
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from rich.console import Console

from vimvol.train.callbacks import CAPTION, SaveBetween, Stopping, StopRequest, draw_sample
from vimvol.train.progress import ProgressLines


class Strategy:
    """Stands for two devices, of which the other one has its own answers."""

    root_device = torch.device("cpu")

    def __init__(self, other: tuple[bool, ...]) -> None:
        self.other, self.reductions = other, 0

    def reduce(self, tensor: torch.Tensor, reduce_op: str) -> torch.Tensor:
        assert reduce_op == "sum"
        self.reductions += 1
        return tensor + torch.tensor(self.other, dtype=tensor.dtype)


@pytest.mark.parametrize("world", [1, 2])
@pytest.mark.parametrize("stop", [(False, False), (True, False), (False, True)])
@pytest.mark.parametrize("due", [(False, False), (True, False), (False, True)])
def test_devices_agree_on_saving_and_stopping_in_one_reduction(tmp_path, world, stop, due):
    saved: list[Path] = []
    strategy = Strategy((stop[1], due[1]))
    progress = SimpleNamespace(batch_progress=SimpleNamespace(is_last_batch=False))
    trainer = SimpleNamespace(
        world_size=world,
        strategy=strategy,
        fit_loop=SimpleNamespace(epoch_loop=progress),
        save_checkpoint=saved.append,
    )
    request = StopRequest()
    request.signal = 15 if stop[0] else None
    callback = SaveBetween(str(tmp_path), -1.0 if due[0] else 60.0, request)
    try:
        callback.on_train_batch_end(trainer, None)
        left = False
    except Stopping:
        left = True
    assert left == any(stop[:world])
    assert bool(saved) == any((*stop[:world], *due[:world]))
    assert strategy.reductions == world - 1


def told(seconds_a_step: float, steps: int, *, first: bool = True) -> list[str]:
    """Return the lines of a training without validations."""
    text, now = io.StringIO(), [0.0]
    lines = ProgressLines(steps, Console(file=text, soft_wrap=True), lambda: now[0])
    trainer = SimpleNamespace(global_step=0, is_global_zero=first, strategy=Strategy(()))
    lines.on_train_start(trainer, None)
    for step in range(steps):
        now[0] += seconds_a_step
        trainer.global_step = step + 1
        lines.on_train_batch_end(trainer, None, {"loss": torch.tensor(0.5)})
    return text.getvalue().splitlines()


def test_steps_are_told_soon_and_then_at_a_modest_rate():
    lines = told(1.0, 1000)
    assert lines[:2] == [
        "training: step 0/1000, on cpu",
        "step 10/1000  loss 0.500  1.00 steps/s  0:16:30 left",
    ]
    assert [int(line.split()[1].split("/")[0]) for line in lines[2:]] == list(range(70, 1001, 60))
    assert [int(line.split()[1].split("/")[0]) for line in told(1.0, 150)[1:]] == list(range(10, 151, 15))
    assert len(told(0.01, 100)) == 1
    assert told(1.0, 1000, first=False) == []


def test_panels_of_a_picture_have_captions():
    raw, two = np.zeros((1, 40, 90), np.float32), np.zeros((2, 40, 90), np.float32)
    picture = draw_sample(raw, two, two, ("foreground", "boundary"))
    assert picture.shape == (2 * (40 + CAPTION), 3 * 90, 3)
    above = [picture[top : top + CAPTION, left : left + 90] for top in (0, 40 + CAPTION) for left in (0, 90, 180)]
    assert [bool((strip < 128).any()) for strip in above] == [True, True, True, False, True, True]  # of the blank, none
    assert not np.array_equal(above[1], above[2])
    assert not np.array_equal(above[1], above[4])
