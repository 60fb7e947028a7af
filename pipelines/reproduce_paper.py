"""Make Table 1 and Figure 2 of the ViM-UNet paper (Archit & Pape 2024) from what has been trained.

    python pipelines/reproduce_paper.py RUNS --data DATA --out runs/paper

RUNS holds the folders that `vimvol train configs/train/cremi_*.yaml` and `livecell_*.yaml` leave, DATA the folders
cremi and livecell of `vimvol download`. Of every network: parameters, memory and seconds of an image; of every trained
one mSA on the test part of the data, as the paper scores it (docs/evaluation.md). OUT gets table.md, figure.png and
results.json. What was measured and scored is not done again, and another training is scored anew.
"""

import hashlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from skimage.measure import label

from vimvol import SegmentConfig, load_config, score, segment_volume
from vimvol.cli import run_script
from vimvol.config import TrainConfig
from vimvol.errors import IncompleteRunError, InputError
from vimvol.evaluate.protocol import score_slices
from vimvol.geometry import Block
from vimvol.io import open_volume
from vimvol.models.checkpoint import read_spec
from vimvol.models.registry import MODELS, count_parameters
from vimvol.report.paper import PAPER, TASKS, draw, table

REPOSITORY = Path(__file__).resolve().parents[1]
PRESETS = REPOSITORY / "configs" / "segment"
WHOLE = {"input.missing": None, "predict.tile": [1024, 1024]}
"""An image of cells is predicted at once."""
SETTINGS: dict[str, tuple[str, dict[str, Any]]] = {
    "cremi": (
        "slices_components.yaml",
        {"input.missing": None, "predict.tile": [512, 512], "predict.halo": [128, 128], "segment.min_size": 50},
    ),
    "livecell_boundaries": ("cells.yaml", WHOLE),
    "livecell_distances": ("cells.yaml", WHOLE | {"cells.boundary": 0.6, "cells.smoothing": 1.0}),
}
"""Preset of every task, and what the paper's scripts set apart from it."""
TOGETHER = 128
"""Images that are segmented and scored as the slices of one volume, at most."""
TRUTH = "truth"


@dataclass(frozen=True)
class Experiment:
    """A network on a task: its configuration of `configs/train`, and where its weights are if it has been trained."""

    name: str
    task: str
    config: TrainConfig
    weights: Path


def main(
    runs: Annotated[Path, typer.Argument(help="Folder of training folders.")] = Path("runs"),
    data: Annotated[Path | None, typer.Option(help="Holds cremi and livecell; else where configurations say.")] = None,
    out: Annotated[Path, typer.Option(help="Where everything is written.")] = Path("runs/paper"),
    configs: Annotated[Path, typer.Option(help="Configurations of the trainings.")] = REPOSITORY / "configs" / "train",
    size: Annotated[int, typer.Option(min=1, help="Pixels along an axis of the image that is timed.")] = 512,
    repeat: Annotated[int, typer.Option(min=1, help="Forward passes that are timed.")] = 3,
    overrides: Annotated[list[str] | None, typer.Option("--set", help="Of `vimvol segment`; repeatable.")] = None,
    only: Annotated[list[str] | None, typer.Option(help="Such as cremi_*; measure and score no others.")] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Keep segmentations.")] = False,
) -> None:
    """Measure and score whatever is not yet; write table and figure after each."""
    experiments = find(configs, runs, data)
    settings = {e.name: segment_settings(e, overrides or []) for e in experiments}
    wanted = {e.name for e in experiments if any(fnmatch(e.name, pattern) for pattern in only or ["*"])}
    if not wanted:
        raise InputError(f"{', '.join(only or [])} fits no experiment; there are {', '.join(settings)}")
    out.mkdir(parents=True, exist_ok=True)
    if not any(e.weights.is_file() for e in experiments):
        typer.echo(f"{runs} holds no weights of these trainings, so nothing can be scored; only costs follow", err=True)
    failed = []
    rows = [as_row(e, out, known(e, settings[e.name], out)) for e in experiments]
    for number, experiment in enumerate(experiments):
        if experiment.name not in wanted:
            continue
        scores = None
        try:
            cost(experiment, out, size, repeat, settings[experiment.name].predict.device)
            if experiment.weights.is_file():
                scores = evaluate(experiment, settings[experiment.name], out, keep)
        except (InputError, IncompleteRunError) as error:  # the others can be done all the same
            failed.append(f"{experiment.name}: {error}")
            typer.echo(f"warning: {failed[-1]}", err=True)
        rows[number] = as_row(experiment, out, scores)
        rows = [row | {"cost": read(cost_file(e, out))} for row, e in zip(rows, experiments, strict=True)]
        write(rows, out, size)
    typer.echo((out / "table.md").read_text(encoding="utf-8"))
    typer.echo(f"figure        {out / 'figure.png'}")
    if failed:
        raise IncompleteRunError(f"{len(failed)} of {len(wanted)} experiments are not complete: {failed[0]}")


def find(configs: Path, runs: Path, data: Path | None) -> list[Experiment]:
    """Return the experiments that have a configuration, by task."""
    found = []
    for task in TASKS:
        for path in sorted(configs.glob(f"{task}_*.yaml")):
            config = load_config(TrainConfig, str(path))
            if config.model not in MODELS:
                raise InputError(f"{path} names the network {config.model!r}; there are {', '.join(MODELS)}")
            if data is not None:
                config = config.model_copy(update={"root": str(data / Path(config.root).name)})
            weights = runs / Path(config.out).name / f"{config.model}.safetensors"
            found.append(Experiment(path.stem, task, config, weights))
    if not found:
        raise InputError(f"{configs} holds no configuration of {', '.join(f'{t}_*.yaml' for t in TASKS)}; give another")
    return found


def segment_settings(experiment: Experiment, overrides: list[str]) -> SegmentConfig:
    """Return how the paper makes instances of what a network of the task predicts, and what the user sets."""
    preset, values = SETTINGS[experiment.task]
    fixed = [f"{key}={json.dumps(value)}" for key, value in values.items()]
    return load_config(SegmentConfig, str(PRESETS / preset), [*fixed, *overrides])


def cost(experiment: Experiment, out: Path, size: int, repeat: int, device: str) -> None:
    """Measure a network, unless that has been done for such an image and device."""
    from vimvol.infer.measure import measure
    from vimvol.train.export import network_options

    path, name = cost_file(experiment, out), experiment.config.model
    given = {"size": size, "asked": device}
    if (read(path) or {}).items() >= given.items():
        return
    typer.echo(f"{name}: measured on {size} x {size} pixels", err=True)
    found = measure(name, options=network_options(experiment.config), size=size, repeat=repeat, device=device)
    save(path, given | asdict(found))


def cost_file(experiment: Experiment, out: Path) -> Path:
    """Return where the costs of a network are; a task makes no difference to them."""
    from vimvol.train.export import network_options

    options = json.dumps(network_options(experiment.config), sort_keys=True)
    return out / "costs" / f"{experiment.config.model}-{short(options)}.json"


def evaluate(experiment: Experiment, settings: SegmentConfig, out: Path, keep: bool) -> dict[str, Any]:
    """Segment and score the test data of an experiment, unless the same weights have been with the same settings."""
    before = known(experiment, settings, out)
    if before is not None:
        return before
    key = key_of(experiment, settings)
    model = {"model": str(experiment.weights)}
    settings = settings.model_copy(update={"predict": settings.predict.model_copy(update=model)})
    check_weights(experiment)
    volumes = prepared(experiment, out)
    scratch = out / "segmentations" / experiment.name
    slices, seconds = [], 0.0
    for volume in volumes:
        typer.echo(f"{experiment.name}: volume {volume.stem} of {len(volumes)}", err=True)
        segmented = segment_volume(str(volume), str(scratch / volume.name), settings, overwrite=True)
        seconds += segmented.seconds
        addresses = str(scratch / volume.name), f"{volume}:labels/{TRUTH}/0"
        scored = score(*addresses, "2d", background="keep")["slices"]
        if experiment.task == "cremi":  # bodies of a volume, which a slice may meet in several places
            scored = [one | {"parts": of} for one, of in zip(scored, accuracies_of_parts(*addresses), strict=True)]
        slices += [{"volume": volume.stem} | one for one in scored]
    names = [n for n in ("mean_segmentation_accuracy", "sa50", "sa75", "parts") if n in slices[0]]
    means = {name: float(np.mean([one[name] for one in slices])) for name in names}
    found = {"key": key, **means, "images": len(slices), "pipeline_seconds": seconds, "slices": slices}
    save(scores_file(experiment, out), found)
    if not keep:
        shutil.rmtree(scratch)
    return found


def known(experiment: Experiment, settings: SegmentConfig, out: Path) -> dict[str, Any] | None:
    """Return the scores of an experiment if it is trained and scored as it is now."""
    before = read(scores_file(experiment, out)) if experiment.weights.is_file() else None
    return before if before is not None and before["key"] == key_of(experiment, settings) else None


def scores_file(experiment: Experiment, out: Path) -> Path:
    """Return where the scores of an experiment are."""
    return out / "scores" / f"{experiment.name}.json"


def key_of(experiment: Experiment, settings: SegmentConfig) -> dict[str, Any]:
    """Return what the scores of a trained network depend on."""
    with experiment.weights.open("rb") as file:
        weights = hashlib.file_digest(file, "sha256").hexdigest()
    how = settings.model_dump(mode="json", exclude={"run": True, "predict": {"model", "batch", "device"}})
    return {"weights": weights, "data": test_data(experiment.config), "settings": how}


def check_weights(experiment: Experiment) -> None:
    """Refuse weights of another network or task."""
    from vimvol.train.targets import TARGETS

    spec, classes = read_spec(experiment.weights), TARGETS[experiment.config.target].classes
    if (spec.architecture, spec.classes) != (experiment.config.model, classes):
        raise InputError(
            f"{experiment.weights} holds a {spec.architecture} for {', '.join(spec.classes)}, not a "
            f"{experiment.config.model} for {', '.join(classes)}; train {experiment.name} there"
        )


def accuracies_of_parts(segmentation: str, truth: str) -> list[float]:
    """Return the mSA of every slice where the parts of a body that do not touch in it are objects of their own."""
    found, labels = (open_volume(address, prefer="labels") for address in (segmentation, truth))
    result = []
    for z in range(found.shape[0]):
        box = Block((z, 0, 0), (z + 1, *found.shape[1:]))
        parts = label(labels.read(box)[0], background=0, connectivity=1)
        result.append(score_slices(found.read(box), parts[None], background="keep")["mean_segmentation_accuracy"])
    return result


def test_data(config: TrainConfig) -> dict[str, Any]:
    """Return what decides about the test data of a configuration."""
    volumes = [v.model_dump(include={"raw", "labels", "test", "validate_"}) for v in config.volumes]
    images = [i.model_dump(include={"folder", "test", "validate_", "min_size"}) for i in config.images]
    found = {"root": str(Path(config.root).resolve()), "volumes": volumes, "images": images}
    return dict(json.loads(json.dumps(found)))


def prepared(experiment: Experiment, out: Path) -> list[Path]:
    """Return the test slices or images as volumes with their ground truth; written if they are not there yet."""
    from vimvol.io.annotated import write_annotated
    from vimvol.train.sources import load_test_data

    name = f"{experiment.task.split('_')[0]}-{short(json.dumps(test_data(experiment.config), sort_keys=True))}"
    folder, draft = out / "data" / name, out / "data" / f".{name}"
    if not folder.exists():
        typer.echo(f"{experiment.name}: test data are put into {folder}", err=True)
        sources = load_test_data(experiment.config)
        shutil.rmtree(draft, ignore_errors=True)
        for number, group in enumerate(groups(sources), start=1):
            raw, truth = (np.stack([getattr(one, what) for one in group]) for what in ("raw", "labels"))
            write_annotated(draft / f"{number}.zarr", raw, truth, (1.0, 1.0, 1.0), TRUTH)
        draft.rename(folder)
    return sorted(folder.glob("*.zarr"), key=lambda path: int(path.stem))


def groups(sources: tuple[Any, ...]) -> Iterator[list[Any]]:
    """Yield slices of one shape that are segmented together; never those of two sources."""
    for source in sources:
        waiting: dict[tuple[int, ...], list[Any]] = {}
        for index in range(len(source)):
            one = source.read(index)
            group = waiting.setdefault(one.raw.shape, [])
            group.append(one)
            if len(group) == TOGETHER:
                yield waiting.pop(one.raw.shape)
        yield from waiting.values()


def as_row(experiment: Experiment, out: Path, scores: dict[str, Any] | None) -> dict[str, Any]:
    """Return all that is known of an experiment."""
    from vimvol.train.export import network_options
    from vimvol.train.targets import TARGETS

    config = experiment.config
    channels = len(TARGETS[config.target].classes)
    return {
        "experiment": experiment.name,
        "task": experiment.task,
        "model": config.model,
        "parameters": count_parameters(config.model, out_channels=channels, **network_options(config)),
        "cost": read(cost_file(experiment, out)),
        "weights": str(experiment.weights) if experiment.weights.is_file() else None,
        "scores": scores,
        "paper": PAPER[experiment.task].get(config.model),
    }


def write(rows: list[dict[str, Any]], out: Path, size: int) -> None:
    """Write table, figure and numbers of what there is so far."""
    (out / "table.md").write_text(table(rows, size), encoding="utf-8")
    save(out / "results.json", {"rows": rows})
    draw(rows, out / "figure.png")


def read(path: Path) -> dict[str, Any] | None:
    """Return a JSON file; none if it is not there."""
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else None


def save(path: Path, content: dict[str, Any]) -> None:
    """Write a JSON file, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}")
    draft.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    draft.replace(path)


def short(text: str) -> str:
    """Return a few letters that tell texts apart."""
    return hashlib.sha256(text.encode()).hexdigest()[:8]


if __name__ == "__main__":
    run_script(main, __doc__)
