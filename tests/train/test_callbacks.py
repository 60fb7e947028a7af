from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from vimvol.train.callbacks import SaveBetween, Stopping, StopRequest


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
