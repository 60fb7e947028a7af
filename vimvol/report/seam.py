"""The picture of a seam: raw, boundaries and segmentation on both sides of a plane."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from vimvol.report.colours import label_colours
from vimvol.report.png import write_png


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
    figure = Figure(figsize=(12, 4.6), layout="constrained")
    FigureCanvasAgg(figure)
    low, high = np.percentile(raw, (1, 99))
    panels: tuple[tuple[str, NDArray[Any], dict[str, Any]], ...] = (
        ("raw", raw, {"cmap": "gray", "vmin": low, "vmax": max(high, low + 1)}),
        ("boundaries", boundaries, {"cmap": "gray", "vmin": 0, "vmax": 255}),
        ("segmentation", label_colours(segmentation), {}),
    )
    for axes, (name, image, options) in zip(figure.subplots(1, 3), panels, strict=True):
        axes.imshow(image, interpolation="nearest", aspect=aspect, **options)
        (axes.axhline if horizontal else axes.axvline)(seam - 0.5, color="#ffcc00", linewidth=0.8, linestyle=":")
        axes.set_title(name, fontsize=10)
        axes.set_axis_off()
    figure.suptitle(title, fontsize=11)
    write_png(figure, path)
