"""The picture of a result: raw, boundaries, segmentation and, where there is one, ground truth side by side."""

from __future__ import annotations

import contextlib
import math
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray
from PIL import Image

from vimvol.report.colours import Shown, told_apart
from vimvol.report.png import write_png

Grey = NDArray[np.uint8]
Labels = NDArray[np.uint64]
Colour = NDArray[np.uint8]
"""(Y, X, 3) red, green, blue."""

PANEL = 600
"""Width of a panel, pixels of the picture; panels of tall slices are narrower."""
DPI = 160
MARGIN, GAP, CAPTION, HEAD = 36, 20, 44, 84
"""Pixels around everything, between panels, above a panel for its caption, and for the title."""
FILL = 0.48
"""Opacity of a segment's inside."""
INK, FAINT = "#1c2430", "#66707e"


@dataclass(frozen=True)
class Cut:
    """One cut through everything: a row of the picture.

    Attributes
    ----------
    raw
        (Y, X) uint8.
    boundaries
        (Y, X) uint8, 255 where a boundary is certain.
    segmentation
        (Y, X), 0 is background and not coloured. An id has the same colour in all cuts, and in every picture unless
        it touches one of like colour there.
    voxel_size
        nm, (y, x); none where it is not known: voxels are drawn as squares, without a scale bar.
    ground_truth
        (Y, X) labels for a fourth panel; none: three panels.
    plane
        Which axes are seen, e.g. ``xz``; empty where there is but one cut.

    Raises
    ------
    ValueError
        If the shapes differ or are not 2D.
    """

    raw: Grey
    boundaries: Grey
    segmentation: Labels
    voxel_size: tuple[float, float] | None
    ground_truth: Labels | None = None
    plane: str = ""

    def __post_init__(self) -> None:
        shapes = {a.shape for a in (self.raw, self.boundaries, self.segmentation, self.ground_truth) if a is not None}
        if len(shapes) != 1 or self.raw.ndim != 2 or self.raw.size == 0:
            raise ValueError(f"panels of shapes {sorted(shapes)} do not fit together; give arrays of one 2D shape")


def draw_cuts(
    cuts: Sequence[Cut], path: str | os.PathLike[str], *, title: str, scores: Mapping[str, float] | None = None
) -> None:
    """Draw cuts as a PNG, each a row of raw, boundaries and segmentation side by side, with a scale bar.

    The file appears when it is complete, and replaces one that is there.

    Parameters
    ----------
    cuts
        All with a ground truth, or none; of equal width in nm, for the rows have one width.
    path
        Path or URL to write to.
    title
        One line above the panels; a longer one is shortened.
    scores
        Numbers to write beside the title, by name.

    Raises
    ------
    StorageError
        If the file cannot be written.
    """
    sizes = _panel_sizes(cuts)
    columns = 3 if cuts[0].ground_truth is None else 4
    width = 2 * MARGIN + columns * sizes[0][1] + (columns - 1) * GAP
    height = HEAD + sum(CAPTION + h for h, _ in sizes) + (len(cuts) - 1) * GAP + MARGIN
    figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)
    page = _Page(figure, width, height)
    page.head(title, scores)
    top = HEAD
    segments = told_apart([cut.segmentation for cut in cuts])
    truths = told_apart([cut.ground_truth for cut in cuts if cut.ground_truth is not None])
    for cut, size in zip(cuts, sizes, strict=True):
        left = MARGIN
        for caption, note, panel in _panels(cut, size, segments, truths):
            page.caption(left, top + CAPTION - 12, size[1], caption, note)
            # Pixel upon pixel: the panel is not resampled again.
            figure.figimage(panel, left, height - top - CAPTION - size[0], origin="upper")
            left += size[1] + GAP
        if cut.voxel_size is not None:
            page.scale_bar(MARGIN, top + CAPTION, size, cut.voxel_size[1] * cut.raw.shape[1] / size[1])
        top += CAPTION + size[0] + GAP
    with _quiet():
        write_png(figure, path, DPI)


def _panel_sizes(cuts: Sequence[Cut]) -> list[tuple[int, int]]:
    """Return height and width, pixels, of the panels of every row: of one width, in true proportion."""
    ratios = [c.raw.shape[0] * y / (c.raw.shape[1] * x) for c in cuts for y, x in [c.voxel_size or (1.0, 1.0)]]
    width = max(160, round(min(PANEL, 1.5 * PANEL / max(ratios))))
    return [(min(max(24, round(width * ratio)), 3 * PANEL), width) for ratio in ratios]


def _panels(cut: Cut, size: tuple[int, int], segments: Shown, truths: Shown) -> Iterator[tuple[str, str, Colour]]:
    """Yield caption, note and pixels of the panels of a row."""
    raw = _resized(cut.raw, size)
    where = f"{cut.plane}  " if cut.plane else ""
    height, width = cut.raw.shape
    yield f"{where}raw", f"{width} × {height} voxels", np.repeat(raw[..., None], 3, axis=2)  # noqa: RUF001 - the sign meant
    magma = colormaps["magma"](_resized(cut.boundaries, size))[..., :3]
    yield f"{where}boundaries", "", np.asarray(255 * magma + 0.5).astype(np.uint8)
    for caption, labels, shown in (
        ("segmentation", cut.segmentation, segments),
        ("ground truth", cut.ground_truth, truths),
    ):
        if labels is not None:
            count = np.count_nonzero(np.unique(labels))
            yield (
                f"{where}{caption}",
                f"{count:,} segment{'' if count == 1 else 's'}",
                _overlay(raw, labels, shown, size),
            )


def _resized(image: Grey, size: tuple[int, int]) -> Grey:
    """Return intensities (Y, X) at the size of a panel."""
    return np.asarray(
        Image.fromarray(np.ascontiguousarray(image, np.uint8)).resize(size[::-1], Image.Resampling.LANCZOS)
    )


def _overlay(raw: Grey, labels: Labels, shown: Shown, size: tuple[int, int]) -> Colour:
    """Return labels in colours over ``raw``, which has the panel's size already, with outlines of one pixel."""
    rows, columns = ((np.arange(n) * s) // n for n, s in zip(size, labels.shape, strict=True))
    ids, index = np.unique(labels, return_inverse=True)
    index = index.reshape(labels.shape)[np.ix_(rows, columns)]
    colours = shown.of(ids.astype(np.uint64))[index]
    edge = np.zeros(size, dtype=bool)
    edge[1:] |= index[1:] != index[:-1]
    edge[:, 1:] |= index[:, 1:] != index[:, :-1]
    opacity = np.where(edge, 1.0, FILL)[..., None] * colours[..., 3:]
    # The picture of the cells below is lightened, so that colours stay clear on dark cytoplasm.
    below = np.repeat((raw / 255.0)[..., None] ** 0.8, 3, axis=2)
    mixed = below * (1.0 - opacity) + colours[..., :3] * opacity
    return np.asarray(255 * mixed + 0.5).astype(np.uint8)


@dataclass(frozen=True)
class _Page:
    """Text and bars on a figure, placed by pixels from its upper left corner."""

    figure: Figure
    width: int
    height: int

    def text(self, x: float, y: float, text: str, room: float, **style: Any) -> None:  # noqa: ANN401 - of Text
        """Write one line from, or with ``ha="right"`` up to, x on the base line y, shortened to ``room`` pixels."""
        style = {"fontsize": 8.0, "color": INK, "ha": "left", "va": "baseline", "parse_math": False, **style}
        line = " ".join(text.split())
        artist = self.figure.text(x / self.width, 1 - y / self.height, line, **style)
        renderer = self.figure.canvas.get_renderer()  # type: ignore[attr-defined]  # of the Agg canvas
        while len(line) > 1 and (needed := artist.get_window_extent(renderer).width) > room:
            line = line[: min(len(line) - 1, int(len(line) * room / needed))].rstrip()
            artist.set_text(line + "…")

    def head(self, title: str, scores: Mapping[str, float] | None) -> None:
        """Write the title, and at the right the scores."""
        numbers = "  ·  ".join(f"{name} {value:.3g}" for name, value in (scores or {}).items())
        inner = self.width - 2 * MARGIN
        share = 0.5 if numbers else 1.0
        with _quiet():
            self.text(MARGIN, 52, title, inner * share - GAP, fontsize=11.0, weight="bold")
            if numbers:
                self.text(self.width - MARGIN, 52, numbers, inner * (1 - share), ha="right", color=FAINT)

    def caption(self, left: float, base: float, width: float, caption: str, note: str) -> None:
        """Write the caption of a panel at its left, and a note at its right end."""
        self.text(left, base, caption, width, fontsize=8.5)
        if width > 280:
            self.text(left + width, base, note, width / 2, fontsize=7.0, color=FAINT, ha="right")

    def scale_bar(self, left: float, top: float, size: tuple[int, int], nm_per_pixel: float) -> None:
        """Draw a bar of a round length into the lower left corner of a panel."""
        length, label = _round_length(0.3 * size[1] * nm_per_pixel)
        bar = length / nm_per_pixel
        bottom = top + size[0] - 14
        self._box(left + 10, bottom - 32, max(bar, 50) + 20, 38, "black", 0.55)
        self._box(left + 20, bottom - 5, bar, 5, "white", 1.0)
        self.text(left + 20, bottom - 12, label, size[1], fontsize=7.5, color="white")

    def _box(self, left: float, top: float, width: float, height: float, colour: str, opacity: float) -> None:
        box = Rectangle(
            (left / self.width, 1 - (top + height) / self.height),
            width / self.width,
            height / self.height,
            transform=self.figure.transFigure,
            facecolor=colour,
            alpha=opacity,
            linewidth=0,
        )
        self.figure.add_artist(box)


def _round_length(most: float) -> tuple[float, str]:
    """Return the largest of 1, 2 and 5 times a power of ten that is at most ``most`` nm, and its text."""
    power = 10.0 ** math.floor(math.log10(most))
    length = next(f * power for f in (5.0, 2.0, 1.0) if f * power <= most * (1 + 1e-9))
    return length, f"{length / 1000:g} µm" if length >= 1000 else f"{length:g} nm"


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep Matplotlib from warning of letters that its font lacks: a title may come from any file name."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*missing from font.*", category=UserWarning)
        yield
