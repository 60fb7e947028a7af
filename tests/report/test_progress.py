import io

import pytest
from rich.console import Console

from vimvol.report.amounts import clock_text, count_text, parts_text
from vimvol.report.progress import Counter, Lines, Live, make_progress, silent


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_rates_count_what_this_run_did() -> None:
    clock = Clock()
    counter = Counter("predict", 100, 90, clock)
    assert counter.eta is None
    clock.now = 4.0
    counter.advance(2, 8_000_000)
    assert counter.rate == pytest.approx(2.0)
    assert counter.describe() == "2.00 MVox/s, ETA --:--"
    clock.now = 8.0
    counter.advance(2, 8_000_000)
    assert counter.eta == pytest.approx(6 * 4.0 / 2)
    assert counter.describe() == "2.00 MVox/s, ETA 0:12"


def test_a_stage_of_fewer_than_two_blocks_a_worker_still_tells_the_remaining_time() -> None:
    clock = Clock()
    counter = Counter("predict", 100, 0, clock, 64)
    clock.now = 30.0
    counter.advance(64, 1)
    assert counter.eta is None
    clock.now = 40.0
    counter.advance(18, 1)
    assert counter.eta == pytest.approx(10.0)


def test_the_first_block_of_each_worker_which_loads_and_compiles_does_not_count_for_the_remaining_time() -> None:
    clock = Clock()
    counter = Counter("predict", 20, 0, clock, 2)
    etas = {}
    for now in (30.0, 31.0, 32.0, 33.0, 34.0, 35.0):  # 30 s of warm-up, then a block every 2 s by each of 2 workers
        clock.now = now
        counter.advance(1, 1)
        etas[now] = counter.eta
    assert [etas[now] for now in (30.0, 31.0, 32.0)] == [None, None, None]
    assert [etas[now] for now in (33.0, 34.0, 35.0)] == pytest.approx([16.0, 15.0, 14.0])


def test_plain_lines_come_at_the_begin_at_the_end_and_now_and_then() -> None:
    clock, stream = Clock(), io.StringIO()
    with Lines(stream, clock) as lines:
        lines.stage("predict", 100, 0, 100_000_000)
        for _ in range(100):
            clock.now += 0.5
            lines.advance(1, 1_000_000)
        lines.retry()
        lines.finish()
    text = stream.getvalue().splitlines()
    assert text[0] == "predict: 100 blocks, 100.0 MVox"
    assert text[1] == "predict: 20/100 blocks, 2.00 MVox/s, ETA 0:40"
    assert text[-1] == "predict: 100/100 blocks, 2.00 MVox/s, took 0:50, 1 retry"
    assert len(text) == 6


def test_the_remaining_time_is_told_as_soon_as_it_is_known_where_a_line_could_not_tell_it() -> None:
    clock, stream = Clock(), io.StringIO()
    lines = Lines(stream, clock)
    for name in ("predict", "fragments"):
        lines.stage(name, 6, 0, 6_000_000, 2)
        for seconds in (11.0, 0.0, 4.0, 0.0, 4.0, 0.0):  # pairs of blocks, as of two workers
            clock.now += seconds
            lines.advance(1, 1_000_000)
        lines.finish()
    text = stream.getvalue().splitlines()
    told = [line.split(" blocks, ")[1].split(", ")[-1] for line in text if "/6 blocks" in line]
    assert told == ["ETA --:--", "ETA 0:04", "took 0:19"] * 2
    assert text[2].startswith("predict: 4/6 blocks")


def test_a_resumed_stage_says_what_was_there() -> None:
    stream = io.StringIO()
    lines = Lines(stream, Clock())
    lines.stage("write", 10, 7, 1_000_000)
    assert "7 done before" in stream.getvalue()


def test_a_slow_stage_is_not_silent_for_more_than_a_minute() -> None:
    clock, stream = Clock(), io.StringIO()
    lines = Lines(stream, clock)
    lines.stage("predict", 1000, 0, 1_000_000_000)
    for _ in range(10):
        clock.now += 30.0
        lines.advance(1, 1_000_000)
    assert len(stream.getvalue().splitlines()) == 1 + 5


def test_a_stage_that_was_done_before_reports_no_rate() -> None:
    clock, stream = Clock(), io.StringIO()
    lines = Lines(stream, clock)
    lines.stage("write", 10, 10, 1_000_000)
    clock.now = 0.2
    lines.finish()
    assert stream.getvalue().splitlines()[-1] == "write: 10/10 blocks, took 0:00"


def test_a_stage_that_is_cut_short_says_so() -> None:
    clock, stream = Clock(), io.StringIO()
    lines = Lines(stream, clock)
    lines.stage("write", 10, 5, 1_000_000)
    clock.now = 2.0
    lines.advance(1, 1_000_000)
    lines.retry()
    lines.retry()
    lines.finish()
    assert stream.getvalue().splitlines()[-1] == "write: 6/10 blocks, 0.50 MVox/s, stopped after 0:02, 2 retries"


def draw_live(*, finish: bool) -> str:
    clock, stream = Clock(), io.StringIO()
    with Live(Console(file=stream, force_terminal=True, width=120), clock) as live:
        live.stage("predict", 6, 1, 6_000_000)
        for now in (1.0, 2.0):
            clock.now = now
            live.advance(1, 1_000_000)
        live.retry()
        if finish:
            live.advance(3, 3_000_000)
            live.finish()
            clock.now = 100.0  # the clock of a finished stage stands still
    return stream.getvalue().rsplit("\r", 1)[-1]  # as it was drawn last


def test_the_live_line_shows_name_count_rate_and_eta() -> None:
    line = draw_live(finish=False)
    assert "predict" in line
    assert "3/6" in line
    assert "1.00 MVox/s, ETA 0:03, 1 retry" in line


def test_the_live_line_of_a_finished_stage_stays() -> None:
    assert "2.50 MVox/s, took 0:02, 1 retry" in draw_live(finish=True)


def test_what_suits_a_file_is_plain_lines() -> None:
    assert isinstance(make_progress(), Lines)  # the test runner's standard error is no terminal


def test_the_silent_one_says_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    with silent() as progress:
        progress.stage("predict", 4, 0, 4)
        progress.advance(1, 1)
        progress.retry()
        progress.finish()
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00"), (59.6, "1:00"), (3661, "1:01:01")])
def test_clock_text(seconds: float, text: str) -> None:
    assert clock_text(seconds) == text


@pytest.mark.parametrize(
    ("parts", "text"),
    [
        ({}, "60 s"),
        ({"in the stages": 0.2}, "60 s"),
        (
            {"for the sample": 0.0, "in the stages": 9.4, "for the picture": 5.6},
            "60 s: 45 to start, 9 in the stages, 6 for the picture",
        ),
        ({"in the stages": 59.8}, "60 s: 60 in the stages"),
    ],
)
def test_what_a_time_went_to_adds_up(parts: dict[str, float], text: str) -> None:
    assert parts_text(60.0, parts, "to start") == text


def test_idle_workers_are_told_while_a_stage_runs_and_not_at_its_end() -> None:
    clock, stream = Clock(), io.StringIO()
    lines = Lines(stream, clock)
    lines.stage("predict", 4, 0, 4_000_000)
    lines.idle(3)
    clock.now = 60.0
    lines.advance(2, 2_000_000)
    lines.finish()
    text = stream.getvalue().splitlines()
    assert text[1:] == [
        "predict: 2/4 blocks, 0.03 MVox/s, ETA --:--, 3 idle",
        "predict: 2/4 blocks, 0.03 MVox/s, stopped after 1:00",
    ]


def test_one_thing_is_no_several():
    assert [count_text(n, "case") for n in (0, 1, 2)] == ["0 cases", "1 case", "2 cases"]
    assert [count_text(n, "hole was", "holes were") for n in (1, 2)] == ["1 hole was", "2 holes were"]
