"""What the ViM-UNet paper (Archit & Pape 2024, Table 1 and Figure 2) reports, and the same of ours beside it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from vimvol.report.png import write_png

TASKS = {
    "cremi": "CREMI, boundaries",
    "livecell_boundaries": "LIVECell, boundaries",
    "livecell_distances": "LIVECell, distances",
}
NAMES = {
    "unet": "UNet",
    "unetr-base": "UNETR Base",
    "unetr-large": "UNETR Large",
    "unetr-huge": "UNETR Huge",
    "nnunet": "nnU-Net",
    "umamba-bot": "U-Mamba Bot",
    "umamba-enc": "U-Mamba Enc",
    "vimunet-tiny": "ViM-UNet Tiny",
    "vimunet-small": "ViM-UNet Small",
}
PARAMETERS = {
    "unet": 28,
    "unetr-base": 113,
    "unetr-large": 334,
    "unetr-huge": 665,
    "vimunet-tiny": 18,
    "vimunet-small": 39,
}
"""Millions, as the paper has them."""
PAPER: dict[str, dict[str, float]] = {
    "cremi": {
        "unet": 0.354,
        "unetr-base": 0.285,
        "unetr-large": 0.325,
        "unetr-huge": 0.324,
        "nnunet": 0.452,
        "umamba-bot": 0.471,
        "umamba-enc": 0.467,
        "vimunet-tiny": 0.518,
        "vimunet-small": 0.530,
    },
    "livecell_boundaries": {
        "unet": 0.372,
        "unetr-base": 0.110,
        "unetr-large": 0.171,
        "unetr-huge": 0.216,
        "nnunet": 0.228,
        "umamba-bot": 0.234,
        "umamba-enc": 0.230,
        "vimunet-tiny": 0.269,
        "vimunet-small": 0.274,
    },
    "livecell_distances": {
        "unet": 0.429,
        "unetr-base": 0.145,
        "unetr-large": 0.157,
        "unetr-huge": 0.136,
        "vimunet-tiny": 0.381,
        "vimunet-small": 0.397,
    },
}
"""mSA by task and network."""
NONE = "-"


def table(rows: Sequence[dict[str, Any]], size: int) -> str:
    """Return the numbers as Markdown, with what they are.

    Parameters
    ----------
    rows
        Of every network and task, the keys ``task``, ``model``, ``parameters``, ``cost`` (a
        `vimvol.infer.measure.Cost` as a mapping, or none), ``weights`` (none: it has not been trained), ``scores``
        (``mean_segmentation_accuracy``, ``sa50``, ``sa75``, ``images``, or none) and ``paper``, mSA there, or none.
    size
        Pixels along an axis of the image that the costs are of.
    """
    devices = sorted({row["cost"]["device"] for row in rows if row["cost"]})
    lines = [
        "# Table 1 and Figure 2 of the ViM-UNet paper",
        "",
        "| network | task | parameters | paper, M | MiB | s | weights | images | mSA | paper | SA50 | SA75 | parts |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in complete(rows):
        spent, found = row["cost"], row["scores"]
        cells = [NAMES.get(row["model"], row["model"]), TASKS[row["task"]]]
        cells += [f"{row['parameters']:,}" if row["parameters"] else NONE, str(PARAMETERS.get(row["model"], NONE))]
        cells += [f"{spent['mebibytes']:,.0f}", f"{spent['seconds']:.3f}"] if spent else [NONE, NONE]
        cells += [("trained" if row["weights"] else "random") if row["parameters"] else "no configuration"]
        cells += [str(found["images"]), f"{found['mean_segmentation_accuracy']:.3f}"] if found else [NONE, NONE]
        cells += [NONE if row["paper"] is None else f"{row['paper']:.3f}"]
        cells += [f"{found[name]:.3f}" if found and name in found else NONE for name in ("sa50", "sa75", "parts")]
        lines.append(f"| {' | '.join(cells)} |")
    lines += [
        "",
        f"MiB and s: one forward pass of an image of {size} x {size} pixels in float32 with random weights, on "
        f"{' and '.join(devices) or 'nothing yet'}; they depend on neither training nor task. The paper's memory is "
        "that of a training and its seconds are those of its GPU, so they do not compare and are left out.",
        "",
        "mSA, SA50 and SA75: means over the test images (CREMI: slices 100 to 124 of A, B and C; LIVECell: its test "
        "part) of networks that have been trained; background counts, see docs/evaluation.md. Networks with random "
        "weights are not scored. Parts: mSA where the parts of a body that do not touch in the slice are "
        "objects of their own; the paper does not say which it takes.",
    ]
    return "\n".join(lines) + "\n"


def complete(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows, with those of the paper that have no configuration."""
    known = {(row["task"], row["model"]) for row in rows}
    blank = {"parameters": None, "cost": None, "weights": None, "scores": None}
    absent = [
        {"task": task, "model": model, "paper": value} | blank
        for task, values in PAPER.items()
        for model, value in values.items()
        if (task, model) not in known
    ]
    tasks, names = list(TASKS), [*NAMES, *(row["model"] for row in rows)]
    return sorted([*rows, *absent], key=lambda row: (tasks.index(row["task"]), names.index(row["model"])))


def draw(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Draw the mSA of every task: bars of the paper, and of ours where they have been trained.

    Parameters
    ----------
    rows
        As for `table`.
    path
        Of the PNG.

    Raises
    ------
    StorageError
        If it cannot be written.
    """
    figure = Figure(figsize=(13, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, len(TASKS), sharey=True)
    for axis, (task, title) in zip(axes, TASKS.items(), strict=True):
        shown = [row for row in complete(rows) if row["task"] == task]
        places = range(len(shown))
        paper = [row["paper"] or 0 for row in shown]
        ours = [row["scores"]["mean_segmentation_accuracy"] if row["scores"] else 0 for row in shown]
        bars = [
            axis.bar([p - 0.2 for p in places], paper, 0.4, label="paper", color="0.75"),
            axis.bar([p + 0.2 for p in places], ours, 0.4, label="vimvol", color="C0"),
        ]
        for drawn, values in zip(bars, (paper, ours), strict=True):
            axis.bar_label(drawn, [f"{v:.3f}" if v else "" for v in values], fontsize=6, rotation=90, padding=2)
        labels = [NAMES.get(row["model"], row["model"]) for row in shown]
        axis.set_xticks(list(places), labels, rotation=60, ha="right", fontsize=8)
        axis.set(title=title, ylim=(0, 1.15))
    axes[0].set_ylabel("mean segmentation accuracy")
    axes[0].legend()
    write_png(figure, path)
