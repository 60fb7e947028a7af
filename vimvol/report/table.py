"""Tables for a terminal."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

SHOWN = {
    "voi_split": "VOI split, bits",
    "voi_merge": "VOI merge, bits",
    "adapted_rand": "adapted Rand error",
    "cremi": "CREMI score",
    "mean_segmentation_accuracy": "mSA",
    "sa50": "SA50",
    "sa75": "SA75",
}
UNBOUNDED = 10_000
"""Columns of an output that is no terminal: wide enough for any row."""
HIGHER_IS_BETTER = ("mean_segmentation_accuracy", "sa50", "sa75")


def print_rows(names: Sequence[str], rows: Sequence[Sequence[str]], console: Console | None = None) -> None:
    """Print rows under the names of their columns; cells are folded to fit a terminal, and never elsewhere."""
    console = console or Console()
    if console.is_terminal:
        console.print(_table(names, rows))
        return
    text = io.StringIO()
    Console(file=text, width=UNBOUNDED).print(_table(names, rows))
    for line in text.getvalue().splitlines():  # rich fills the last column with blanks
        print(line.rstrip(), file=console.file)


def _table(names: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in names:
        table.add_column(Text(name), overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))  # as it is: a path may hold what would pass for markup
    return table


def print_scores(result: Mapping[str, Any], console: Console | None = None) -> None:
    """Print what `vimvol.commands.score.score` returns: a row a metric, a column a protocol."""
    scores: Mapping[str, Mapping[str, float]] = result["scores"]
    metrics = [name for name in SHOWN if any(name in values for values in scores.values())]
    rows = []
    for metric in metrics:
        better = "higher" if metric in HIGHER_IS_BETTER else "lower"
        values = [f"{scores[column][metric]:.3f}" if metric in scores[column] else "" for column in scores]
        rows.append([SHOWN[metric], *values, f"{better} is better"])
    print_rows(["score", *scores, ""], rows, console)
