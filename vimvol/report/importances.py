"""The picture of what a classifier of edges looks at."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from vimvol.report.png import write_png


def draw_importances(importances: Mapping[str, float], path: Path, title: str) -> None:
    """Draw the importance of every feature as a bar, in a PNG.

    Parameters
    ----------
    importances
        By feature, from the top down.
    path
        The file.
    title
        What is shown.

    Raises
    ------
    StorageError
        If it cannot be written.
    """
    figure = Figure(figsize=(7, 0.6 + 0.19 * len(importances)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.barh(list(importances), list(importances.values()), color="#4c78a8")
    axes.invert_yaxis()
    axes.tick_params(labelsize=7)
    axes.set_xlabel("mean decrease in impurity", fontsize=8)
    axes.set_title(title, fontsize=9)
    write_png(figure, path)
