import io

from rich.console import Console

from vimvol.report import transfer
from vimvol.report.transfer import Transfers


def lines(monkeypatch, clock):
    monkeypatch.setattr(transfer.time, "monotonic", lambda: next(clock))
    out = io.StringIO()
    with Transfers(Console(file=out)) as told:
        for have in (1_000_000, 2_000_000, 3_000_000):
            told("a.hdf", have, 3_000_000)
    return out.getvalue().splitlines()


def test_lines_come_now_and_then_and_at_the_end(monkeypatch):
    assert lines(monkeypatch, iter([0.0, 1.0, 2.0])) == ["a.hdf  3.0 of 3.0 MB"]
    assert lines(monkeypatch, iter([0.0, 11.0, 12.0])) == ["a.hdf  2.0 of 3.0 MB", "a.hdf  3.0 of 3.0 MB"]


def test_a_terminal_gets_bars():
    out = io.StringIO()
    with Transfers(Console(file=out, force_terminal=True, width=80)) as told:
        told("a.hdf", 5, None)
        told("b.zip, unpacked", 3, 4)
    assert "a.hdf" in out.getvalue()
    assert "3 of 4" in out.getvalue()
