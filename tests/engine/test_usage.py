import threading
import time
from pathlib import Path

import numpy as np
import pytest

from vimvol.engine.usage import Meter, Usage

linux = pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="told by /proc of Linux alone")
LARGE = 1 << 27


@linux
def test_the_peak_of_a_stage_is_its_own() -> None:
    meter = Meter()
    peaks = []
    for stage in ("large", "large", "small"):
        meter.begin(stage)
        if not peaks:
            np.ones(LARGE, np.uint8).sum()
        peaks.append(meter.take().peak)
        meter.end()
    assert peaks[0] == peaks[1]
    assert peaks[0] - peaks[2] > 0.9 * LARGE


@linux
def test_bytes_are_those_that_files_gave_and_took(tmp_path: Path) -> None:
    meter = Meter()
    meter.begin("files")
    (tmp_path / "a").write_bytes(b"x" * 1_000_000)
    first = meter.take()
    (tmp_path / "a").read_bytes()
    second = meter.take()
    meter.end()
    assert 1_000_000 <= first.written < 1_010_000
    assert second.written < 10_000
    assert 1_000_000 <= second.read < 1_010_000


def test_what_two_calls_take_at_once_is_counted_once() -> None:
    meter, both = Meter(), threading.Barrier(2)
    found = []

    def call() -> None:
        meter.begin("predict")
        both.wait()
        sum(range(2_000_000))
        found.append(meter.take())
        both.wait()
        meter.end()

    threads = [threading.Thread(target=call) for _ in range(2)]
    begin = time.process_time()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 0 < sum(usage.cpu for usage in found) <= time.process_time() - begin


def test_usages_add_up_and_keep_the_greatest_peak() -> None:
    assert Usage(1.0, 5, 1, 2) + Usage(2.0, 3, 10, 20) == Usage(3.0, 5, 11, 22)
