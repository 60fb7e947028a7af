import io

import pytest
from rich.console import Console

from vimvol.report.table import print_rows, print_scores


def test_scores_are_a_row_a_metric_and_a_column_a_protocol(capsys: pytest.CaptureFixture[str]) -> None:
    print_scores({"scores": {"volume": {"cremi": 0.5, "voi_split": 1.0}, "volume, band 2": {"cremi": 0.25}}})
    lines = capsys.readouterr().out.splitlines()
    assert "volume, band 2" in lines[0]
    assert lines[1].split()[:3] == ["VOI", "split,", "bits"]
    assert "0.500" in lines[2]
    assert "0.250" in lines[2]


def test_cells_are_printed_as_they_are_and_on_one_line() -> None:
    stream = io.StringIO()
    path = "s3://bucket/[bold]" + "x" * 300 + "[/x].zarr"
    print_rows(["path", "shape"], [[path, "(1, 2, 3)"], ["b", "(4, 5, 6)"]], Console(file=stream))
    lines = [line.split() for line in stream.getvalue().splitlines()]
    assert lines[1] == [path, "(1,", "2,", "3)"]
    assert [line.index("(") for line in stream.getvalue().splitlines()[1:]] == [len(path) + 2] * 2


def test_a_terminal_gets_folded_cells() -> None:
    stream = io.StringIO()
    print_rows(["path"], [["x" * 100]], Console(file=stream, force_terminal=True, width=40))
    assert stream.getvalue().count("x" * 40) == 2


def test_lines_end_with_what_they_tell_where_there_is_no_terminal() -> None:
    stream = io.StringIO()
    print_rows(["path", "state"], [["a", "done"], ["b", ""], ["c", "x"]], Console(file=stream))
    assert stream.getvalue() == "path  state\na     done\nb\nc     x\n"
