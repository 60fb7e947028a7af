"""The picture of a seam: raw, boundaries and segmentation on both sides of a plane."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from vimvol.report.colours import label_colours
from vimvol.report.png import write_png

WIDTH = 12.0
"""Inches of the picture, which no panel is higher than."""
NARROWEST = 6.0
"""Inches that the title takes."""
LINE = 0.35
"""Inches of a line of text with what is around it."""
FLATTEST = 0.5
"""Height by width of a panel below which panels lie below each other."""


def draw_seam(
    raw: NDArray[Any],
    boundaries: NDArray[np.uint8],
    segmentation: NDArray[np.uint64],
    path: str,
    *,
    seam: int,
    horizontal: bool,
    aspect: float,
    title: str,
) -> None:
    """Draw one cut through a seam as a PNG.

    Parameters
    ----------
    raw, boundaries, segmentation
        (N, M), the same cut through each.
    path
        Path or URL of the file.
    seam
        Rows, or columns, before the seam.
    horizontal
        Whether the seam lies between rows.
    aspect
        Size of a voxel along the rows' axis over that along the columns'.
    title
        What is shown.

    Raises
    ------
    StorageError
        If it cannot be written.
    """
    rows, columns, size = _arranged(raw.shape[0] * aspect / raw.shape[1])
    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    low, high = np.percentile(raw, (1, 99))
    panels: tuple[tuple[str, NDArray[Any], dict[str, Any]], ...] = (
        ("raw", raw, {"cmap": "gray", "vmin": low, "vmax": max(high, low + 1)}),
        ("boundaries", boundaries, {"cmap": "gray", "vmin": 0, "vmax": 255}),
        ("segmentation", label_colours(segmentation), {}),
    )
    for axes, (name, image, options) in zip(figure.subplots(rows, columns), panels, strict=True):
        axes.imshow(image, interpolation="nearest", aspect=aspect, **options)
        (axes.axhline if horizontal else axes.axvline)(seam - 0.5, color="#ffcc00", linewidth=0.8, linestyle=":")
        axes.set_title(name, fontsize=10)
        axes.set_axis_off()
    figure.suptitle(title, fontsize=11)
    write_png(figure, path)


def _arranged(ratio: float) -> tuple[int, int, tuple[float, float]]:
    """Return rows and columns of the panels, and the inches of a figure that images of this height by width fill."""
    if ratio < FLATTEST:
        return 3, 1, (WIDTH, 3 * (WIDTH * ratio + LINE) + LINE)
    panel = min(WIDTH / 3, WIDTH / ratio)
    return 1, 3, (max(3 * panel, NARROWEST), panel * ratio + 2 * LINE)
