"""How the calls of a sample are waited for."""

import time
from collections.abc import Callable
from pathlib import Path

import distributed
import pytest

from vimvol.engine.dask_pool import DaskPool
from vimvol.engine.pool import OverdueError, SerialPool
from vimvol.preflight.probe import _all


def write_late(path: str, seconds: float) -> None:
    """Fail at once, or write after a while."""
    if not seconds:
        raise RuntimeError("broken on purpose")
    time.sleep(seconds)
    Path(path).touch()


def test_nothing_is_written_any_more_when_a_call_of_the_sample_has_failed(tmp_path: Path) -> None:
    options = {"n_workers": 1, "threads_per_worker": 2, "processes": False, "dashboard_address": None}
    with (
        distributed.LocalCluster(protocol="tcp", silence_logs=50, **options) as cluster,
        distributed.Client(cluster, set_as_default=False) as client,
    ):
        calls = [(str(tmp_path / "failed"), 0), (str(tmp_path / "late"), 1)]
        with pytest.raises(RuntimeError, match="on purpose"):
            _all(DaskPool(client), "CPU", write_late, calls, None)
        assert [path.name for path in tmp_path.iterdir()] == ["late"]


class Hanging(SerialPool):
    """Lets the first call hang until it is ended as overdue; `tests/engine/test_lost.py` has real ones."""

    def __init__(self, after: float) -> None:
        super().__init__()
        self.after, self.hung = after, True

    def next_within(self, seconds: float) -> tuple[int, object] | None:
        if not self.hung:
            return super().next_within(seconds)
        return None

    def end_overdue(self, allowed: Callable[[int], float]) -> None:
        if self.hung and allowed(1) <= self.after:
            self.hung = False
            self.submit(self.overdue)
            self._queue.popleft()

    def overdue(self) -> None:
        raise OverdueError("not finished")


@pytest.mark.parametrize(("deadline", "after"), [(2.0, 2.0), (None, 4000.0)])
def test_a_call_of_the_sample_that_hangs_is_ended(tmp_path: Path, deadline: float | None, after: float) -> None:
    pool = Hanging(after)
    with pytest.raises(OverdueError):
        _all(pool, "CPU", write_late, [(str(tmp_path / "hung"), 600)], deadline, 4_000_000)
    assert not list(tmp_path.iterdir())
