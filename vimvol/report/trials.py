"""The picture of a tuning: the score over the trials, and over every parameter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from vimvol.report.png import write_png

COLUMNS = 4
PANEL = (3.0, 2.6)
"""Width and height of a panel, inches."""
MARK, FAINT = "#c8501e", "#8a94a3"


def draw_trials(
    path: Path, scores: Sequence[float], values: Sequence[Mapping[str, float]], metric: str, best: int
) -> Path:
    """Draw trials into a PNG.

    Parameters
    ----------
    path
        Where to.
    scores
        Score of every trial.
    values
        Parameters of every trial, by their keys.
    metric
        What the score is.
    best
        Number of the best trial, which is marked.

    Returns
    -------
    Path
        ``path``.

    Raises
    ------
    StorageError
        If it cannot be written.
    """
    panels: dict[str, Sequence[float]] = {"trial": range(len(scores))}
    panels |= {key: [one[key] for one in values] for key in values[0]}
    rows = -(-len(panels) // COLUMNS)
    figure = Figure((PANEL[0] * COLUMNS, PANEL[1] * rows), layout="constrained")
    FigureCanvasAgg(figure)
    for number, (name, places) in enumerate(panels.items(), start=1):
        axes = figure.add_subplot(rows, COLUMNS, number)
        axes.scatter(places, scores, s=12, color=FAINT)
        axes.scatter([places[best]], [scores[best]], s=36, color=MARK)
        axes.set_xlabel(name)
        if number % COLUMNS == 1:
            axes.set_ylabel(metric.replace("_", " "), fontsize="small")
    figure.suptitle(f"in colour the best, trial {best}: {scores[best]:.4f}", fontsize="medium")
    write_png(figure, path)
    return path
