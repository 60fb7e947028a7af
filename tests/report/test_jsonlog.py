import json
import logging
from pathlib import Path

import pytest

from vimvol.errors import InputError
from vimvol.report.jsonlog import PACKAGE, JsonLog


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_what_happens_and_what_the_package_says_is_appended(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    for _ in range(2):
        with JsonLog(str(path)) as log:
            log.write("stage begins", stage="predict", blocks=3)
            assert len(lines(path)) % 3 == 1  # at once
            logging.getLogger("vimvol.engine.dask_pool").info("worker %s is gone", "tcp://a")
    found = lines(path)
    assert [line["event"] for line in found] == ["stage begins", "info", "run ends"] * 2
    assert found[0] == {"time": found[0]["time"], "event": "stage begins", "stage": "predict", "blocks": 3}
    assert found[1]["text"] == "worker tcp://a is gone"
    assert found[2]["state"] == "complete"
    assert [line["time"] for line in found] == sorted(line["time"] for line in found)
    assert not PACKAGE.handlers


@pytest.mark.parametrize(
    ("error", "ending"),
    [
        (ValueError("broken"), {"state": "failed", "error": "ValueError: broken"}),
        (KeyboardInterrupt(), {"state": "stopped"}),
    ],
)
def test_how_a_run_ended_is_the_last_line(tmp_path: Path, error: BaseException, ending: dict) -> None:
    path = tmp_path / "log.jsonl"
    with pytest.raises(type(error)), JsonLog(str(path)):
        raise error
    last = lines(path)[-1]
    assert {key: last[key] for key in last if key not in ("time", "event")} == ending


def test_a_log_that_cannot_be_written_is_refused_before_anything_else(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be written"):
        JsonLog(str(tmp_path / "no" / "folder"))


def test_a_log_whose_disk_is_full_ends_no_run(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full on this system")
    with JsonLog("/dev/full") as log:
        log.write("one")
        log.write("two")
    assert [record.message.split(",")[0] for record in caplog.records] == ["the log ends here"]
    assert not PACKAGE.handlers


def test_no_log_writes_nothing(tmp_path: Path) -> None:
    with JsonLog(None) as log:
        log.write("one")
    assert not list(tmp_path.iterdir())
