import resource
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from vimvol.engine.cluster import open_cluster
from vimvol.geometry import Block
from vimvol.infer.predictor import Predictor
from vimvol.infer.standardization import Standardization
from vimvol.infer.tiles import make_tiling
from vimvol.models import memory
from vimvol.models.memory import kept_memory

pytestmark = pytest.mark.skipif(memory._glibc() is None, reason="another C library than glibc")

SIZE = 72 << 20
"""Bytes of a map; more than glibc keeps by itself, and than a heap of a thread other than the main one holds."""

ROUNDS = 5
"""Passes of a network; the first few may find the free memory in pieces that do not fit yet."""


def faults(action) -> int:
    """Return how many pages the system had to give this thread."""
    before = resource.getrusage(resource.RUSAGE_THREAD).ru_minflt
    action()
    return resource.getrusage(resource.RUSAGE_THREAD).ru_minflt - before


def held() -> int:
    """Return the bytes that this process holds."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def use_maps() -> None:
    maps = [torch.zeros(SIZE, dtype=torch.uint8) for _ in range(2)]
    del maps


def use_them_again() -> None:
    for _ in range(ROUNDS):
        use_maps()


def usual_and_kept() -> tuple[int, int]:
    """Return the pages that using memory again and again takes, without and with keeping it."""
    usual = faults(use_them_again)
    with kept_memory():
        use_them_again()
        # the best of several: until what other threads hold lies out of the way, maps find no room side by side
        return usual, min(faults(use_them_again) for _ in range(4))


def test_memory_is_kept_within_and_given_back_behind() -> None:
    for _ in range(2):
        usual, kept = usual_and_kept()
        assert kept < usual / 2
    before = held()
    with kept_memory():
        use_them_again()
        assert held() > before + 1.5 * SIZE
    assert held() < before + 0.5 * SIZE


def test_it_ends_with_the_last_user() -> None:
    with kept_memory():
        with pytest.raises(ValueError, match="wrong"), kept_memory():
            raise ValueError("wrong")
        use_them_again()
        kept = min(faults(use_them_again) for _ in range(4))
    assert memory._users == 0
    assert kept < faults(use_them_again) / 2


def test_another_system_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert memory._glibc.__wrapped__() is None


class Large(nn.Module):
    """A network that allocates maps, and counts the pages of every pass."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[int] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen.append(faults(use_maps))
        return x


def test_a_block_is_predicted_in_the_memory_of_its_first_tiles() -> None:
    shape = (ROUNDS, 16, 16)
    tiling, whole, model = make_tiling(shape, (16, 16), (4, 4), 4), Block.whole(shape), Large()
    usual = faults(use_them_again)
    before = held()
    Predictor(model, torch.device("cpu"), batch=1).predict_block(
        np.zeros(shape, np.uint8), whole, whole, tiling, Standardization((0.0,), (1.0,)), 1
    )
    assert len(model.seen) == ROUNDS
    # at least one pass finds all of its memory there; the first ones need not
    assert min(model.seen) < usual / ROUNDS / 2
    assert held() < before + 0.5 * SIZE


def test_so_it_is_in_the_thread_of_a_worker() -> None:
    with open_cluster("local", 1) as pool:
        pool.submit(usual_and_kept)
        usual, kept = pool.next_done()[1]
    assert kept < 0.9 * usual  # in a heap of another thread nothing is kept at all


def test_several_threads_may_keep_at_once() -> None:
    def work(_: int) -> float:
        with kept_memory():
            return float(torch.ones(1 << 20).sum())

    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(work, range(40))) == [1 << 20] * 40
    assert memory._users == 0
