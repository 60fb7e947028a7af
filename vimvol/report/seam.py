"""The picture of a seam: raw, boundaries and segmentation on both sides of a plane."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from vimvol.report.colours import told_apart
from vimvol.report.png import write_png
from vimvol.report.span import span_of

WIDTH = 12.0
"""Inches of the picture, which no panel is higher than."""
NARROWEST = 6.0
"""Inches that the title takes."""
LINE = 0.35
"""Inches of a line of text with what is around it."""
FLATTEST = 0.5
"""Height by width of a panel below which panels lie below each other."""


def draw_seam(
    raw: NDArray[Any] | None,
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
        (N, M), the same cut through each; no ``raw`` where intensities are gone.
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
    panels: list[tuple[str, NDArray[Any], dict[str, Any]]] = [
        ("boundaries", boundaries, {"cmap": "gray", "vmin": 0, "vmax": 255}),
        ("segmentation", told_apart([segmentation]).of(segmentation), {}),
    ]
    if raw is not None:
        low, high = span_of(raw)
        panels.insert(0, ("raw", raw, {"cmap": "gray", "vmin": low, "vmax": high}))
    rows, columns, size = _arranged(boundaries.shape[0] * aspect / boundaries.shape[1], len(panels))
    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    for axes, (name, image, options) in zip(figure.subplots(rows, columns), panels, strict=True):
        axes.imshow(image, interpolation="nearest", aspect=aspect, **options)
        (axes.axhline if horizontal else axes.axvline)(seam - 0.5, color="#ffcc00", linewidth=0.8, linestyle=":")
        axes.set_title(name, fontsize=10)
        axes.set_axis_off()
    figure.suptitle(title, fontsize=11)
    write_png(figure, path)


def _arranged(ratio: float, panels: int) -> tuple[int, int, tuple[float, float]]:
    """Return rows and columns of panels, and the inches of a figure that images of this height by width fill."""
    if ratio < FLATTEST:
        return panels, 1, (WIDTH, panels * (WIDTH * ratio + LINE) + LINE)
    panel = min(WIDTH / panels, WIDTH / ratio)
    return 1, panels, (max(panels * panel, NARROWEST), panel * ratio + 2 * LINE)
