"""What matters for small networks on a CPU budget: short trainings that differ in one thing each, and their table.

Every arm trains from random weights on the same crops (same seed, 500 steps of 2) unless its name says otherwise, and
is judged on slices that no arm trained on: by components, as a training validates, and by the whole pipeline. An arm
that is done is not run again; an interrupted one goes on.

    python pipelines/training_study.py FOLDER run [ARM ...]     # trains arms; minutes each, half an hour if long
    python pipelines/training_study.py FOLDER score [ARM ...]   # segments unseen slices with them; a minute each
    python pipelines/training_study.py FOLDER report            # prints the tables, draws curves to docs
"""

import csv
import json
import time
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import typer
from study_prediction import CHOICES, HERE, images, scored

from vimvol.cli import run_script
from vimvol.config import TrainConfig, load_config
from vimvol.errors import ConfigError
from vimvol.train.fit import fit

REPOSITORY = Path(__file__).resolve().parents[1]
RUNS = Path("runs/study")
SHIPPED = {f"{name}, second training": Path("runs") / name for name in ("vimunet-nano", "unet-nano")}
"""Where `pipelines/train_shipped_models.py` leaves its logs; drawn beside the arms where they are."""
START = REPOSITORY / "configs" / "train" / "vimunet_nano_start.yaml"
SHORT: dict[str, Any] = {
    "steps": 500,
    "warmup": 60,
    "ema": 0.98,
    "learning_rate": 2e-3,
    "precision": "bfloat16",
    "validate_every": 250,
    "validate_slices": 3,
    "pictures": 0,
    "workers": 0,
    "augment": {},
}
LESS = {"scale": 0.35, "noise": 0.3, "stretch": 0, "jump": 0, "equalise": 0, "stains": 0, "coarsen": 0, "sharpen": 0}
"""The augmentation of the first trainings of the shipped networks."""
LONG = {"steps": 2800, "batch": 4, "warmup": 200, "ema": 0.998, "validate_every": 700}
"""As many crops as the second training of the shipped networks, from random weights; about half an hour of one core."""
SAME = {"looks": False}
"""Synthetic volumes that differ in neurites, membranes and noise alone, as first measured."""
INTENSITY = ("contrast", "illumination", "equalise", "stains", "coarsen", "blur", "noise", "sharpen")
ARMS: dict[str, dict[str, Any]] = {
    "base": {},
    "other seed": {"seed": 1},
    "U-Net": {"model": "unet-nano"},
    "skips as in the paper": {"options": {"skips": "deconv"}},
    "half as deep": {"options": {"depth": 4}},
    "embedding 64": {"options": {"embedding": 64}},
    "half the channels of the decoder": {"options": {"widths": (64, 48, 24, 16, 16)}},
    "patches of 8": {"options": {"patch": 8, "widths": (96, 48, 32, 16), "stem_widths": (16, 32, 48)}},
    "boundaries 4 thick": {"boundary_width": 4},
    "boundaries 6 thick": {"boundary_width": 6},
    "less augmentation": {"augment": LESS},
    "geometry alone": {"augment": dict.fromkeys(INTENSITY, 0)},
    "VNC alone": {"leave": (1,)},
    "VNC alone, less augmentation": {"leave": (1,), "augment": LESS},
    "FIB-25 alone": {"leave": (0,)},
    "FIB-25 alone, less augmentation": {"leave": (0,), "augment": LESS},
    "VNC alone, long": {"leave": (1,), **LONG},
    "FIB-25 alone, long": {"leave": (0,), **LONG},
    "synthetic alone": {"leave": (0, 1), "drawn": SAME},
    "VNC and synthetic": {"leave": (1,), "drawn": {"weight": 0.6, **SAME}},
    "FIB-25 and synthetic": {"leave": (0,), "drawn": {"weight": 0.4, **SAME}},
    "all and synthetic": {"drawn": {"weight": 0.35, **SAME}},
    "VNC and synthetic, long": {"leave": (1,), "drawn": {"weight": 0.6, **SAME}, **LONG},
    "FIB-25 and synthetic, long": {"leave": (0,), "drawn": {"weight": 0.4, **SAME}, **LONG},
    "synthetic of other looks alone": {"leave": (0, 1), "drawn": {}},
    "VNC and synthetic of other looks": {"leave": (1,), "drawn": {"weight": 0.6}},
    "FIB-25 and synthetic of other looks": {"leave": (0,), "drawn": {"weight": 0.4}},
    "VNC and synthetic of other looks, long": {"leave": (1,), "drawn": {"weight": 0.6}, **LONG},
    "FIB-25 and synthetic of other looks, long": {"leave": (0,), "drawn": {"weight": 0.4}, **LONG},
}
"""By name: what differs from the base; ``leave`` has the numbers of volumes that only validate."""
IMAGES = ("VNC, as it is", "VNC, washed out", "VNC, blurred and noisy", "FIB-25", "synthetic, zoom 1")
"""What the whole pipeline segments, of the images of `study_prediction.py`; no arm trained on any."""
BETAS = (0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6)
VNC, FIB = "0-vnc_stack1_z00-14", "1-fib25_sample2_z000-149"


def configuration(name: str, root: str) -> TrainConfig:
    """Return the configuration of an arm."""
    changes = {**SHORT, **ARMS[name], "root": root, "out": str(folder(name))}
    leave = changes.pop("leave", ())
    config = load_config(TrainConfig, str(START)).model_dump(by_alias=True)
    for number in leave:
        config["volumes"][number]["train"] = None
    return TrainConfig.model_validate({**config, **changes})


def folder(name: str) -> Path:
    """Return where an arm is trained."""
    return RUNS / name.lower().replace(",", "").replace(" ", "-")


def run(names: list[str], root: str) -> None:
    """Train arms; the CPU time of each is left beside its weights."""
    for name in names:
        config = configuration(name, root)
        weights = Path(config.out) / f"{config.model}.safetensors"
        if weights.exists():
            continue
        print(f"{name}: {config.out}")
        begin = time.process_time()
        fit(config)
        (Path(config.out) / "cpu-seconds.txt").write_text(f"{time.process_time() - begin:.0f}\n", encoding="utf-8")


def score(names: list[str], root: str) -> None:
    """Segment unseen images with every arm that has weights, at several priors, and score them."""
    torch.set_num_threads(1)
    HERE.mkdir(parents=True, exist_ok=True)
    shown = [(name, image) for name, image in images(Path(root)) if name in IMAGES]
    for arm in names:
        weights, record = sorted(folder(arm).glob("*.safetensors")), folder(arm) / "scores.json"
        if record.exists() or not weights:
            continue
        print(f"{arm}: {record}", flush=True)
        rows = [
            row for name, image in shown for row in scored(name, image, CHOICES["as it is"], str(weights[0]), BETAS)
        ]
        record.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


def best(rows: list[dict[str, Any]]) -> str:
    """Return the best of an image's scores and its prior; mSA is best where high, the CREMI score where low."""
    sign = -1 if rows[0]["image"].startswith("FIB-25") else 1
    row = max(rows, key=lambda row: sign * row["score"])
    return f"{row['score']:.3f} ({row['beta']:g})"


def curve(training: Path) -> list[dict[str, float]]:
    """Return the validations of a training, in the order of their steps."""
    rows = []
    for path in sorted((training / "logs").glob("version_*/metrics.csv")):
        with path.open(encoding="utf-8") as file:
            rows += [row for row in csv.DictReader(file) if row.get("val/msa")]
    return [{key: float(value) for key, value in row.items() if value} for row in rows]


def draw(curves: dict[str, list[dict[str, float]]], path: Path) -> None:
    """Draw validation scores by step, a line a training; nothing without any."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    if not curves:
        return
    figure, axes = plt.subplots(1, 2, figsize=(9, 4), sharex=True, layout="constrained")
    for number, (name, rows) in enumerate(curves.items()):
        style = {
            "color": f"C{number % 10}",
            "linestyle": ("-", "--")[number // 10 % 2],
            "marker": "os"[number // 10 % 2],
        }
        for axis, source in zip(axes, (VNC, FIB), strict=True):
            steps = [row["step"] + 1 for row in rows]
            axis.plot(steps, [row[f"val/{source}/msa"] for row in rows], label=name, markersize=4, **style)
            axis.set(title=source[2:].split("_")[0].upper(), xlabel="steps", ylabel="mSA, components")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", fontsize="small", ncols=3)
    figure.savefig(path, dpi=90)


def report() -> None:
    """Print the tables of the arms that have validated and been scored, and draw learning curves."""
    arms = {name: rows for name in ARMS if (rows := curve(folder(name)))}
    draw(arms, REPOSITORY / "docs" / "training-arms.png")
    shipped = {name: rows for name, place in SHIPPED.items() if (rows := curve(place))}
    draw(shipped, REPOSITORY / "docs" / "training-shipped.png")
    print("| arm | VNC mSA | VNC loss | FIB-25 mSA | FIB-25 loss | steps | CPU s |\n|---|---|---|---|---|---|---|")
    for name, rows in arms.items():
        last, spent = rows[-1], folder(name) / "cpu-seconds.txt"
        cells = [f"{last[f'val/{source}/{what}']:.3f}" for source in (VNC, FIB) for what in ("msa", "loss")]
        cells += [f"{last['step'] + 1:.0f}", spent.read_text(encoding="utf-8").strip() if spent.exists() else ""]
        print(f"| {name} | {' | '.join(cells)} |")
    print("\nBest score by the whole pipeline (its prior):\n")
    print(f"| arm | {' | '.join(IMAGES)} |\n|---{'|---' * len(IMAGES)}|")
    for name in ARMS:
        record = folder(name) / "scores.json"
        if record.exists():
            rows = json.loads(record.read_text(encoding="utf-8"))
            print(f"| {name} | {' | '.join(best([r for r in rows if r['image'] == image]) for image in IMAGES)} |")


def main(
    folder: Path, what: Literal["run", "score", "report"], arms: Annotated[list[str] | None, typer.Argument()] = None
) -> None:
    """Train, score, or report."""
    unknown = [name for name in arms or () if name not in ARMS]
    if unknown:
        raise ConfigError(f"{', '.join(unknown)}: no such arm; there are {', '.join(ARMS)}")
    if what == "run":
        run(arms or list(ARMS), str(folder))
    elif what == "score":
        score(arms or list(ARMS), str(folder))
    else:
        report()


if __name__ == "__main__":
    run_script(main, __doc__)
